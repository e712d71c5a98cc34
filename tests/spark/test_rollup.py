"""Cells as a function of rows, and which windows are accepted."""

from datetime import UTC, date, datetime

import pytest
import users_rollup
from millrace_spark import transforms
from pyspark.sql import SparkSession

MINUTE = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
NEXT = datetime(2026, 3, 2, tzinfo=UTC)


def cells(spark: SparkSession, *rows: tuple[str, datetime, str]) -> list[tuple]:
    frame = spark.createDataFrame(rows, "country string, minute timestamp, gender string")
    counted = transforms.users_per_minute(frame).selectExpr(
        "country", "day", "unix_seconds(minute)", "gender", "users"
    )
    return sorted(tuple(row) for row in counted.collect())


def test_counts_by_country_minute_and_gender(spark: SparkSession) -> None:
    rows = [("Iran", MINUTE, "female")] * 2 + [
        ("Iran", MINUTE, "male"),
        ("Iran", NEXT, "male"),
        ("Peru", NEXT, "male"),
    ]
    assert cells(spark, *rows) == [
        ("Iran", date(2026, 3, 1), int(MINUTE.timestamp()), "female", 2),
        ("Iran", date(2026, 3, 1), int(MINUTE.timestamp()), "male", 1),
        ("Iran", date(2026, 3, 2), int(NEXT.timestamp()), "male", 1),
        ("Peru", date(2026, 3, 2), int(NEXT.timestamp()), "male", 1),
    ]


def test_cells_without_rows_vanish(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [("Iran", MINUTE, "male")], "country string, minute timestamp, gender string"
    )
    now = transforms.users_per_minute(rows)
    before = transforms.users_per_minute(
        spark.createDataFrame([("Iran", MINUTE, "male"), ("Iran", MINUTE, "female")], rows.schema)
    )
    assert [(row.gender, row.users) for row in transforms.vanished_cells(before, now).collect()] == [
        ("female", 0)
    ]


def test_window_is_covered_exactly(spark: SparkSession) -> None:
    minutes = [
        row[0]
        for row in users_rollup.minutes(spark, MINUTE, NEXT).selectExpr("unix_seconds(minute)").collect()
    ]
    assert minutes == [int(MINUTE.timestamp())]
    assert [row.day for row in users_rollup.days(spark, MINUTE, NEXT).collect()] == [date(2026, 3, 1)]
    later = datetime(2026, 3, 2, 0, 1, tzinfo=UTC)
    assert [row.day for row in users_rollup.days(spark, MINUTE, later).collect()] == [
        date(2026, 3, 1),
        date(2026, 3, 2),
    ]


def test_window_in_any_offset() -> None:
    assert users_rollup.window("2026-03-02T05:44:00+05:45", "2026-03-02T00:00:00Z", NEXT) == (MINUTE, NEXT)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("yesterday", "2026-03-02T00:00:00Z", "ISO 8601"),
        ("2026-03-01T00:00:00", "2026-03-02T00:00:00Z", "time zone"),
        ("2026-03-01T00:00:30Z", "2026-03-02T00:00:00Z", "whole minute"),
        ("2026-03-02T00:00:00Z", "2026-03-02T00:00:00Z", "empty"),
        ("2026-03-01T00:00:00Z", "2026-03-02T00:01:00Z", "not closed"),
    ],
)
def test_wrong_window_is_refused(start: str, end: str, message: str) -> None:
    with pytest.raises(users_rollup.WindowError, match=message):
        users_rollup.window(start, end, NEXT)
