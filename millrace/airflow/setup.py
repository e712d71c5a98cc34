"""Airflow's database as its deployment wants it: this version's schema, and the administrator's account.

    python -m millrace.airflow.setup state   <password   print what differs, nothing if all is well
    python -m millrace.airflow.setup apply   <password   and mend it

Asked at every deployment, so it looks into the database itself: starting Airflow's own command line takes seconds.
The password comes by standard input, never as an argument.
"""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as PostgresqlCursor

ADMIN: Final = "admin"
# What the last migration reached: the environment that it was made with, and the revisions of the database then.
RECORD: Final = "migrated.json"
_VERSION_TABLES: Final = ("alembic_version", "alembic_version_fab")


def main(arguments: list[str]) -> int:
    """Run one of the two commands; return the exit code."""
    if arguments not in (["state"], ["apply"]):
        sys.stderr.write(__doc__ or "")
        return 2
    password = sys.stdin.read().rstrip("\n")
    wanted = differences(password)
    if arguments == ["apply"]:
        if "schema" in wanted:
            migrate()
        if "account" in wanted:
            set_password(password)
        if left := differences(password):
            sys.stderr.write(f"still differs: {', '.join(left)}\n")
            return 1
    sys.stdout.write("".join(f"{name}\n" for name in wanted))
    return 0


def differences(password: str) -> list[str]:
    """Return which of `schema` and `account` are not as wanted."""
    with _session() as cursor:
        found = []
        revisions = _revisions(cursor)
        if None in revisions.values() or _read_record() != _record_of(revisions):
            found.append("schema")
        if not _knows(cursor, password):
            found.append("account")
        return found


def migrate() -> None:
    """Bring the schema to what the installed Airflow needs, and record it."""
    subprocess.run([f"{sys.prefix}/bin/airflow", "db", "migrate"], check=True, stdout=sys.stderr)
    with _session() as cursor:
        _record().write_text(json.dumps(_record_of(_revisions(cursor))))


def set_password(password: str) -> None:
    """Make the administrator's account, or give it this password."""
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder
    from airflow.utils.providers_configuration_loader import providers_configuration_loaded

    @providers_configuration_loaded  # type: ignore[untyped-decorator]
    def apply() -> None:
        with get_application_builder() as builder:
            manager = builder.sm
            user = manager.find_user(username=ADMIN)
            if user:
                done = manager.reset_password(user.id, password)
            else:
                role = manager.find_role("Admin")
                done = manager.add_user(ADMIN, "Millrace", "Operator", f"{ADMIN}@localhost", role, password)
            if not done:
                raise RuntimeError(f"Airflow did not take the account {ADMIN}")

    apply()


def _knows(cursor: PostgresqlCursor, password: str) -> bool:
    """Whether the administrator's account has this password."""
    from werkzeug.security import check_password_hash

    cursor.execute("SELECT to_regclass('ab_user') IS NOT NULL")
    if cursor.fetchone() != (True,):
        return False
    cursor.execute("SELECT password FROM ab_user WHERE username = %s AND active", (ADMIN,))
    row = cursor.fetchone()
    return row is not None and check_password_hash(row[0], password)


def _revisions(cursor: PostgresqlCursor) -> dict[str, str | None]:
    """Return the revision that each of the schema's parts has; None where there is none."""
    found: dict[str, str | None] = {}
    for table in _VERSION_TABLES:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (table,))
        found[table] = None
        if cursor.fetchone() == (True,):
            cursor.execute(f"SELECT version_num FROM {table}")  # noqa: S608 - a name of this module
            row = cursor.fetchone()
            found[table] = row[0] if row else None
    return found


def _record() -> Path:
    return Path(os.environ["AIRFLOW_HOME"]) / RECORD


def _read_record() -> object:
    try:
        return json.loads(_record().read_text())
    except FileNotFoundError:
        return None


def _record_of(revisions: dict[str, str | None]) -> dict[str, object]:
    # An environment's folder is named for its lock.
    return {"environment": Path(sys.prefix).resolve().name, "revisions": revisions}


@contextmanager
def _session() -> Iterator[PostgresqlCursor]:
    """A session with Airflow's own database, as airflow.cfg names it."""
    import psycopg2

    configuration = configparser.ConfigParser()
    configuration.read_string(Path(os.environ["AIRFLOW_CONFIG"]).read_text())
    parts = urlsplit(configuration.get("database", "sql_alchemy_conn"))
    with (
        closing(
            psycopg2.connect(
                host=parts.hostname,
                port=parts.port,
                dbname=parts.path.lstrip("/"),
                user=parts.username,
                password=unquote(parts.password or ""),
                connect_timeout=10,
            )
        ) as session,
        session.cursor() as cursor,
    ):
        yield cursor


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
