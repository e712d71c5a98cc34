"""The tasks' functions, as far as PostgreSQL and the source carry; with Kafka and Cassandra the platform tests them."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from millrace import flow, source, store
from millrace.checks import rows
from millrace.connections import Connections
from millrace.schemas import event_fields
from millrace.topics import Place, user_id

SEED = "flow-test-"


@pytest.fixture
def connections(as_role, source_url) -> Connections:
    server = as_role("ingest")
    return Connections(
        {
            "postgresql": {"host": server.host, "dbname": server.dbname, "user": server.user},
            "source": {"url": source_url, "name": "randomuser"},
            # Nothing listens: Kafka is away.
            "kafka": {"bootstrap_servers": ["127.0.0.1:1"], "security_protocol": "PLAINTEXT"},
        },
        "ingest.json",
    )


@pytest.fixture
def users(connect, source_url):
    users = source.fetch(source_url, "randomuser", SEED, 30).users
    store.store(connect("ingest"), users)
    return users


def test_a_runs_conf() -> None:
    assert flow.parse_conf("run", None) == flow.Conf(source.seed_for("run"), 500, 600.0)
    assert flow.parse_conf("run", {"seed": "mine-", "count": 7, "deadline": 9}) == flow.Conf("mine-", 7, 9.0)
    assert flow.parse_conf("run", dict.fromkeys(flow.CONF_KEYS)) == flow.parse_conf("run", {})


@pytest.mark.parametrize(
    ("conf", "reason"),
    [
        ({"sead": "x-"}, "unknown 'sead'"),
        ({"seed": 7}, "conf.seed must be text"),
        ({"count": "500"}, "conf.count must be an integer"),
        ({"count": True}, "conf.count must be an integer"),
        ({"count": 5.0}, "conf.count must be an integer"),
        ({"deadline": 0}, "conf.deadline must be seconds"),
        ({"deadline": "60"}, "conf.deadline must be seconds"),
        ({"deadline": float("nan")}, "conf.deadline must be seconds"),
    ],
)
def test_a_conf_that_is_not_understood_is_refused(conf: dict, reason: str) -> None:
    with pytest.raises(flow.ConfError, match=reason):
        flow.parse_conf("run", conf)


def test_more_than_the_source_gives_is_refused_at_once(connect, as_role) -> None:
    """Nothing listens where the source and the stores should be."""
    nowhere = {"source": {"url": "http://127.0.0.1:1/", "name": "randomuser", "rate_limit": 20_000}}
    with pytest.raises(source.BatchSizeError, match=r"100000: .* 20,000 users in 5 minutes"):
        flow.fetch_and_store(Connections(nowhere, "test"), "run", {"count": 100_000})
    assert flow.parse_conf("run", {"count": 100_000}, rate_limit=0).count == 100_000


def test_a_batch_is_stored_though_kafka_is_away(connect, connections, monkeypatch) -> None:
    monkeypatch.setattr(flow.topics, "BOOTSTRAP_TIMEOUT_MS", 200)
    stored = flow.fetch_and_store(connections, "run", {"count": 40})
    assert stored == {
        "batch_id": stored["batch_id"],
        "seed": source.seed_for("run"),
        "count": 40,
        "inserted": 40,
        "republished": 0,
        "dead_letters_from": None,
    }
    assert len(flow.published(connections, stored["batch_id"])) == 40
    assert len(json.dumps(stored)) < 300, "what is handed on is ids and counts"


@pytest.mark.parametrize("kind", ["429", "503", "html", "empty", "half", "hang"])
def test_an_ill_source_makes_the_run_red_and_leaves_postgresql_as_it_was(
    connect, connections, source_server, impatient, monkeypatch, kind: str
) -> None:
    monkeypatch.setattr(flow.topics, "BOOTSTRAP_TIMEOUT_MS", 200)
    source_server.fault.set(kind)
    with pytest.raises(source.SourceError):
        flow.fetch_and_store(connections, "run", {"count": 40}, patience=impatient)
    with connect("audit") as session, session.cursor() as cursor:
        cursor.execute(
            "SELECT (SELECT count(*) FROM millrace.users), (SELECT count(*) FROM millrace.users_outbox)"
        )
        assert cursor.fetchone() == (0, 0)
    source_server.fault.set(None)
    assert flow.fetch_and_store(connections, "run", {"count": 40})["inserted"] == 40


def test_retention_deletes_what_is_published_and_old(connect, connections, users) -> None:
    with connect("millrace") as owner, owner.cursor() as cursor:
        cursor.execute("DELETE FROM millrace.users_outbox")
        cursor.execute("UPDATE millrace.users SET created_at = now() - interval '8 days' WHERE position < 20")
    now = datetime.now(UTC)
    assert flow.delete_older(connections, now - timedelta(days=9)) == 0
    assert flow.delete_older(connections, now - timedelta(days=7)) == 20


def test_published_names_what_waits(connect, connections, users) -> None:
    batch = str(users[0].batch_id)
    assert sorted(flow.published(connections, batch)) == sorted(str(user.user_id) for user in users)
    with connect("millrace") as owner, owner.cursor() as cursor:
        cursor.execute("DELETE FROM millrace.users_outbox")
    assert flow.published(connections, batch) == []


def test_a_quarantined_user_fails_the_batch_at_once(connect, connections, users) -> None:
    batch = str(users[0].batch_id)
    with connect("relay") as relay, relay.cursor() as cursor:
        cursor.execute(
            "INSERT INTO millrace.users_quarantine (user_id, batch_id, error) VALUES (%s, %s, 'not to be encoded')",
            (str(users[4].user_id), batch),
        )
    with pytest.raises(flow.BatchFailedError, match=rf"1 users .*{users[4].user_id}: not to be encoded"):
        flow.published(connections, batch)


def test_a_deadline_names_every_station() -> None:
    error = flow.late(
        "b",
        "readable",
        {
            "u1": "topic, at t:0:1: not (wholly) in Cassandra",
            "u2": "outbox: not published by the relay",
            "u3": "topic, at t:0:2: x",
        },
    )
    assert "3 users are not readable" in str(error)
    assert "1 last seen in outbox: u2" in str(error)
    assert "2 last seen in topic: u1, u3" in str(error)
    many = flow.late("b", "readable", {f"u{number}": "outbox: x" for number in range(50)})
    assert "and 30 more" in str(many)


def test_places_are_written_as_they_are_read() -> None:
    place = Place("a:b", 3, 4)
    assert Place.parse(str(place)) == place
    with pytest.raises(ValueError, match="unpack"):
        Place.parse("nonsense")


@pytest.mark.parametrize("key", [None, b"", b"x", b"\xff", b"02c169b1-cf8b-43d5-9d30"])
def test_a_key_that_is_no_user_id(key: bytes | None) -> None:
    assert user_id(key) is None


def test_percentiles() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [rows.percentile(values, share) for share in (0.5, 0.95, 1.0)] == [50.0, 95.0, 100.0]
    assert [rows.percentile([7.0], share) for share in (0.5, 0.95, 1.0)] == [7.0] * 3


def test_the_comparison_sees_every_kind_of_difference(connect, users) -> None:
    stored = {event[0]: event for event in store.batch_events(connect("audit"), str(users[0].batch_id))}
    expected = {str(user.user_id): rows._expected(user, stored[str(user.user_id)]) for user in users}
    assert rows._compare(rows.Station("PostgreSQL"), expected, stored).differences == 0
    first, second, *_ = expected
    city = event_fields().index("city")
    damaged = dict(stored)
    damaged[first] = (*stored[first][:city], stored[first][city] + " ", *stored[first][city + 1 :])
    damaged["stranger"] = damaged.pop(second)
    station = rows._compare(rows.Station("somewhere"), expected, damaged)
    assert (station.missing, station.strangers) == ([second], ["stranger"])
    assert station.different == [f"{first}: city differs"]
    report = rows.Report("b", SEED, [station], [0.1, 0.2], 0.05, rows.traps(expected.values()))
    assert report.differences == 3
    assert report.lines()[-1] == "3 differences"
    assert any("p50 0.10 s" in line and "max 0.20 s" in line for line in report.lines())


def test_the_offline_source_gives_every_trap_in_one_batch(source_url) -> None:
    users = source.fetch(source_url, "randomuser", "traps-", 500).users
    assert all(rows.traps(rows._expected(user, None) for user in users).values())
