"""Batch job: recompute users_per_minute for the closed window [start, end) from users_by_country.

    users_rollup.py --start 2026-01-31T10:00:00Z --end 2026-01-31T11:00:00Z

The cells are a pure function of the rows: running it again gives the same cells, and a cell whose rows are gone
vanishes. Only the window's partitions are read. Environment: MILLRACE_CONNECTIONS (sections cassandra, spark).
Ends with 0, or with another code and the cause as its last line.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from datetime import UTC, datetime, timedelta

from millrace_spark import session, tables, transforms
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from millrace import connections
from millrace.errors import MillraceError

log = logging.getLogger("users_rollup")


class WindowError(MillraceError):
    """The window is not one that can be computed."""


def main(arguments: list[str] | None = None) -> int:
    """Run the job; return the process's exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--start", required=True, help="first minute of the window, ISO 8601 with offset or Z"
    )
    parser.add_argument("--end", required=True, help="the minute after the last")
    options = parser.parse_args(arguments)
    session.log_to_stderr()
    try:
        start, end = window(options.start, options.end, now=datetime.now(UTC))
        clients = connections.load()
        spark = session.start(
            "users_rollup", session.settings("common", "users_rollup"), session.secrets(clients)
        )
        try:
            executors = session.ExecutorWatch(spark)
            while not executors.there():
                time.sleep(0.2)
            cells, vanished = rollup(spark, clients.cassandra.keyspace, start, end)
        finally:
            spark.stop()
    except (MillraceError, PySparkException) as error:
        log.error("ended: %s: %s", type(error).__name__, error)
        return 1
    except ConnectionError as error:  # to the driver's other half
        log.error(
            "ended: Spark's driver, a Java process, is gone (%s). Killed for want of memory? journalctl -k -g oom-kill",
            error,
        )
        return 1
    log.info("window %s to %s: cells=%d vanished=%d", start.isoformat(), end.isoformat(), cells, vanished)
    return 0


def window(start: str, end: str, now: datetime) -> tuple[datetime, datetime]:
    """Parse a closed window of whole minutes; WindowError says what is wrong with it."""
    try:
        first, last = datetime.fromisoformat(start), datetime.fromisoformat(end)
    except ValueError as error:
        raise WindowError(f"not a time in ISO 8601: {error}") from error
    for moment in (first, last):
        if moment.tzinfo is None:
            raise WindowError(f"{moment.isoformat()} names no time zone: append Z for UTC")
        if moment.second or moment.microsecond:
            raise WindowError(f"{moment.isoformat()} is not a whole minute")
    if first >= last:
        raise WindowError(f"the window is empty: {start} is not before {end}")
    if last > now:
        raise WindowError(f"the window is not closed yet: {end} lies ahead")
    return first.astimezone(UTC), last.astimezone(UTC)


def rollup(spark: SparkSession, keyspace: str, start: datetime, end: datetime) -> tuple[int, int]:
    """Recompute the window's cells; return how many there are and how many vanished."""
    countries = tables.read(spark, keyspace, "countries").persist()
    rows = (
        # Kept apart by `persist`: joined as they are, the optimiser would take the join to pieces, and the
        # connector, which reads by partition only where the whole key is given, would scan the table.
        countries.crossJoin(minutes(spark, start, end))
        .persist()
        .join(tables.read(spark, keyspace, "users_by_country"), ["country", "minute"])
        .select("country", "minute", "gender")
    )
    cells = transforms.users_per_minute(rows).persist()
    existing = (
        countries.crossJoin(days(spark, start, end))
        .persist()
        .join(tables.read(spark, keyspace, "users_per_minute"), ["country", "day"])
        .where((F.col("minute") >= F.lit(start)) & (F.col("minute") < F.lit(end)))
    )
    vanished = transforms.vanished_cells(existing, cells).persist()
    counts = cells.count(), vanished.count()
    tables.users_per_minute(spark, keyspace)(cells)
    if counts[1]:
        tables.expired_users_per_minute(spark, keyspace)(vanished)
    return counts


def minutes(spark: SparkSession, start: datetime, end: datetime) -> DataFrame:
    """Return the minutes of the window: minute (timestamp)."""
    count = int((end - start) / timedelta(minutes=1))
    first = int(start.timestamp())
    return spark.range(count).select(F.timestamp_seconds(F.lit(first) + 60 * F.col("id")).alias("minute"))


def days(spark: SparkSession, start: datetime, end: datetime) -> DataFrame:
    """Return the days that the window touches: day (date)."""
    last = (end - timedelta(microseconds=1)).date()
    count = (last - start.date()).days + 1
    return spark.range(count).select(F.date_add(F.lit(start.date()), F.col("id").cast("int")).alias("day"))


if __name__ == "__main__":
    sys.exit(main())
