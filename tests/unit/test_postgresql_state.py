"""The Ansible module postgresql_state, against a real server."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import ansible.module_utils
import pytest

PLUGINS = Path(__file__).parents[2] / "ansible" / "plugins"
PASSWORD = "of-the-tests"  # noqa: S105 - of a server that lives as long as these tests
DATABASES = {"state_shop": {"owner": "state_owner"}}


def loaded(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def state() -> ModuleType:
    # Where Ansible puts it for the module.
    name = "ansible.module_utils.declared_state"
    sys.modules[name] = loaded(name, PLUGINS / "module_utils" / "declared_state.py")
    ansible.module_utils.declared_state = sys.modules[name]
    return loaded("postgresql_state", PLUGINS / "modules" / "postgresql_state.py")


@pytest.fixture
def cursor(state, postgresql_server) -> Iterator:
    with state.Server(postgresql_server.host, postgresql_server.port, dry=False).database() as cursor:
        yield cursor
        cursor.execute("DROP DATABASE IF EXISTS state_shop")
        for role in ("state_owner", "state_guest"):
            cursor.execute(f"DROP ROLE IF EXISTS {role}")


def apply(state, postgresql_server, cursor, *, guests: set[str], dry: bool = False) -> list[str]:
    """Do what the module does, and return what changed."""
    server = state.Server(postgresql_server.host, postgresql_server.port, dry=dry)
    state.roles(server, cursor, {"state_owner": PASSWORD, "state_guest": PASSWORD})
    state.databases(server, cursor, DATABASES)
    if not dry:
        state.connect_rights(server, cursor, "state_shop", guests)
        state.public_schema(server, "state_shop")
    return server.changes


def may(state, cursor, role: str, right: str) -> bool:
    return state.rows(cursor, "SELECT has_database_privilege(%s, 'state_shop', %s)", (role, right))[0][0]


def test_a_password_is_known_by_what_the_server_made_of_it(state, cursor) -> None:
    cursor.execute("CREATE ROLE state_owner LOGIN PASSWORD %s", (PASSWORD,))
    ((kept,),) = state.rows(cursor, "SELECT rolpassword FROM pg_authid WHERE rolname = 'state_owner'")
    assert kept.startswith("SCRAM-SHA-256$")
    assert state.fits(PASSWORD, kept)
    assert not state.fits(PASSWORD + "x", kept)
    assert not state.fits(PASSWORD, None)
    assert not state.fits(PASSWORD, "md5" + "0" * 32)


def test_the_second_time_changes_nothing(state, postgresql_server, cursor) -> None:
    assert apply(state, postgresql_server, cursor, guests={"state_guest"}, dry=True) == [
        "role state_owner: made",
        "role state_guest: made",
        "database state_shop: made",
    ]
    assert apply(state, postgresql_server, cursor, guests={"state_guest"}) != []
    assert apply(state, postgresql_server, cursor, guests={"state_guest"}) == []


def test_only_who_is_declared_may_connect(state, postgresql_server, cursor) -> None:
    apply(state, postgresql_server, cursor, guests=set())
    assert may(state, cursor, "state_owner", "CONNECT")
    assert not may(state, cursor, "state_guest", "CONNECT")
    assert not may(state, cursor, "relay", "CONNECT")

    apply(state, postgresql_server, cursor, guests={"state_guest"})
    assert may(state, cursor, "state_guest", "CONNECT")

    cursor.execute("GRANT TEMPORARY ON DATABASE state_shop TO state_guest")
    apply(state, postgresql_server, cursor, guests=set())
    assert not may(state, cursor, "state_guest", "CONNECT")
    assert may(state, cursor, "state_guest", "TEMPORARY"), "what a migration granted is the migration's"


def test_what_was_changed_by_hand_is_put_right(state, postgresql_server, cursor) -> None:
    apply(state, postgresql_server, cursor, guests=set())
    cursor.execute("ALTER ROLE state_guest CREATEDB PASSWORD 'other'")
    cursor.execute("ALTER DATABASE state_shop OWNER TO postgres")
    assert apply(state, postgresql_server, cursor, guests=set()) == [
        "role state_guest: set",
        "database state_shop: owner state_owner",
    ]
    ((kept, makes_databases),) = state.rows(
        cursor, "SELECT rolpassword, rolcreatedb FROM pg_authid WHERE rolname = 'state_guest'"
    )
    assert state.fits(PASSWORD, kept)
    assert not makes_databases
