"""Cassandra's tables: what is written with which settings, and read by partition."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Final

from pyspark.sql import DataFrame, SparkSession

from millrace_spark.transforms import WRITE_TIME

Write = Callable[[DataFrame], None]

_FORMAT: Final = "org.apache.spark.sql.cassandra"

# Rows that share their replicas travel together. With a ring as large as the replication factor all rows do;
# a larger ring needs another look. Measured: 8,000 rows/s against 2,700 by partition.
_BY_ID: Final = {
    "spark.cassandra.output.batch.grouping.key": "replica_set",
    "spark.cassandra.output.batch.size.bytes": "65536",
}
# Many rows of a batch share country and minute: one mutation per partition (16,400 rows/s).
_BY_PARTITION: Final = {
    "spark.cassandra.output.batch.grouping.key": "partition",
    "spark.cassandra.output.batch.size.bytes": "32768",
}
# A cell that must go is rewritten to expire: DataFrames have no delete.
_EXPIRE_SECONDS: Final = 1


def users_by_id(spark: SparkSession, keyspace: str) -> Write:
    """Return what writes rows of users_by_id (with write_time in microseconds)."""
    return _sink(spark, keyspace, "users_by_id", {**_BY_ID, "writetime": WRITE_TIME})


def users_by_country(spark: SparkSession, keyspace: str) -> Write:
    """Return what writes rows of users_by_country (with write_time in microseconds)."""
    return _sink(spark, keyspace, "users_by_country", {**_BY_PARTITION, "writetime": WRITE_TIME})


def countries(spark: SparkSession, keyspace: str) -> Write:
    """Return what writes rows of countries: country."""
    return _sink(spark, keyspace, "countries", {})


def users_per_minute(spark: SparkSession, keyspace: str) -> Write:
    """Return what writes cells of users_per_minute."""
    return _sink(spark, keyspace, "users_per_minute", _BY_PARTITION)


def expired_users_per_minute(spark: SparkSession, keyspace: str) -> Write:
    """Return what writes cells of users_per_minute that are to vanish within a second."""
    return _sink(spark, keyspace, "users_per_minute", {**_BY_PARTITION, "ttl": str(_EXPIRE_SECONDS)})


def read(spark: SparkSession, keyspace: str, table: str) -> DataFrame:
    """Return a table. Joined on its whole partition key, only those partitions are read."""
    return spark.read.format(_FORMAT).options(keyspace=keyspace, table=table, directJoinSetting="on").load()


def _sink(spark: SparkSession, keyspace: str, table: str, options: dict[str, str]) -> Write:
    """Look the table up, and return what appends rows to it, columns by name.

    DataFrameWriter.save looks it up each time: it reads the schema of every keyspace, nearly half the time of a small
    write, and for the second in which the driver's control connection has lost its node and seeks another, it fails, or
    hangs for good. An insert takes the table from a view that was looked up once.
    """
    view = f"sink_{uuid.uuid4().hex}"
    found = spark.read.format(_FORMAT).options(keyspace=keyspace, table=table, **options)
    found.load().createOrReplaceTempView(view)
    return lambda rows: rows.write.insertInto(view)
