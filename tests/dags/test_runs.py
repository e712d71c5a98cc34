"""Whole runs of the DAGs: the offline source and PostgreSQL are real.

What is beyond them is not here. Of Kafka, nothing is needed but that it may be away; a relay is played by a thread that
takes the outbox's rows; what can be read in Cassandra is a set of ids. On hosts, the platform's tests run the rest.
"""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from millrace import audit as audits
from millrace import flow, source, store, tables, topics
from millrace.airflow import waiting

DAGS = Path(__file__).resolve().parents[2] / "dags"
pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture(scope="module")
def bag() -> DagBag:
    return DagBag(dag_folder=DAGS)


@pytest.fixture
def readable(monkeypatch) -> set[str]:
    """The ids that can be read in Cassandra."""
    ids: set[str] = set()

    class NoSession:
        """Stands for a session; nothing is asked of it."""

        class cluster:
            @staticmethod
            def shutdown() -> None:
                """Do nothing."""

    monkeypatch.setattr(flow, "cassandra_session", lambda _: NoSession)
    monkeypatch.setattr(
        tables, "unreadable", lambda _, users: [user.user_id for user in users if user.user_id not in ids]
    )
    return ids


@pytest.fixture
def quick(monkeypatch, ingest_connections, connections_folder) -> None:
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(waiting, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(topics, "BOOTSTRAP_TIMEOUT_MS", 200)
    with_ring = {
        **ingest_connections,
        "cassandra": {"hosts": ["nowhere"], "local_dc": "dc1", "keyspace": "millrace"},
    }
    (connections_folder / "ingest.json").write_text(json.dumps(with_ring))


@pytest.fixture
def relay(connect, readable):
    """Publishes what is in the outbox, and lets it be read; until the test ends."""
    stop = threading.Event()
    owner = connect("millrace")

    def serve() -> None:
        while not stop.wait(0.1):
            with owner, owner.cursor() as cursor:
                cursor.execute("DELETE FROM millrace.users_outbox RETURNING user_id::text")
                readable.update(user_id for (user_id,) in cursor)

    thread = threading.Thread(target=serve)
    thread.start()
    yield
    stop.set()
    thread.join()


def run(bag: DagBag, dag_id: str, **conf: object):
    """Run a DAG; return its run and the state of each task."""
    found = bag.dags[dag_id].test(logical_date=None, run_conf=conf)
    return found, {task.task_id: task.state for task in found.get_task_instances()}


def count(connect) -> tuple[int, int]:
    """Users and outbox rows."""
    with connect("millrace") as owner, owner.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM millrace.users), (SELECT count(*) FROM millrace.users_outbox)"
        )
        return cursor.fetchone()


def test_a_batch_arrives(bag, quick, relay, connect, readable) -> None:
    found, states = run(bag, "users_ingest", seed=f"run-{uuid4()}-x", count=30)
    assert set(states.values()) == {"success"}
    assert count(connect) == (30, 0)
    assert len(readable) == 30
    with create_session() as session:
        values = session.scalars(select(XComModel.value).where(XComModel.run_id == found.run_id)).all()
    assert values, "tasks hand on the batch"
    assert all(len(json.dumps(value)) < 500 for value in values), "and nothing but ids and counts"


def test_an_ill_source_is_red_and_stores_nothing_until_it_is_well(
    bag, quick, relay, connect, source_server, capfd
) -> None:
    seed = f"run-{uuid4()}-x"
    source_server.fault.set("503")
    _, states = run(bag, "users_ingest", seed=seed, count=30, deadline=5)
    assert states == {
        "fetch_and_store": "failed",
        "wait_until_published": "upstream_failed",
        "wait_until_readable": "upstream_failed",
    }
    assert "HTTP 503" in capfd.readouterr().out
    assert count(connect) == (0, 0)
    source_server.fault.set(None)
    _, states = run(bag, "users_ingest", seed=seed, count=30, deadline=10)
    assert set(states.values()) == {"success"}


def test_a_batch_that_is_not_published_is_red_and_named(bag, quick, connect, capfd) -> None:
    _, states = run(bag, "users_ingest", seed=f"run-{uuid4()}-x", count=30, deadline=1)
    assert states["wait_until_published"] == "failed"
    assert "30 users are not published before the deadline. 30 last seen in outbox" in capfd.readouterr().out


