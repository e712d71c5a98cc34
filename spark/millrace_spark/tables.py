"""Cassandra's tables: what is written with which settings, and read by partition."""

from __future__ import annotations

from typing import Final

from pyspark.sql import DataFrame, SparkSession

from millrace_spark.transforms import WRITE_TIME

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


def write_users_by_id(rows: DataFrame, keyspace: str) -> None:
    """Write rows of users_by_id (with write_time in microseconds)."""
    _write(rows, keyspace, "users_by_id", {**_BY_ID, "writetime": WRITE_TIME})


def write_users_by_country(rows: DataFrame, keyspace: str) -> None:
    """Write rows of users_by_country (with write_time in microseconds)."""
    _write(rows, keyspace, "users_by_country", {**_BY_PARTITION, "writetime": WRITE_TIME})


def write_countries(rows: DataFrame, keyspace: str) -> None:
    """Write rows of countries: country."""
    _write(rows, keyspace, "countries", {})


def write_users_per_minute(cells: DataFrame, keyspace: str) -> None:
    """Write cells of users_per_minute."""
    _write(cells, keyspace, "users_per_minute", _BY_PARTITION)


def expire_users_per_minute(cells: DataFrame, keyspace: str) -> None:
    """Let these cells vanish within a second."""
    _write(cells, keyspace, "users_per_minute", {**_BY_PARTITION, "ttl": str(_EXPIRE_SECONDS)})


def read(spark: SparkSession, keyspace: str, table: str) -> DataFrame:
    """Return a table. Joined on its whole partition key, only those partitions are read."""
    return spark.read.format(_FORMAT).options(keyspace=keyspace, table=table, directJoinSetting="on").load()


def _write(rows: DataFrame, keyspace: str, table: str, options: dict[str, str]) -> None:
    rows.write.format(_FORMAT).options(keyspace=keyspace, table=table, **options).mode("append").save()
