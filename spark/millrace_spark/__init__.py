"""The Spark part of Millrace: pure transforms, and the readers and writers around them.

`schema` and `transforms` are functions on schemas and DataFrames; `registry`, `sources` and `tables` talk to
the services; `session` makes the Spark session from spark/conf and the connections.
"""
