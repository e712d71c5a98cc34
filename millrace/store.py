"""The users' table and its outbox in PostgreSQL."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg2

from millrace.errors import MillraceError
from millrace.postgresql import copy_place, said
from millrace.schemas import event_fields, timestamp_fields
from millrace.users import User

if TYPE_CHECKING:
    from psycopg2.extensions import connection as PostgresqlConnection
    from psycopg2.extensions import cursor as PostgresqlCursor

log = logging.getLogger(__name__)

# The channel that wakes the relay.
CHANNEL: Final = "users_outbox"
# Where an event, as a tuple of the event's fields, has its time of storing.
EVENT_CREATED_AT: Final = event_fields().index("created_at")
# Characters that COPY's text format gives a meaning.
_COPY_ESCAPES: Final = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NAMED_DIFFERENCES: Final = 10


class ReplayDiffersError(MillraceError):
    """Users that were asked for again are not the ones that are stored. Nothing was changed."""


class RefusedUserError(MillraceError):
    """PostgreSQL refuses a user of the batch. Nothing was stored."""


class UnknownBatchError(MillraceError):
    """There is no user of the batch."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of a batch: users that are new, and users that were there already."""

    inserted: int
    existing: int


class StoredUser(NamedTuple):
    """What is needed to find a stored user in the later stations."""

    user_id: str
    country: str
    created_at: datetime


def store(connection: PostgresqlConnection, users: Sequence[User]) -> Stored:
    """Store users and an outbox row for each new one, in one transaction; wake the relay.

    Doing it again changes nothing. Raises ReplayDiffersError, naming users and fields, when a stored user differs
    from the one that is given in anything but its ages, and RefusedUserError, naming the user's place, when PostgreSQL
    takes a user for none; then nothing at all was stored.
    """
    try:
        with connection, connection.cursor() as cursor:
            return _store(cursor, users)
    except (psycopg2.DataError, psycopg2.IntegrityError) as error:
        raise RefusedUserError(
            f"{_place_of_refused(connection, users, error)}PostgreSQL refuses a user: {said(error)}. Nothing of the batch was "
            "stored; let millrace/users.py refuse such a user by its field"
        ) from None


def event_columns(alias: str) -> str:
    """Return the event's fields as a list of SQL expressions on `alias`, in the event's order.

    Timestamps are integers of milliseconds, as in Avro: exact, and cheaper than datetimes.
    """
    return ", ".join(
        f"(extract(epoch FROM {alias}.{name}) * 1000)::bigint AS {name}"
        if name in timestamp_fields()
        else f"{alias}.{name}"
        for name in event_fields()
    )


def batch_events(connection: PostgresqlConnection, batch_id: str) -> list[tuple[Any, ...]]:
    """Return a batch's users as events: the event's fields in their order, as `event_columns` gives them."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {event_columns('u')} FROM millrace.users AS u WHERE batch_id = %s "  # noqa: S608
            "ORDER BY page, position",
            (batch_id,),
        )
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def batch_users(connection: PostgresqlConnection, batch_id: str) -> list[StoredUser]:
    """Return a batch's users in the source's order; raise UnknownBatchError when there is none."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT user_id::text, country, created_at FROM millrace.users WHERE batch_id = %s "
            "ORDER BY page, position",
            (batch_id,),
        )
        rows = [StoredUser(*row) for row in cursor]
    if not rows:
        raise UnknownBatchError(f"batch {batch_id}: PostgreSQL has no user of it; was it stored?")
    return rows


def unpublished(connection: PostgresqlConnection, batch_id: str) -> list[str]:
    """Return the ids of a batch's users that wait in the outbox."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT user_id::text FROM millrace.users_outbox WHERE batch_id = %s", (batch_id,)
        )
        return [user_id for (user_id,) in cursor]


def quarantined(connection: PostgresqlConnection, batch_id: str) -> dict[str, str]:
    """Return the ids of a batch's users that the relay could not encode, each with the error."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT user_id::text, error FROM millrace.users_quarantine WHERE batch_id = %s", (batch_id,)
        )
        return dict(cursor.fetchall())


def republish(connection: PostgresqlConnection, batch_id: str, user_ids: Iterable[str] | None = None) -> int:
    """Put users of a batch (all, or those named) into the outbox again; return how many were.

    One that waits there already is not put in twice; one in quarantine gets another try. The topic may then hold an
    event twice, which changes nothing further on. Raises UnknownBatchError when there is no such batch.
    """
    chosen = None if user_ids is None else list(user_ids)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT FROM millrace.users WHERE batch_id = %s)", (batch_id,))
        if cursor.fetchone() == (False,):
            raise UnknownBatchError(f"batch {batch_id}: PostgreSQL has no user of it; was it stored?")
        arguments = {"batch": batch_id, "ids": chosen}
        cursor.execute(
            "DELETE FROM millrace.users_quarantine "
            "WHERE batch_id = %(batch)s AND (%(ids)s::uuid[] IS NULL OR user_id = ANY (%(ids)s::uuid[]))",
            arguments,
        )
        cursor.execute(
            """
            INSERT INTO millrace.users_outbox (user_id, batch_id, republished)
            SELECT user_id, batch_id, true FROM millrace.users
            WHERE batch_id = %(batch)s AND (%(ids)s::uuid[] IS NULL OR user_id = ANY (%(ids)s::uuid[]))
              AND user_id NOT IN (SELECT user_id FROM millrace.users_outbox WHERE batch_id = %(batch)s)
            ORDER BY page, position
            """,
            arguments,
        )
        enqueued: int = cursor.rowcount
        cursor.execute(f"NOTIFY {CHANNEL}")
    return enqueued


