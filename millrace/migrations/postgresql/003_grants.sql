-- The least that each client needs. The roles themselves are made with the server.
GRANT USAGE ON SCHEMA millrace TO ingest, relay, audit;

-- Airflow's tasks store batches, look at what became of them, and put users back into the outbox.
GRANT SELECT, INSERT ON millrace.users, millrace.users_outbox TO ingest;
GRANT SELECT, DELETE ON millrace.users_quarantine TO ingest;
GRANT EXECUTE ON FUNCTION millrace.delete_users TO ingest;

-- The relay locks outbox rows (for which PostgreSQL asks for UPDATE of a column) and takes them out.
GRANT SELECT ON millrace.users TO relay;
GRANT SELECT, DELETE, UPDATE (enqueued_at) ON millrace.users_outbox TO relay;
GRANT SELECT, INSERT, UPDATE ON millrace.users_quarantine TO relay;

GRANT SELECT ON ALL TABLES IN SCHEMA millrace TO audit;
GRANT INSERT ON millrace.audits TO audit;

-- A batch is copied into a temporary table first.
DO $$
BEGIN
    EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO ingest', current_database());
END
$$;