def test_a_user_that_got_lost_is_red_and_a_rerun_brings_it(
    bag, quick, relay, connect, readable, caplog
) -> None:
    seed = f"run-{uuid4()}-x"
    _, states = run(bag, "users_ingest", seed=seed, count=30)
    assert set(states.values()) == {"success"}
    lost = readable.pop()
    found, _ = run(bag, "users_ingest", seed=seed, count=30)
    assert lost in readable
    with create_session() as session:
        stored = session.scalar(
            select(XComModel.value).where(
                XComModel.run_id == found.run_id, XComModel.task_id == "fetch_and_store"
            )
        )
    assert (stored["inserted"], stored["republished"]) == (0, 1)


@pytest.mark.parametrize("refused_by", ["the mapping", "PostgreSQL"])
def test_a_user_that_can_not_be_kept_is_red_and_nothing_of_it_is_told(
    bag, quick, connect, source_server, monkeypatch, capfd, refused_by: str
) -> None:
    people = source_server.people.page("1.4", "marked-", 1, 3, datetime.now(UTC))
    for person in people:
        person["name"]["first"] = person["email"] = "Zq7-marked"
    if refused_by == "the mapping":
        people[2]["location"]["country"] = ""
    monkeypatch.setattr(source_server.people, "page", lambda *_: people)
    with connect("millrace") as owner, owner.cursor() as cursor:
        cursor.execute("ALTER TABLE millrace.users ADD CONSTRAINT later CHECK (position < 2)")
    try:
        _, states = run(bag, "users_ingest", seed=f"run-{uuid4()}-x", count=3)
    finally:
        with connect("millrace") as owner, owner.cursor() as cursor:
            cursor.execute("ALTER TABLE millrace.users DROP CONSTRAINT later")
    assert states["fetch_and_store"] == "failed"
    told = "".join(capfd.readouterr())
    expected = (
        "`location.country` must be text and is empty" if refused_by == "the mapping" else "CheckViolation"
    )
    assert "page 1, position 2: " in told
    assert expected in told
    assert "Zq7" not in told
    assert count(connect) == (0, 0)


def test_a_conf_that_is_not_understood_is_red(bag, quick, connect, capfd) -> None:
    _, states = run(bag, "users_ingest", cuont=30)
    assert states["fetch_and_store"] == "failed"
    assert "unknown 'cuont'" in capfd.readouterr().out
    assert count(connect) == (0, 0)


def test_an_audit_hands_its_window_to_the_rollup(bag, connections_folder, monkeypatch, tmp_path) -> None:
    window = audits.Audit(
        datetime(2026, 1, 31, 9, tzinfo=UTC), datetime(2026, 1, 31, 10, tzinfo=UTC), users=7
    )
    asked = []
    monkeypatch.setattr(audits, "audit", lambda _, *bounds: asked.append(bounds) or window)
    (connections_folder / "audit.json").write_text("{}")
    _, states = run(bag, "users_audit", start="2026-01-31T09:00:00Z", end="2026-01-31T10:00:00Z")
    assert set(states.values()) == {"success"}
    assert asked == [(window.start, window.end)]
    with create_session() as session:
        (rollup,) = session.scalars(select(DagRun).where(DagRun.dag_id == "users_rollup"))
        assert rollup.conf == {"start": "2026-01-31T09:00:00+00:00", "end": "2026-01-31T10:00:00+00:00"}


def test_an_audit_without_a_closed_window_is_skipped(bag, connections_folder, monkeypatch) -> None:
    now = datetime.now(UTC)
    monkeypatch.setattr(audits, "audit", lambda _: audits.Audit(now, now))
    (connections_folder / "audit.json").write_text("{}")
    _, states = run(bag, "users_audit")
    assert states == {"audit": "skipped", "count_again": "skipped"}


def test_old_users_are_deleted_once_they_were_audited(
    bag, quick, as_role, connect, source_url, connections_folder
) -> None:
    server = as_role("audit")
    audit = {"host": server.host, "dbname": server.dbname, "user": server.user}
    (connections_folder / "audit.json").write_text(json.dumps({"postgresql": audit}))
    store.store(connect("ingest"), source.fetch(source_url, "randomuser", "retention-", 30).users)
    with connect("millrace") as owner, owner.cursor() as cursor:
        cursor.execute("DELETE FROM millrace.users_outbox")
        cursor.execute(
            "UPDATE millrace.users SET created_at = now() - interval '40 days' - interval '1 day' * (position / 10)"
        )
    run(bag, "users_retention")
    assert count(connect) == (30, 0), "none was audited"
    with connect("audit") as session, session.cursor() as cursor:
        cursor.execute(
            "INSERT INTO millrace.audits (window_start, window_end, users) "
            "VALUES (now() - interval '50 days', now() - interval '40 days 12 hours', 20)"
        )
    _, states = run(bag, "users_retention")
    assert set(states.values()) == {"success"}
    assert count(connect) == (10, 0)
