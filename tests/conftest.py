"""Real parts for tests: PostgreSQL as a cluster of its own, and the offline source on loopback.

Tests of every kind load this, in environments of their own: what a fixture needs, it imports itself.
"""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from psycopg2.extensions import connection as PostgresqlConnection

    from millrace import connections, offline_source
    from millrace.source import Patience

ROLES = ("ingest", "relay", "audit")
CONTROL_TOKEN = "token-of-the-tests"  # noqa: S105 - of a server that lives as long as these tests


def _postgresql_binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        pytest.fail(
            "these tests run against a real PostgreSQL, and initdb is missing: apt install postgresql"
        )
    return Path(on_path).resolve().parent


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[connections.PostgreSQL]:
    """A cluster of its own on a unix socket, with the clients' roles and a migrated database; as its owner."""
    from millrace import connections

    binaries = _postgresql_binaries()
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else getpass.getuser()
    # Anybody may go there, and a socket's path is short: neither need be so where a person keeps temporary files.
    folder = Path(tempfile.mkdtemp(prefix="millrace-postgresql-", dir="/tmp"))
    if os.geteuid() == 0:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)

    def run(*command: str | Path) -> None:
        result = subprocess.run(command, check=False, user=user, cwd=folder, text=True, capture_output=True)
        if result.returncode:
            log = folder / "log"
            pytest.fail(
                f"{command[0]}: {result.stdout}{result.stderr}{log.read_text() if log.exists() else ''}"
            )

    data = folder / "data"
    try:
        run(
            binaries / "initdb",
            "-D",
            data,
            "-A",
            "trust",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--no-locale",
            "-N",
        )
        # A port names the socket alone: nothing listens on TCP. Durability is not what is tested here.
        settings = f"-c listen_addresses= -c unix_socket_directories={folder} -c fsync=off -c max_connections=50 {_log_settings()}"
        run(binaries / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o", settings, "start")
        try:
            owner = connections.PostgreSQL(
                host=str(folder), dbname="millrace", user="millrace", password=None
            )
            _prepare(folder, owner)
            yield owner
        finally:
            run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _log_settings() -> str:
    """What the platform's server writes of an error: some tests look for values of people in its log."""
    import yaml

    role = Path(__file__).resolve().parents[1] / "roles" / "postgresql"
    deployed = yaml.safe_load((role / "vars" / "main.yml").read_text())["__postgresql_settings"]
    names = ("log_error_verbosity", "log_min_error_statement", "log_parameter_max_length_on_error")
    return " ".join(f"-c {name}={deployed[name]}" for name in names)


def _prepare(folder: Path, owner: connections.PostgreSQL) -> None:
    from millrace import connections, migrate

    admin = connections.postgresql_connect(
        connections.PostgreSQL(host=str(folder), dbname="postgres", user="postgres"), application_name="tests"
    )
    admin.autocommit = True
    with admin.cursor() as cursor:
        for role in ("millrace", *ROLES):
            cursor.execute(f"CREATE ROLE {role} LOGIN")
        cursor.execute("CREATE DATABASE millrace OWNER millrace")
    admin.close()
    connection = connections.postgresql_connect(owner, application_name="tests")
    migrate.migrate_postgresql(connection)
    connection.close()


Connect = Callable[[str], "PostgresqlConnection"]


@pytest.fixture
def connect(as_role: Callable[[str], connections.PostgreSQL]) -> Iterator[Connect]:
    """Open a session as one of the roles, on empty tables."""
    from millrace import connections

    opened: list[PostgresqlConnection] = []

    def open_as(role: str) -> PostgresqlConnection:
        connection = connections.postgresql_connect(as_role(role), application_name="tests")
        opened.append(connection)
        return connection

    with open_as("millrace") as owner, owner.cursor() as cursor:
        cursor.execute(
            "TRUNCATE millrace.users, millrace.users_outbox, millrace.users_quarantine, millrace.audits"
        )
    yield open_as
    for connection in opened:
        connection.close()


@pytest.fixture(scope="session")
def as_role(postgresql_server: connections.PostgreSQL) -> Callable[[str], connections.PostgreSQL]:
    """The connection of one of the roles."""

    def connection_of(role: str) -> connections.PostgreSQL:
        return replace(postgresql_server, user=role)

    return connection_of


@pytest.fixture
def control_token() -> str:
    return CONTROL_TOKEN


@pytest.fixture(scope="session")
def _source_server() -> Iterator[offline_source.Server]:
    from millrace import offline_source

    server = offline_source.Server("127.0.0.1", 0, control_token=CONTROL_TOKEN, rate_limit=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def source_server(_source_server: offline_source.Server) -> Iterator[offline_source.Server]:
    """The offline source, behaving."""
    yield _source_server
    _source_server.fault.set(None)


@pytest.fixture
def source_url(source_server: offline_source.Server) -> str:
    return f"http://127.0.0.1:{source_server.server_port}/api/1.4/"


@pytest.fixture
def impatient() -> Patience:
    """Short enough for a test, long enough for a slow machine to answer within it."""
    from millrace.source import Patience

    return Patience(deadline=1.5, connect_timeout=1.0, answer_timeout=0.5, first_wait=0.05, longest_wait=0.2)
