"""Reads of the users' tables in Cassandra."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

from millrace import events
from millrace.errors import MillraceError
from millrace.schemas import event_fields
from millrace.store import StoredUser

if TYPE_CHECKING:
    from cassandra.cluster import Session

CONCURRENCY: Final = 64
# What a query costs the driver is more than what a row does.
KEYS_TOGETHER: Final = 50
TOKEN_RANGES: Final = 64
_FIRST_TOKEN: Final = -(2**63)
_TOKENS: Final = 2**64


class CassandraReadError(MillraceError):
    """Cassandra did not answer a read; nothing is known about the rows."""


Event = tuple[Any, ...]


def missing_by_id(session: Session, user_ids: Collection[str]) -> set[str]:
    """Return those ids that users_by_id has no row of."""
    return set(user_ids) - {str(row[0]) for row in _select_by_id(session, "user_id", user_ids)}


def missing_by_country(session: Session, users: Iterable[StoredUser]) -> set[str]:
    """Return the ids of those users that users_by_country has no row of.

    Users of a batch have one `created_at`, so that this costs a read per country and not per user.
    """
    wanted = list(users)
    found = {str(row[0]) for row in _select_by_moment(session, "user_id", wanted)}
    return {user.user_id for user in wanted} - found


def write_times_by_id(session: Session, user_ids: Collection[str]) -> dict[str, datetime]:
    """Return the write times (UTC) of the rows of users_by_id for these ids, by id."""
    return _write_times(_select_by_id(session, _WRITE_TIME, user_ids))


def write_times_by_country(session: Session, users: Iterable[StoredUser]) -> dict[str, datetime]:
    """Return the write times (UTC) of the rows of users_by_country for these users, by id."""
    wanted = list(users)
    found = _write_times(_select_by_moment(session, _WRITE_TIME, wanted))
    return {user.user_id: found[user.user_id] for user in wanted if user.user_id in found}


def unreadable(session: Session, users: Sequence[StoredUser]) -> list[str]:
    """Return the ids of users that can't be read in both tables yet, in the order given."""
    missing = missing_by_country(session, users)
    missing |= missing_by_id(session, [user.user_id for user in users if user.user_id not in missing])
    return [user.user_id for user in users if user.user_id in missing]


def events_by_id(session: Session, user_ids: Collection[str]) -> dict[str, Event]:
    """Return the rows of users_by_id for these ids, as normal events by id."""
    rows = (events.normal(row) for row in _select_by_id(session, _EVENT_COLUMNS, user_ids))
    return {row[0]: row for row in rows}


def events_by_country(
    session: Session,
    partitions: Collection[tuple[str, datetime]],
    created_within: tuple[datetime, datetime] | None = None,
) -> Iterator[Event]:
    """Yield the rows of users_by_country in these partitions (country, minute), as normal events.

    With `created_within` (low, high) those alone that have low <= created_at < high.
    """
    query = f"SELECT {_EVENT_COLUMNS} FROM users_by_country WHERE country = ? AND minute = ?"  # noqa: S608
    if created_within is not None:
        query += " AND created_at >= ? AND created_at < ?"
    bounds = created_within or ()
    for row in _select_each(session, query, [(*partition, *bounds) for partition in partitions]):
        yield events.normal(row)


def countries(session: Session) -> list[str]:
    """Return every country that users_by_country has rows of."""
    return sorted(row[0] for row in _rows(session.execute("SELECT country FROM countries")))


def ids_created_within(session: Session, start: datetime, end: datetime) -> Iterator[str]:
    """Yield the ids of all rows of users_by_id with start <= created_at < end.

    Reads the whole table, filtered by the nodes: for audits, which must see the rows that nobody knows of.
    """
    bounds = [_FIRST_TOKEN + _TOKENS * index // TOKEN_RANGES for index in range(TOKEN_RANGES)]
    ranges = list(zip(bounds, [*bounds[1:], _FIRST_TOKEN + _TOKENS - 1], strict=True))
    query = (
        "SELECT user_id FROM users_by_id WHERE token(user_id) > ? AND token(user_id) <= ? "
        "AND created_at >= ? AND created_at < ? ALLOW FILTERING"
    )
    for row in _select_each(session, query, [(low, high, start, end) for low, high in ranges], concurrency=4):
        yield str(row[0])


def minutes(start: datetime, end: datetime) -> Iterator[datetime]:
    """Yield every minute of the window [start, end)."""
    current = start.replace(second=0, microsecond=0)
    while current < end:
        yield current
        current += timedelta(minutes=1)


_Item = TypeVar("_Item")


def chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield the items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


_EVENT_COLUMNS: Final = ", ".join(event_fields())
# A column that every row has.
_WRITE_TIME: Final = "user_id, writetime(batch_id)"


def _write_times(rows: Iterable[tuple[Any, ...]]) -> dict[str, datetime]:
    return {str(user_id): datetime.fromtimestamp(micros / 1_000_000, UTC) for user_id, micros in rows}


def _select_by_moment(
    session: Session, columns: str, users: Iterable[StoredUser]
) -> Iterator[tuple[Any, ...]]:
    """Yield these columns of users_by_country for the countries and the `created_at` of these users."""
    slices = {
        (user.country, events.minute(events.milliseconds(user.created_at)), user.created_at) for user in users
    }
    query = f"SELECT {columns} FROM users_by_country WHERE country = ? AND minute = ? AND created_at = ?"  # noqa: S608
    yield from _select_each(session, query, slices)


def _select_by_id(session: Session, columns: str, user_ids: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """Yield these columns of users_by_id for these ids, where there is a row."""
    query = f"SELECT {columns} FROM users_by_id WHERE user_id IN ?"  # noqa: S608
    together = [(keys,) for keys in chunks(map(UUID, user_ids), KEYS_TOGETHER)]
    yield from _select_each(session, query, together, concurrency=CONCURRENCY // 8)


def _select_each(
    session: Session, query: str, arguments: Collection[tuple[Any, ...]], *, concurrency: int = CONCURRENCY
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query for each of its arguments, many at a time."""
    from cassandra import DriverException
    from cassandra.cluster import NoHostAvailable
    from cassandra.concurrent import execute_concurrent_with_args

    if not arguments:
        return
    try:
        statement = session.prepare(query)
        results = execute_concurrent_with_args(
            session, statement, list(arguments), concurrency=concurrency, results_generator=True
        )
        for _, result in results:
            yield from _rows(result)
    except (DriverException, NoHostAvailable) as error:
        raise CassandraReadError(f"{query.split(' WHERE ')[0]}: {error}") from error


def _rows(result: Any) -> Iterator[tuple[Any, ...]]:
    """All pages of a result."""
    yield from (tuple(row) for row in result)
