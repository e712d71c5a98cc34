-- Users as the source gave them, and the outbox through which the relay publishes them.
-- A user is an immutable event: no role but the owner may update one.
CREATE TABLE millrace.users (
    user_id              uuid PRIMARY KEY,
    batch_id             uuid NOT NULL,
    -- Every later station keeps milliseconds.
    created_at           timestamptz NOT NULL DEFAULT date_trunc('milliseconds', transaction_timestamp()),
    gender               text NOT NULL,
    title                text NOT NULL,
    first_name           text NOT NULL,
    last_name            text NOT NULL,
    street_number        integer NOT NULL,
    street_name          text NOT NULL,
    city                 text NOT NULL,
    state                text NOT NULL,
    country              text NOT NULL CHECK (country <> ''),
    postcode             text NOT NULL,
    latitude             double precision NOT NULL CHECK (latitude BETWEEN -90 AND 90),
    longitude            double precision NOT NULL CHECK (longitude BETWEEN -180 AND 180),
    timezone_offset      text NOT NULL,
    timezone_description text NOT NULL,
    email                text NOT NULL,
    username             text NOT NULL,
    login_uuid           uuid NOT NULL,
    date_of_birth        timestamptz NOT NULL,
    registered_at        timestamptz NOT NULL,
    phone                text NOT NULL,
    cell                 text NOT NULL,
    id_name              text NOT NULL,
    id_value             text,
    picture              text NOT NULL,
    nationality          text NOT NULL,
    seed                 text NOT NULL CHECK (seed <> ''),
    page                 integer NOT NULL CHECK (page >= 1),
    position             integer NOT NULL CHECK (position >= 0),
    received             jsonb NOT NULL
        CONSTRAINT received_holds_no_secret
        CHECK (NOT (received -> 'login') ?| ARRAY['password', 'salt', 'md5', 'sha1', 'sha256'])
);

CREATE INDEX users_by_batch ON millrace.users (batch_id);
-- Rows arrive in the order of created_at: a block range index finds a window at next to no cost.
CREATE INDEX users_by_created_at ON millrace.users USING brin (created_at);

-- No foreign key: the row is written in the user's transaction, and a check per row would cost half the speed.
CREATE TABLE millrace.users_outbox (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id     uuid NOT NULL,
    batch_id    uuid NOT NULL,
    -- Sent again on purpose: its rows then outlive a deletion in Cassandra that is younger than the user.
    republished boolean NOT NULL DEFAULT false,
    enqueued_at timestamptz NOT NULL DEFAULT now()
) WITH (
    -- A queue is dead rows soon: they are cleaned by number, not by share of the table.
    autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_threshold = 10000,
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 100000
);

CREATE INDEX users_outbox_by_batch ON millrace.users_outbox (batch_id);

-- Users that the relay could not encode. Putting them back is `millrace republish`.
CREATE TABLE millrace.users_quarantine (
    user_id        uuid PRIMARY KEY,
    batch_id       uuid NOT NULL,
    error          text NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX users_quarantine_by_batch ON millrace.users_quarantine (batch_id);

-- Audits that found no difference. The latest window's end is where the next one begins.
CREATE TABLE millrace.audits (
    window_start timestamptz NOT NULL,
    window_end   timestamptz PRIMARY KEY,
    users        bigint NOT NULL,
    finished_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (window_start < window_end)
);
