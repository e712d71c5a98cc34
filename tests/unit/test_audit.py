"""The audit's windows, against a real PostgreSQL; its comparison of all stations is a test of the platform."""

from datetime import UTC, datetime, timedelta

import pytest

from millrace import audit, source, store, tables
from millrace.connections import Connections

GRACE = timedelta(minutes=10)


@pytest.fixture
def stored_at(connect, source_url):
    """Store a batch as if it had been stored at a moment."""

    def store_at(moment: datetime) -> None:
        users = source.fetch(source_url, "randomuser", "audit-", 3).users
        store.store(connect("ingest"), users)
        with connect("millrace") as owner, owner.cursor() as cursor:
            cursor.execute("UPDATE millrace.users SET created_at = %s", (moment,))

    return store_at


def now() -> datetime:
    return datetime.now(UTC)


def test_the_first_window_begins_with_the_first_user(connect, stored_at) -> None:
    moment = now() - timedelta(hours=3, seconds=7)
    stored_at(moment)
    start, end = audit.next_window(connect("audit"), GRACE)
    assert start == moment.replace(second=0, microsecond=0)
    assert timedelta(0) <= now() - GRACE - end < timedelta(minutes=1, seconds=5)
    assert (end.second, end.microsecond) == (0, 0)


def test_the_next_window_begins_where_the_last_green_one_ended(connect, stored_at) -> None:
    stored_at(now() - timedelta(hours=3))
    session = connect("audit")
    audit._record(session, audit.Audit(now() - timedelta(hours=1), now() - timedelta(minutes=30)))
    start = now().replace(second=0, microsecond=0) - timedelta(hours=3)
    assert audit.next_window(session, GRACE)[0] <= start, "the first window begins with the first user"
    first = audit.Audit(now() - timedelta(hours=4), now() - timedelta(hours=2))
    audit._record(session, first)
    assert audit.next_window(session, GRACE)[0] == first.end
    gap = audit.Audit(now() - timedelta(hours=1), now() - timedelta(minutes=30))
    audit._record(session, gap)
    assert audit.next_window(session, GRACE)[0] == first.end, "a window that leaves a gap moves nothing"
    audit._record(session, audit.Audit(first.end, gap.end))
    assert audit.next_window(session, GRACE)[0] == gap.end


def test_a_long_pause_is_caught_up_in_pieces(connect, stored_at) -> None:
    stored_at(now() - timedelta(days=9))
    start, end = audit.next_window(connect("audit"), GRACE)
    assert end - start == audit.LONGEST_WINDOW


def test_a_window_holds_no_more_users_than_a_run_can_compare(connect, stored_at, monkeypatch) -> None:
    start = now().replace(second=0, microsecond=0) - timedelta(hours=3)
    stored_at(start)
    with connect("millrace") as owner, owner.cursor() as cursor:
        cursor.execute("SELECT user_id FROM millrace.users ORDER BY user_id")
        for minutes, (user_id,) in zip((0, 5, 7), cursor.fetchall(), strict=True):
            moment = start + timedelta(minutes=minutes, seconds=7)
            cursor.execute("UPDATE millrace.users SET created_at = %s WHERE user_id = %s", (moment, user_id))
    session = connect("audit")
    for most, minutes in ((2, 7), (1, 5), (0, 1)):
        monkeypatch.setattr(audit, "MOST_USERS", most)
        assert audit.next_window(session, GRACE) == (start, start + timedelta(minutes=minutes)), (
            f"{most} users"
        )


def test_a_window_that_is_not_closed_is_refused_or_empty(as_role, connect, stored_at) -> None:
    server = as_role("audit")
    connections = Connections(
        {"postgresql": {"host": server.host, "dbname": server.dbname, "user": server.user}}, "audit.json"
    )
    empty = audit.audit(connections)
    assert empty.start == empty.end
    stored_at(now())
    with pytest.raises(audit.WindowError, match="in the past"):
        audit.audit(connections, now() - timedelta(hours=1), now() + timedelta(hours=1))
    with pytest.raises(audit.WindowError, match="after its start"):
        audit.audit(connections, now() - timedelta(hours=1), now() - timedelta(hours=2))
    with pytest.raises(audit.WindowError, match="both bounds"):
        audit.audit(connections, now())


def test_minutes_of_a_window() -> None:
    start = datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC)
    assert list(tables.minutes(start, start)) == [start.replace(second=0)]
    assert [moment.minute for moment in tables.minutes(start, start + timedelta(minutes=2))] == [0, 1, 2]


def test_what_is_compared_at_a_time_is_bounded(connect, source_url, monkeypatch) -> None:
    """Slices lie end to end, hold whole batches, and no more users than fit, unless one batch alone has more."""
    monkeypatch.setattr(audit, "_CHUNK", 6)
    start = datetime(2026, 1, 1, 0, 0, tzinfo=UTC)
    end = start + timedelta(minutes=3)
    with connect("millrace") as owner, owner.cursor() as cursor:
        for number, (second, count) in enumerate([(0, 3), (10, 3), (20, 3), (30, 7), (40, 1), (61, 2)]):
            users = source.fetch(source_url, "randomuser", f"slices-{number}-", count).users
            store.store(connect("ingest"), users)
            cursor.execute(
                "UPDATE millrace.users SET created_at = %s WHERE batch_id = %s",
                (start + timedelta(seconds=second), str(users[0].batch_id)),
            )
    session = connect("audit")
    slices = list(audit._slices(session, start, end))
    assert [(low - start).seconds for low, _ in slices] == [0, 20, 30, 40, 60, 120]
    assert [high for _, high in slices] == [*(low for low, _ in slices[1:]), end]
    assert [len(audit._users_created_within(session, *slice_)) for slice_ in slices] == [6, 3, 7, 1, 2, 0]
