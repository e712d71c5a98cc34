"""Ordered, recorded schema migrations for PostgreSQL and Cassandra.

A migration is a file NNN_name.sql or NNN_name.cql. What was applied is recorded with the file's SHA-256; an
applied migration that was edited, removed or overtaken is refused, because no database could tell which of its
versions it has: a change is a new file.
"""

from __future__ import annotations

import hashlib
import logging
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from millrace.errors import MillraceError

if TYPE_CHECKING:
    from cassandra.cluster import Session
    from psycopg2.extensions import connection as PostgresqlConnection

log = logging.getLogger(__name__)

FILE_NAME: Final = re.compile(r"(?P<version>\d{3})_[a-z0-9_]+\.(sql|cql)")
# Any number that no other use of advisory locks in the database has.
POSTGRESQL_LOCK: Final = 6_221_103
CASSANDRA_LOCK_SECONDS: Final = 600
CASSANDRA_LOCK_WAIT: Final = 120.0


class MigrationError(MillraceError):
    """The migrations and what the database has do not fit together, or one of them failed."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    version: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """The SHA-256 of the file's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read(folder: Traversable, suffix: str) -> list[Migration]:
    """Return the migrations of a folder in order; raise MigrationError on a stray name or a version used twice."""
    migrations: dict[int, Migration] = {}
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if not entry.name.endswith(suffix):
            continue
        match = FILE_NAME.fullmatch(entry.name)
        if match is None:
            raise MigrationError(f"{entry.name}: a migration's name is NNN_what_it_does{suffix}")
        version = int(match["version"])
        if version in migrations:
            raise MigrationError(f"{entry.name} and {migrations[version].name} have the same number")
        migrations[version] = Migration(version, entry.name, entry.read_text(encoding="utf-8"))
    return list(migrations.values())


def pending(migrations: list[Migration], applied: Mapping[int, tuple[str, str]]) -> list[Migration]:
    """Return the migrations to apply, given what was applied: version -> (name, checksum).

    Raises MigrationError when an applied one was edited or is missing here, or when a new one has a lower number
    than an applied one.
    """
    by_version = {migration.version: migration for migration in migrations}
    for version, (name, checksum) in sorted(applied.items()):
        known = by_version.get(version)
        if known is None:
            raise MigrationError(
                f"the database has migration {name}, which this version of the package does not know: install the "
                "newer package, the database is ahead"
            )
        if (known.name, known.checksum) != (name, checksum):
            raise MigrationError(
                f"migration {known.name} was changed after it had been applied (as {name}): restore it, and put "
                "the change into a new migration"
            )
    newest = max(applied, default=0)
    todo = [migration for migration in migrations if migration.version not in applied]
    if late := [migration.name for migration in todo if migration.version < newest]:
        raise MigrationError(
            f"{', '.join(late)}: numbered before {newest:03d}, which is applied; give a higher number"
        )
    return todo


def migrate_postgresql(connection: PostgresqlConnection) -> list[str]:
    """Bring PostgreSQL's schema `millrace` up to date; return the names of the applied migrations.

    Each is one transaction. Run as the schema's owner. Two runs at once wait for each other.
    """
    import psycopg2

    applied_now = []
    try:
        with connection, connection.cursor() as cursor:
            # For the session, so that it spans the migrations' transactions.
            cursor.execute("SELECT pg_advisory_lock(%s)", (POSTGRESQL_LOCK,))
            # Asked first: CREATE SCHEMA IF NOT EXISTS needs the right to create one even when it is there.
            cursor.execute("SELECT to_regclass('millrace.schema_migrations')")
            if cursor.fetchone() == (None,):
                cursor.execute("CREATE SCHEMA IF NOT EXISTS millrace")
                cursor.execute(
                    "CREATE TABLE millrace.schema_migrations (version integer PRIMARY KEY, name text NOT NULL, "
                    "checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
                )
            cursor.execute("SELECT version, name, checksum FROM millrace.schema_migrations")
            applied = {version: (name, checksum) for version, name, checksum in cursor.fetchall()}
        for migration in pending(postgresql_migrations(), applied):
            try:
                with connection, connection.cursor() as cursor:
                    cursor.execute(migration.text)
                    cursor.execute(
                        "INSERT INTO millrace.schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
                        (migration.version, migration.name, migration.checksum),
                    )
            except psycopg2.Error as error:
                raise MigrationError(
                    f"{migration.name} failed and was rolled back: {str(error).strip()}"
                ) from error
            log.info("applied %s", migration.name)
            applied_now.append(migration.name)
    finally:
        if not connection.closed:
            connection.rollback()
            with connection, connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock_all()")
    return applied_now


def postgresql_migrations() -> list[Migration]:
    """Return this version's migrations of PostgreSQL in order."""
    return read(_folder("postgresql"), ".sql")


