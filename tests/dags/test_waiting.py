"""Waiting, on real rows of PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from types import SimpleNamespace

import pytest
from airflow.sdk.bases.operator import TriggerFailureReason
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.module_loading import import_string

from millrace import flow, source, store
from millrace.airflow import waiting
from millrace.connections import ConnectionsError

SEED = "waiting-test-"


@pytest.fixture
def batch(connect, ingest_connections, source_url, monkeypatch) -> waiting.Batch:
    """A stored batch whose users all wait in the outbox."""
    monkeypatch.setattr(waiting, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(waiting, "LONGEST_PAUSE", 0.2)
    users = source.fetch(source_url, "randomuser", SEED, 20).users
    store.store(connect("ingest"), users)
    return {
        "batch_id": str(users[0].batch_id),
        "seed": SEED,
        "count": len(users),
        "inserted": len(users),
        "republished": 0,
        "dead_letters_from": {"0": 0},
        "attempt": 1,
    }


def outcome(batch: waiting.Batch, seconds: float = 10) -> dict[str, str]:
    """What the trigger says, made again from what it is stored as."""
    name, arguments = waiting.BatchTrigger("published", batch, time.time() + seconds).serialize()
    trigger = import_string(name)(**json.loads(json.dumps(arguments)))

    async def first_event():
        return await anext(trigger.run())

    event = asyncio.run(first_event()).payload
    assert event.pop("batch") == batch
    return event


def publish(connect, after: float = 0.0) -> None:
    time.sleep(after)
    with connect("millrace") as owner, owner.cursor() as cursor:
        cursor.execute("DELETE FROM millrace.users_outbox")


def test_it_ends_once_every_user_is_there(connect, batch) -> None:
    relay = threading.Thread(target=publish, args=(connect, 0.5))
    relay.start()
    began = time.monotonic()
    assert outcome(batch) == {"outcome": "there"}
    assert time.monotonic() - began >= 0.5
    relay.join()


def test_it_ends_at_the_deadline(batch) -> None:
    began = time.monotonic()
    assert outcome(batch, 0.5) == {"outcome": "late"}
    assert 0.5 <= time.monotonic() - began < 3


def test_a_user_in_quarantine_ends_it_at_once(connect, batch) -> None:
    with connect("relay") as relay, relay.cursor() as cursor:
        cursor.execute("SELECT user_id FROM millrace.users WHERE position = 3")
        (user_id,) = cursor.fetchone()
        cursor.execute(
            "INSERT INTO millrace.users_quarantine (user_id, batch_id, error) VALUES (%s, %s, 'not to be encoded')",
            (user_id, batch["batch_id"]),
        )
    found = outcome(batch)
    assert found["outcome"] == "failed"
    assert f"{user_id}: not to be encoded" in found["error"]


def test_a_store_that_is_away_is_asked_again(connect, connections_folder, batch) -> None:
    publish(connect)
    file = connections_folder / "ingest.json"
    there = file.read_text()
    away = json.loads(there)
    away["postgresql"]["host"] = "/nowhere"
    file.write_text(json.dumps(away))
    with pytest.raises(ConnectionsError):
        waiting.missing("published", batch)
    assert outcome(batch, 0.5) == {"outcome": "late"}
    back = threading.Timer(0.5, file.write_text, [there])
    back.start()
    assert outcome(batch) == {"outcome": "there"}
    back.join()


@pytest.mark.parametrize(
    ("try_number", "max_tries", "sends_again"),
    [
        pytest.param(1, 2, False, id="first"),
        pytest.param(2, 2, False, id="taken for killed"),
        pytest.param(2, 3, True, id="cleared"),
        pytest.param(3, 3, False, id="cleared, then taken for killed"),
    ],
)
def test_a_wait_that_was_cleared_alone_sends_again(
    connect, batch, monkeypatch, try_number: int, max_tries: int, sends_again: bool
) -> None:
    publish(connect)
    again = {"republished": 20, "dead_letters_from": {"0": 7}}
    monkeypatch.setattr(flow, "send_again", lambda _connections, batch_id: {**again, "batch_id": batch_id})
    task = waiting.BatchWait(task_id="wait", station="published", batch=batch)
    ti = SimpleNamespace(try_number=try_number, max_tries=max_tries)
    found = task.execute({"dag_run": SimpleNamespace(run_id="run", conf={}), "ti": ti})
    assert found == (batch | again | {"attempt": try_number} if sends_again else batch)


def test_what_it_fails_with_is_final(batch) -> None:
    task = waiting.BatchWait(task_id="wait", station="published", batch=batch)
    with pytest.raises(AirflowFailException, match="20 users are not published before the deadline"):
        task.go_on({}, {"outcome": "late", "batch": batch})
    with pytest.raises(AirflowFailException, match="in quarantine"):
        task.go_on({}, {"outcome": "failed", "error": "1 users are in quarantine", "batch": batch})


def test_a_triggerer_that_does_not_answer_is_a_deadline(batch) -> None:
    task = waiting.BatchWait(task_id="wait", station="published", batch=batch)
    with pytest.raises(AirflowFailException, match="20 users are not published before the deadline"):
        task.resume_execution("__fail__", {"error": TriggerFailureReason.TRIGGER_TIMEOUT}, {})
