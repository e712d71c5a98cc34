"""Migrations: order, checksums, and what a run does twice."""

from pathlib import Path

import psycopg2
import pytest

from millrace import migrate
from millrace.schemas import event_fields
from millrace.users import User


def migration(version: int, text: str = "SELECT 1") -> migrate.Migration:
    return migrate.Migration(version, f"{version:03d}_x.sql", text)


def applied(*migrations: migrate.Migration) -> dict[int, tuple[str, str]]:
    return {item.version: (item.name, item.checksum) for item in migrations}


def test_what_is_not_applied_yet_is_pending_in_order() -> None:
    first, second, third = (migration(number) for number in (1, 2, 3))
    assert migrate.pending([first, second, third], applied(first)) == [second, third]


def test_an_edited_migration_is_refused() -> None:
    with pytest.raises(migrate.MigrationError, match=r"001_x\.sql was changed"):
        migrate.pending([migration(1, "SELECT 2")], applied(migration(1)))


def test_a_database_ahead_of_the_package_is_refused() -> None:
    with pytest.raises(migrate.MigrationError, match="database is ahead"):
        migrate.pending([], applied(migration(1)))


def test_a_migration_that_was_overtaken_is_refused() -> None:
    with pytest.raises(migrate.MigrationError, match="higher number"):
        migrate.pending([migration(1), migration(2)], applied(migration(2)))


def test_names_and_numbers_are_checked(tmp_path: Path) -> None:
    (tmp_path / "001_a.sql").write_text("SELECT 1")
    (tmp_path / "001_b.sql").write_text("SELECT 1")
    with pytest.raises(migrate.MigrationError, match="same number"):
        migrate.read(tmp_path, ".sql")
    (tmp_path / "001_b.sql").rename(tmp_path / "2-b.sql")
    with pytest.raises(migrate.MigrationError, match="NNN_what_it_does"):
        migrate.read(tmp_path, ".sql")


def test_running_again_applies_nothing(connect) -> None:
    assert migrate.migrate_postgresql(connect("millrace")) == []


def test_a_failing_migration_leaves_nothing(connect, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = migrate.read(migrate._folder("postgresql"), ".sql")
    for item in [*real, migration(900, "CREATE TABLE millrace.half (); SELECT nonsense")]:
        (tmp_path / item.name).write_text(item.text)
    monkeypatch.setattr(migrate, "_folder", lambda name: tmp_path)
    owner = connect("millrace")
    with pytest.raises(migrate.MigrationError, match=r"900_x\.sql failed and was rolled back: .*nonsense"):
        migrate.migrate_postgresql(owner)
    with owner, owner.cursor() as cursor:
        cursor.execute("SELECT to_regclass('millrace.half'), max(version) FROM millrace.schema_migrations")
        assert cursor.fetchone() == (None, real[-1].version)


def test_the_table_has_the_events_fields_in_their_order(connect) -> None:
    with connect("millrace") as owner, owner.cursor() as cursor:
        cursor.execute(
            "SELECT column_name, is_nullable FROM information_schema.columns "
            "WHERE table_schema = 'millrace' AND table_name = 'users' ORDER BY ordinal_position"
        )
        columns = cursor.fetchall()
    names = tuple(name for name, _ in columns)
    assert names[: len(event_fields())] == event_fields()
    assert [name for name, nullable in columns if nullable == "YES"] == ["id_value"]
    assert User._fields == tuple(name for name in names if name != "created_at")


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("ingest", "UPDATE millrace.users SET city = ''"),
        ("ingest", "DELETE FROM millrace.users"),
        ("ingest", "DELETE FROM millrace.users_outbox"),
        (
            "relay",
            "INSERT INTO millrace.users_outbox (user_id, batch_id) SELECT user_id, batch_id FROM millrace.users",
        ),
        ("relay", "DELETE FROM millrace.users"),
        ("relay", "SELECT millrace.delete_users(now())"),
        ("audit", "DELETE FROM millrace.users_quarantine"),
        ("audit", "SELECT * FROM millrace.users_outbox FOR UPDATE"),
    ],
)
def test_no_role_may_do_more_than_it_needs(connect, role: str, statement: str) -> None:
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        connect(role).cursor().execute(statement)


def test_cql_is_split_and_filled() -> None:
    text = """-- a comment; with a semicolon
CREATE KEYSPACE {keyspace} WITH replication =
    {'class': 'NetworkTopologyStrategy', '{datacenter}': {replication_factor}};
GRANT SELECT ON KEYSPACE {keyspace} TO audit;
"""
    parameters = {"keyspace": "k", "datacenter": "dc1", "replication_factor": "3"}
    assert migrate.cql_statements(text, parameters) == [
        "CREATE KEYSPACE k WITH replication =\n    {'class': 'NetworkTopologyStrategy', 'dc1': 3}",
        "GRANT SELECT ON KEYSPACE k TO audit",
    ]
    with pytest.raises(migrate.MigrationError, match=r"unknown parameter \{keyspce\}"):
        migrate.cql_statements("USE {keyspce};", parameters)