def migrate_cassandra(
    session: Session, *, keyspace: str, datacenter: str, replication_factor: int
) -> list[str]:
    """Bring the keyspace up to date, which is made if it is not there; return what was done, empty if nothing.

    A file's statements run in the keyspace. In it, `{keyspace}`, `{datacenter}` and `{replication_factor}` are replaced; statements end in a semicolon
    at a line's end. CQL has no transactions: every statement must be one that may run again (IF NOT EXISTS), because
    a file that failed half way is run again from its beginning. A keyspace of another replication factor is altered;
    `nodetool repair` is then the operator's next step.
    """
    done = _ensure_keyspace(session, keyspace, datacenter, replication_factor)
    session.set_keyspace(keyspace)
    ledger = f"{keyspace}.schema_migrations"
    _execute(
        session,
        f"CREATE TABLE IF NOT EXISTS {ledger} (scope text, version int, name text, checksum text, "
        "applied_at timestamp, PRIMARY KEY (scope, version))",
    )
    _execute(
        session,
        f"CREATE TABLE IF NOT EXISTS {keyspace}.schema_migrations_lock (scope text PRIMARY KEY, owner text, "
        "taken_at timestamp)",
    )
    parameters = {
        "keyspace": keyspace,
        "datacenter": datacenter,
        "replication_factor": str(replication_factor),
    }
    with _cassandra_lock(session, keyspace):
        rows = session.execute(f"SELECT version, name, checksum FROM {ledger} WHERE scope = 'millrace'")  # noqa: S608
        applied = {row.version: (row.name, row.checksum) for row in rows}
        for migration in pending(read(_folder("cassandra"), ".cql"), applied):
            for statement in cql_statements(migration.text, parameters):
                try:
                    _execute(session, statement)
                except MigrationError as error:
                    raise MigrationError(
                        f"{migration.name} stopped half way; run it again once {error}"
                    ) from error
            session.execute(
                f"INSERT INTO {ledger} (scope, version, name, checksum, applied_at) "  # noqa: S608
                "VALUES ('millrace', %s, %s, %s, toTimestamp(now()))",
                (migration.version, migration.name, migration.checksum),
            )
            log.info("applied %s", migration.name)
            done.append(migration.name)
    return done


def cql_statements(text: str, parameters: Mapping[str, str]) -> list[str]:
    """Split a migration into statements, with its parameters filled in and its comments gone.

    Raises MigrationError on a parameter that is not known.
    """
    lines = [line for line in text.splitlines() if not line.lstrip().startswith(("--", "//"))]

    def fill(match: re.Match[str]) -> str:
        try:
            return parameters[match[1]]
        except KeyError:
            raise MigrationError(
                f"unknown parameter {{{match[1]}}}; there are {', '.join(parameters)}"
            ) from None

    # A map literal begins with a quote or a space, never with a name alone in braces.
    filled = re.sub(r"\{([a-z_]+)\}", fill, "\n".join(lines))
    return [part.strip() for part in re.split(r";[ \t]*(?:\n|$)", filled) if part.strip()]


def _folder(name: str) -> Traversable:
    return files("millrace").joinpath("migrations", name)


def _ensure_keyspace(session: Session, keyspace: str, datacenter: str, replication_factor: int) -> list[str]:
    rows = session.execute(
        "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = %s", (keyspace,)
    )
    current: Any = rows.one()
    replication = f"{{'class': 'NetworkTopologyStrategy', '{datacenter}': {replication_factor}}}"
    if current is None:
        _execute(session, f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}")
        return [f"keyspace {keyspace} with replication factor {replication_factor}"]
    if current.replication.get(datacenter) == str(replication_factor):
        return []
    _execute(session, f"ALTER KEYSPACE {keyspace} WITH replication = {replication}")
    return [
        f"replication factor of {keyspace}: {replication_factor} (run `nodetool repair {keyspace}` on every node)"
    ]


def _execute(session: Session, statement: str) -> None:
    """Execute a schema statement; raise MigrationError if it fails or the nodes do not agree on it in time."""
    from cassandra import DriverException

    try:
        # Schema changes of several nodes may cross; the driver waits for agreement and says if there is none.
        result = session.execute_async(statement, timeout=60)
        result.result()
    except DriverException as error:
        raise MigrationError(f"{statement.splitlines()[0]} ...: {error}") from error
    if not result.is_schema_agreed:
        raise MigrationError(
            f"{statement.splitlines()[0]} ...: the nodes do not agree on the schema; are all up?"
        )


@contextmanager
def _cassandra_lock(session: Session, keyspace: str) -> Iterator[None]:
    """Keep other runs out; a lock whose owner died ends by itself."""
    table = f"{keyspace}.schema_migrations_lock"
    owner = f"{socket.gethostname()}/{uuid4()}"
    give_up = time.monotonic() + CASSANDRA_LOCK_WAIT
    while True:
        taken = session.execute(
            f"INSERT INTO {table} (scope, owner, taken_at) VALUES ('millrace', %s, toTimestamp(now())) "  # noqa: S608
            f"IF NOT EXISTS USING TTL {CASSANDRA_LOCK_SECONDS}",
            (owner,),
        )
        if taken.was_applied:
            break
        if time.monotonic() > give_up:
            raise MigrationError(
                f"another run migrates {keyspace} (lock of {taken.one().owner}); a lock whose run died ends after "
                f"{CASSANDRA_LOCK_SECONDS} s"
            )
        time.sleep(2)
    try:
        yield
    finally:
        session.execute(f"DELETE FROM {table} WHERE scope = 'millrace' IF owner = %s", (owner,))  # noqa: S608
