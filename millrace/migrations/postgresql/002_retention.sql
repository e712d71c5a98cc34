-- Delete at most `at_most` users that were stored before `before`; return how many that were.
-- A user that still waits for the relay, or sits in quarantine, is kept whatever its age.
CREATE FUNCTION millrace.delete_users(before timestamptz, at_most integer DEFAULT 10000) RETURNS bigint
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    WITH expired AS (
        SELECT u.user_id
        FROM millrace.users AS u
        WHERE u.created_at < before
          AND NOT EXISTS (SELECT FROM millrace.users_outbox AS o WHERE o.user_id = u.user_id)
          AND NOT EXISTS (SELECT FROM millrace.users_quarantine AS q WHERE q.user_id = u.user_id)
        LIMIT at_most
    ), deleted AS (
        DELETE FROM millrace.users USING expired WHERE users.user_id = expired.user_id RETURNING 1
    )
    SELECT count(*) FROM deleted
$$;

REVOKE EXECUTE ON FUNCTION millrace.delete_users FROM PUBLIC;