# What the source gives; `created_at` is PostgreSQL's.
_STORED_FIELDS: Final = User._fields


def _store(cursor: PostgresqlCursor, users: Sequence[User]) -> Stored:
    columns = _copy(cursor, users)
    cursor.execute(
        f"""
        WITH inserted AS (
            INSERT INTO millrace.users ({columns}) SELECT {columns} FROM incoming
            ON CONFLICT (user_id) DO NOTHING RETURNING user_id, batch_id
        ), enqueued AS (
            INSERT INTO millrace.users_outbox (user_id, batch_id) SELECT user_id, batch_id FROM inserted
        )
        SELECT count(*) FROM inserted
        """  # noqa: S608 - the columns are names of this module
    )
    inserted = _number(cursor)
    existing = len(users) - inserted
    if existing:
        _refuse_differences(cursor)
    if inserted:
        cursor.execute(f"NOTIFY {CHANNEL}")
    return Stored(inserted, existing)


def _copy(cursor: PostgresqlCursor, users: Sequence[User], like: str = "INCLUDING DEFAULTS") -> str:
    """Copy users into a temporary table; return its columns."""
    columns = ", ".join(_STORED_FIELDS)
    cursor.execute(f"CREATE TEMPORARY TABLE incoming (LIKE millrace.users {like}) ON COMMIT DROP")
    cursor.copy_expert(f"COPY incoming ({columns}) FROM STDIN", _CopyStream(users), size=1 << 20)
    return columns


def _place_of_refused(connection: PostgresqlConnection, users: Sequence[User], error: psycopg2.Error) -> str:
    line, _ = copy_place(error)
    if line is None:
        # A constraint is not checked before the users go into their table, and then no line is known.
        try:
            with connection, connection.cursor() as cursor:
                _copy(cursor, users, "INCLUDING DEFAULTS INCLUDING CONSTRAINTS")
        except psycopg2.IntegrityError as again:
            line, _ = copy_place(again)
    return "" if line is None else f"page {users[line - 1].page}, position {users[line - 1].position}: "


class _CopyStream(io.RawIOBase):
    """Users as COPY's text format, made while it is read: the batch is in memory once, not twice."""

    def __init__(self, users: Iterable[User]) -> None:
        self._lines = _copy_lines(users)

    def read(self, size: int = -1, /) -> bytes:
        """Return whole lines of at least `size` bytes in all, or nothing at the end."""
        parts: list[bytes] = []
        length = 0
        for line in self._lines:
            parts.append(line)
            length += len(line)
            if 0 < size <= length:
                break
        return b"".join(parts)


def _copy_lines(users: Iterable[User]) -> Iterator[bytes]:
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    last = len(_STORED_FIELDS) - 1
    for user in users:
        values = [
            value if type(value) is str else "\\N" if value is None else str(value) for value in user[:last]
        ]
        line = "\t".join(values)
        if "\\" in line or "\n" in line or "\r" in line or line.count("\t") != last - 1:
            line = "\t".join(
                "\\N" if value is None else str(value).translate(_COPY_ESCAPES) for value in user[:last]
            )
        received = encode(user.received).replace("\\", "\\\\")
        yield f"{line}\t{received}\n".encode()


def _refuse_differences(cursor: PostgresqlCursor) -> None:
    """Compare the users that were there already with the incoming ones."""
    compared = [
        f"CASE WHEN stored.{name} IS DISTINCT FROM incoming.{name} THEN '{name}' END"
        for name in _STORED_FIELDS
        if name != "received"
    ]
    # Ages are of the moment of the request.
    ages = "#- '{dob,age}' #- '{registered,age}'"
    compared.append(
        f"CASE WHEN stored.received {ages} IS DISTINCT FROM incoming.received {ages} THEN 'received' END"
    )
    cursor.execute(
        f"""
        SELECT user_id::text, fields, count(*) OVER () FROM (
            SELECT user_id, array_remove(ARRAY[{", ".join(compared)}], NULL) AS fields
            FROM incoming JOIN millrace.users AS stored USING (user_id)
        ) AS differences
        WHERE fields <> '{{}}' ORDER BY user_id LIMIT {_NAMED_DIFFERENCES}
        """  # noqa: S608 - the columns are names of this module
    )
    rows = cursor.fetchall()
    if rows:
        named = "; ".join(f"{user_id}: {', '.join(fields)}" for user_id, fields, _ in rows)
        raise ReplayDiffersError(
            f"{rows[0][2]} users of the batch differ from what is stored under the same seed, so the source no longer "
            f"gives what it gave. Nothing was changed. First differences: {named}"
        )


def _number(cursor: PostgresqlCursor) -> int:
    row = cursor.fetchone()
    if row is None:
        raise RuntimeError("a count gave no row")
    return int(row[0])
