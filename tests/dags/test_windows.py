from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from millrace.airflow import windows
from millrace.flow import ConfError

NINE, TEN = datetime(2026, 1, 31, 9, tzinfo=UTC), datetime(2026, 1, 31, 10, tzinfo=UTC)


@pytest.mark.parametrize("conf", [None, {}, {"start": None, "end": None}])
def test_a_conf_without_a_window(conf) -> None:
    assert windows.from_conf(conf) is None


@pytest.mark.parametrize(
    "conf",
    [
        {"start": "2026-01-31T09:00:00Z", "end": "2026-01-31T10:00:00+00:00"},
        {"start": "2026-01-31T10:00+01:00", "end": "2026-01-31T05:00-05:00"},
    ],
)
def test_a_window(conf) -> None:
    assert windows.from_conf(conf) == (NINE, TEN)


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"begin": "2026-01-31T09:00Z"}, "unknown 'begin'"),
        ({"start": "2026-01-31T09:00Z"}, "give start and end"),
        ({"start": "nine", "end": "2026-01-31T10:00Z"}, "conf.start must be a time"),
        ({"start": 9, "end": "2026-01-31T10:00Z"}, "conf.start must be a time"),
        ({"start": "2026-01-31T09:00", "end": "2026-01-31T10:00Z"}, "names no time zone"),
        ({"start": "2026-01-31T09:00:30Z", "end": "2026-01-31T10:00Z"}, "not a whole minute"),
        ({"start": "2026-01-31T10:00Z", "end": "2026-01-31T10:00Z"}, "the window is empty"),
        ({"start": "2026-01-01T10:00Z", "end": "2026-01-31T10:00Z"}, "longer than 7 days"),
        ({"start": "2999-01-31T09:00Z", "end": "2999-01-31T10:00Z"}, "ends in the future"),
        ({"start": "0001-01-01T00:00+01:00", "end": "2026-01-31T10:00Z"}, "conf.start must be a time"),
    ],
)
def test_a_window_that_is_not_understood_is_refused(conf, reason: str) -> None:
    with pytest.raises(ConfError, match=reason):
        windows.from_conf(conf)


def test_hourly_windows_leave_no_gap() -> None:
    moments = [NINE + timedelta(hours=hour, microseconds=hour) for hour in range(5)]
    found = [windows.closed_hour(moment, timedelta(minutes=10)) for moment in moments]
    assert found[0] == (NINE - timedelta(minutes=70), NINE - timedelta(minutes=10))
    assert all(before[1] == after[0] for before, after in pairwise(found))
