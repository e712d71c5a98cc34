"""Sessions with PostgreSQL whose errors quote no row.

PostgreSQL tells with an error what it was about: the whole row that a constraint refuses, the key that is there already,
the line of a COPY, the value that is no number. Rows are people, and errors end on screens and in logs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import psycopg2
import psycopg2.extensions

from millrace import connections
from millrace.errors import MillraceError

_COPY_PLACE: Final = re.compile(r"COPY \w+, line (\d+)(?:, column (\w+))?")


class PostgreSQLError(MillraceError):
    """PostgreSQL did not do what it was asked for; the transaction was undone."""


class Cursor(psycopg2.extensions.cursor):  # type: ignore[misc]  # psycopg2 has no types
    """A cursor whose errors have the text that `said` gives."""

    def execute(self, *arguments: Any) -> None:
        """Execute a statement."""
        with _unquoted():
            super().execute(*arguments)

    def executemany(self, *arguments: Any) -> None:
        """Execute a statement for each of its arguments."""
        with _unquoted():
            super().executemany(*arguments)

    def copy_expert(self, *arguments: Any, **options: Any) -> None:
        """Execute a COPY."""
        with _unquoted():
            super().copy_expert(*arguments, **options)


@contextmanager
def postgresql_session(
    target: connections.PostgreSQL, *, application_name: str
) -> Iterator[psycopg2.extensions.connection]:
    """Open a session and close it at the end; whatever PostgreSQL refuses meanwhile is a PostgreSQLError."""
    with closing(connections.postgresql_connect(target, application_name=application_name)) as opened:
        try:
            yield opened
        except psycopg2.Error as error:
            # Ending the transaction of a session that was cut off fails as well, and says less.
            first = error.__context__ if isinstance(error.__context__, psycopg2.Error) else error
            raise PostgreSQLError(
                f"PostgreSQL at {target.host}:{target.port}, user {target.user}: {first}. Nothing of the transaction was kept"
            ) from None


def said(error: psycopg2.Error) -> str:
    """Return an error in one line: its kind, what the server says without the values, and the place within a COPY."""
    if error.diag.sqlstate is None:  # the client's own words, mostly that the server has gone
        return " ".join(str(error).split())
    text = type(error).__name__
    # What the server says of data that it can't read is the data.
    if not isinstance(error, psycopg2.DataError):
        text += f": {error.diag.message_primary}"
    line, column = copy_place(error)
    places = {
        "line": line,
        "column": column or error.diag.column_name,
        "constraint": error.diag.constraint_name,
    }
    named = [f"{kind} {name}" for kind, name in places.items() if name is not None]
    return f"{text} ({', '.join(named)})" if named else text


def copy_place(error: psycopg2.Error) -> tuple[int | None, str | None]:
    """Return the line (from 1) and the column at which a COPY ended; None for what the server does not say."""
    found = _COPY_PLACE.match(error.diag.context or "")
    return (int(found[1]), found[2]) if found else (None, None)


@contextmanager
def _unquoted() -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        error.args = (said(error),)
        raise
