"""How fast rows go from PostgreSQL's commit until they can be read in Cassandra, and what that costs (`make bench`)."""
