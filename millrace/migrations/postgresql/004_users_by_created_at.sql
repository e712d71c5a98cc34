-- The audit reads users by spans of their arrival. A block range index knows the newest blocks only after a vacuum, which comes
-- when a fifth of the table is new: until then each span had all of those read. Users of a batch arrived together, so this
-- index holds them under one key, and it grows at its end alone.
DROP INDEX millrace.users_by_created_at;
CREATE INDEX users_by_created_at ON millrace.users (created_at);
