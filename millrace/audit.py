"""The audit: over a closed window, what PostgreSQL and the topic have and what Cassandra has are the same.

A window is closed when its end is older than the grace period. The next window begins where the last one that
was found without a difference ended: a difference that is not mended stays red.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from millrace import deletions, events, store, tables, topics
from millrace.connections import Connections, cassandra_session
from millrace.errors import MillraceError
from millrace.limits import LONGEST_GIVEN_WINDOW
from millrace.postgresql import postgresql_session
from millrace.schemas import TOPIC, event_fields

if TYPE_CHECKING:
    from cassandra.cluster import Session
    from psycopg2.extensions import connection as PostgresqlConnection

log = logging.getLogger(__name__)

GRACE: Final = timedelta(minutes=10)
# A window at a time, so that catching up after a long pause is many short runs.
LONGEST_WINDOW: Final = timedelta(days=1)
# What one run can compare in its time: a window it doesn't finish would be begun again every hour.
MOST_USERS: Final = 1_000_000
_CHUNK: Final = 5_000
_NAMED: Final = 20
_COUNTRY: Final = event_fields().index("country")
_BATCH: Final = event_fields().index("batch_id")


class AuditError(MillraceError):
    """The stations differ."""


class WindowError(MillraceError):
    """The window is not one that can be audited."""


@dataclass(slots=True)
class Audit:
    """What was compared and what differed (the first differences by name, all of them counted)."""

    start: datetime
    end: datetime
    users: int = 0
    topic_records: int = 0
    dead_letters: int = 0
    differences: int = 0
    named: list[str] = field(default_factory=list)
    missing: dict[str, store.StoredUser] = field(default_factory=dict)
    batches: set[str] = field(default_factory=set)
    in_topic: set[str] = field(default_factory=set)
    unequal: set[str] = field(default_factory=set)
    unlisted: set[str] = field(default_factory=set)
    strangers: bool = False

    def absent(self, user: tuple[Any, ...]) -> None:
        """Note an event that Cassandra lacks, for a closer look at the first ones."""
        if len(self.missing) < _NAMED:
            event = dict(zip(event_fields(), user, strict=True))
            created_at = datetime.fromtimestamp(event["created_at"] / 1000, UTC)
            self.missing[event["user_id"]] = store.StoredUser(event["user_id"], event["country"], created_at)
            self.batches.add(event["batch_id"])

    def differ(self, text: str) -> None:
        """Note a difference."""
        self.differences += 1
        if len(self.named) < _NAMED:
            self.named.append(text)
        log.error("audit: %s", text)


def audit(
    connections: Connections,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    grace: timedelta = GRACE,
) -> Audit:
    """Compare the stations over [start, end) of `created_at` (of the topic: of the records' time).

    Without bounds the window is the next one that is closed; if there is none yet, nothing is compared and the
    window is empty. A closed window without a difference that begins where the last one ended moves the watermark.
    Bounds may name any past window of a week at most: what is still on its way is missing then. Raises AuditError
    naming the differences.
    """
    if (start is None) != (end is None):
        raise WindowError("give both bounds of the window, or none")
    with postgresql_session(connections.postgresql, application_name="audit") as postgresql:
        begin, stop = next_window(postgresql, grace) if start is None or end is None else (start, end)
        result = Audit(begin, stop)
        if start is None and begin == stop:
            return result
        now = datetime.now(UTC)
        if begin >= stop or stop > now:
            raise WindowError(
                f"window {begin:%F %T} to {stop:%F %T}: its end must be after its start, and in the past"
            )
        if stop - begin > LONGEST_GIVEN_WINDOW:
            raise WindowError(
                f"window {begin:%F %T} to {stop:%F %T}: longer than {LONGEST_GIVEN_WINDOW.days} days; take several audits"
            )
        session = cassandra_session(connections.cassandra)
        try:
            _compare_rows(postgresql, session, result)
            _find_strangers(postgresql, session, result)
            _compare_topic(connections, session, result)
            explained = [*_explanations(postgresql, result), _hidden(session, result)]
        finally:
            session.cluster.shutdown()
        if result.differences:
            told = "; ".join(result.named) + "".join(f".\n{text}" for text in explained if text)
            raise AuditError(
                f"window {begin:%F %T} to {stop:%F %T}: {result.differences} differences. {told}"
            )
        # Earlier, a transaction may still be open that stores a user of this window.
        if stop <= now - grace:
            _record(postgresql, result)
    return result


def audited_until(connections: Connections) -> datetime:
    """Return where the first window begins that was not audited yet."""
    with postgresql_session(connections.postgresql, application_name="audit") as postgresql:
        return _watermark(postgresql)[0]


def next_window(postgresql: PostgresqlConnection, grace: timedelta) -> tuple[datetime, datetime]:
    """Return the next closed window, in whole minutes; an empty one (start is end) when none is closed yet.

    It ends before the minute that brings it over MOST_USERS, but is one minute long at least.
    """
    begin, now = _watermark(postgresql)
    with postgresql, postgresql.cursor() as cursor:
        cursor.execute(
            "SELECT date_trunc('minute', created_at) FROM millrace.users WHERE created_at >= %s "
            "ORDER BY created_at OFFSET %s LIMIT 1",
            (begin, MOST_USERS),
        )
        too_many = cursor.fetchone()
    closed = (now - grace).replace(second=0, microsecond=0)
    end = min(closed, begin + LONGEST_WINDOW)
    if too_many:
        end = min(end, max(too_many[0], begin + timedelta(minutes=1)))
    if end < closed:
        log.warning(
            "audit: the window ends at %s, %s before what could be audited", end.isoformat(" "), closed - end
        )
    return begin, max(begin, end)


def _watermark(postgresql: PostgresqlConnection) -> tuple[datetime, datetime]:
    """Return where the next window begins, and PostgreSQL's clock."""
    with postgresql, postgresql.cursor() as cursor:
        cursor.execute(
            "SELECT coalesce((SELECT max(window_end) FROM millrace.audits), "
            "date_trunc('minute', (SELECT min(created_at) FROM millrace.users)), now()), now()"
        )
        row = cursor.fetchone()
    if row is None:
        raise RuntimeError("a query without a table gave no row")
    begin, now = row
    return begin, now


def _compare_rows(postgresql: PostgresqlConnection, session: Session, result: Audit) -> None:
    """Every user of PostgreSQL is in both tables with equal values; the table by country holds no other."""
    listed = set(tables.countries(session))
    for low, high in _slices(postgresql, result.start, result.end):
        users = _users_created_within(postgresql, low, high)
        by_id = tables.events_by_id(session, [user[0] for user in users])
        # A country that is not listed has its rows nevertheless.
        countries = listed | {user[_COUNTRY] for user in users}
        partitions = [(country, low.replace(second=0, microsecond=0)) for country in sorted(countries)]
        by_country = {row[0]: row for row in tables.events_by_country(session, partitions, (low, high))}
        for user in users:
            result.users += 1
            if user[_COUNTRY] not in listed:
                result.differ(f"{user[0]}'s country is not in countries")
                result.unlisted.add(user[_BATCH])
            for table, found in (
                ("users_by_id", by_id.get(user[0])),
                ("users_by_country", by_country.pop(user[0], None)),
            ):
                if found is None:
                    result.differ(f"{user[0]} is not in {table}")
                    result.absent(user)
                elif wrong := events.differing_fields(user, found):
                    result.differ(f"{user[0]} differs in {table}: {', '.join(wrong)}")
                    result.unequal.add(user[_BATCH])
        for stranger in by_country:
            result.differ(f"{stranger} is in users_by_country and not in PostgreSQL")
            result.strangers = True


def _slices(
    postgresql: PostgresqlConnection, start: datetime, end: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """Cut [start, end) into spans of one minute at most, with _CHUNK users each or those of one batch, if that has more.

    However many users a minute has, those that are compared at a time fit the memory.
    """
    for minute in tables.minutes(start, end):
        low, stop = max(minute, start), min(minute + timedelta(minutes=1), end)
        with postgresql, postgresql.cursor() as cursor:
            cursor.execute(
                "SELECT created_at, count(*) FROM millrace.users WHERE created_at >= %s AND created_at < %s "
                "GROUP BY created_at ORDER BY created_at",
                (low, stop),
            )
            moments = cursor.fetchall()
        users = 0
        for created_at, stored in moments:
            if users and users + stored > _CHUNK:
                yield low, created_at
                low, users = created_at, 0
            users += stored
        yield low, stop


def _find_strangers(postgresql: PostgresqlConnection, session: Session, result: Audit) -> None:
    """The table by id holds no user that PostgreSQL has not."""
    for chunk in tables.chunks(tables.ids_created_within(session, result.start, result.end), _CHUNK):
        with postgresql, postgresql.cursor() as cursor:
            cursor.execute(
                "SELECT user_id::text FROM millrace.users WHERE user_id = ANY (%s::uuid[])", (chunk,)
            )
            known = {user_id for (user_id,) in cursor}
        for stranger in set(chunk) - known:
            result.differ(f"{stranger} is in users_by_id and not in PostgreSQL")
            result.strangers = True


def _compare_topic(connections: Connections, session: Session, result: Audit) -> None:
    """Every record is in Cassandra by its id or is a dead letter; no dead letter is left unresolved."""
    with topics.consumer(connections.kafka) as consumer:
        letters = topics.dead_letters(consumer)
        dead = {letter.place for letter in letters}
        owners = topics.user_ids(consumer, [letter.place for letter in letters if not letter.resolved])
        missing = tables.missing_by_id(session, {owner for owner in owners.values() if owner is not None})
        for letter in letters:
            owner = owners.get(letter.place)
            if letter.resolved:
                continue
            if owner is None or owner in missing:
                result.dead_letters += 1
                result.differ(
                    f"dead letter {letter.place} ({letter.reason}: {letter.error}) is not resolved; send its user again, "
                    f"or mark it with `millrace dead-letters resolve {letter.place}`"
                )
        span = (topics.offsets_at(consumer, result.start), topics.offsets_at(consumer, result.end))
        for chunk in tables.chunks(topics.records(consumer, *span), _CHUNK):
            result.topic_records += len(chunk)
            ids = [topics.user_id(record.key) for record in chunk]
            absent = tables.missing_by_id(session, {user_id for user_id in ids if user_id is not None})
            for record, user_id in zip(chunk, ids, strict=True):
                place = topics.Place(TOPIC, record.partition, record.offset)
                if (user_id is None or user_id in absent) and place not in dead:
                    result.differ(f"record {place} is neither in Cassandra nor a dead letter")
                    result.in_topic.add(user_id or "")


def _explanations(postgresql: PostgresqlConnection, result: Audit) -> Iterator[str]:
    """Say what differences come from that are not of the flow's making, and what mends them."""

    def again(batches: set[str]) -> str:
        return "".join(
            f"\n  millrace republish --all --batch {batch_id}" for batch_id in sorted(batches)[:_NAMED]
        )

    if result.unlisted:
        yield (
            "Of a country that is not in countries, users_rollup counts nobody: its row there was deleted. The streaming job lists it"
            " again with the next user of it after `ansible-playbook ansible/restart.yml -e service=users_stream`:"
            + again(result.unlisted)
        )
    if result.unequal:
        yield (
            "A row that differs was written by somebody else, or a value of it deleted, with a newer write time. Sent again when"
            " the clock has passed that one, the user's values are newer:" + again(result.unequal)
        )
    if result.strangers:
        with postgresql, postgresql.cursor() as cursor:
            cursor.execute("SELECT min(created_at) FROM millrace.users")
            [oldest] = cursor.fetchone() or [None]
        if oldest is not None and oldest > result.start:
            yield (
                f"PostgreSQL's oldest user is of {oldest:%F %T}: whom users_retention has deleted there, Cassandra still has, and a"
                " window before that can't be compared"
            )


def _hidden(session: Session, result: Audit) -> str:
    """Say which of the missing rows a deletion hides, and how that is seen and mended."""
    rows = deletions.hidden(session, list(result.missing.values()))
    proven = {row.user.user_id for row in rows}
    in_neither = [user for user in result.missing.values() if user.user_id in result.in_topic - proven]
    explained = deletions.explain(session, result.batches, rows, in_neither)
    return f".\n{explained}" if explained else ""


def _users_created_within(
    postgresql: PostgresqlConnection, low: datetime, high: datetime
) -> list[tuple[Any, ...]]:
    with postgresql, postgresql.cursor() as cursor:
        cursor.execute(
            f"SELECT {store.event_columns('u')} FROM millrace.users AS u "  # noqa: S608
            "WHERE created_at >= %s AND created_at < %s",
            (low, high),
        )
        users: list[tuple[Any, ...]] = cursor.fetchall()
        return users


def _record(postgresql: PostgresqlConnection, result: Audit) -> None:
    """Move the watermark, if the window touches it: a window by hand elsewhere proves nothing about the gap."""
    with postgresql, postgresql.cursor() as cursor:
        cursor.execute(
            "INSERT INTO millrace.audits (window_start, window_end, users) SELECT %(start)s, %(end)s, %(users)s "
            "WHERE %(start)s <= coalesce((SELECT max(window_end) FROM millrace.audits), "
            "(SELECT min(created_at) FROM millrace.users), %(start)s) "
            "ON CONFLICT (window_end) DO NOTHING",
            {"start": result.start, "end": result.end, "users": result.users},
        )
