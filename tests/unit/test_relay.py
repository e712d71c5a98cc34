"""The relay against a real PostgreSQL.

Kafka is a stand-in here, because what is tested is what a producer may do to the relay; the relay with real brokers,
killed under load, is a test of the platform.
"""

import os
import select
import signal
import socket
import threading
import time
from pathlib import Path

import psycopg2
import pytest
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from millrace import connections, encoding, relay, source, store
from millrace.registry import RegistryUnavailableError
from millrace.schemas import event_fields, users_created

SEED = "relay-test-"


class Future:
    def __init__(self, exception: Exception | None = None) -> None:
        self.exception = exception

    def succeeded(self) -> bool:
        return self.exception is None


class Producer:
    """Takes events as a producer does, and fails as it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[bytes, bytes, int]] = []
        self.headers: list[list | None] = []
        self.refuse: Exception | None = None
        self.acknowledge = threading.Event()
        self.acknowledge.set()
        self.closed = False

    def partitions_for(self, topic: str) -> set[int]:
        assert topic == "users_created"
        return {0, 1, 2, 3, 4, 5}

    def send(self, topic: str, *, key: bytes, value: bytes, headers: list | None, partition: int) -> Future:
        self.headers.append(headers)
        if len(value) > 1_000_000:
            raise MessageSizeTooLargeError("too large")
        self.events.append((key, value, partition))
        return Future(self.refuse)

    def flush(self, timeout: float) -> None:
        if not self.acknowledge.wait(timeout=0.5):
            raise KafkaTimeoutError("not all acknowledged")

    def close(self, timeout: float) -> None:
        self.closed = True


@pytest.fixture
def made(as_role, monkeypatch: pytest.MonkeyPatch):
    """Make a relay, and the producer that it will get."""
    producers = [Producer()]
    monkeypatch.setattr(relay.Relay, "_encoder", lambda self: encoding.encoder(users_created(), 9))
    monkeypatch.setattr(relay.Relay, "_connect_kafka", lambda self: producers[-1])
    monkeypatch.setattr(relay, "FIRST_BACKOFF", 0.02)
    relays = []

    def make(batch_size: int = 100) -> relay.Relay:
        server = as_role("relay")
        sections = {
            "kafka": {"bootstrap_servers": ["127.0.0.1:1"], "security_protocol": "PLAINTEXT"},
            "registry": {"url": "http://127.0.0.1:1"},
            "postgresql": {"host": server.host, "dbname": server.dbname, "user": server.user},
        }
        relays.append(relay.Relay(connections.Connections(sections, "test"), batch_size=batch_size))
        return relays[-1]

    yield make, producers
    for item in relays:
        item._disconnect()


@pytest.fixture
def users(connect, source_url):
    batch = source.fetch(source_url, "randomuser", SEED, 250).users
    store.store(connect("ingest"), batch)
    return batch


def count(connect, table: str) -> int:
    with connect("audit") as session, session.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM millrace.{table}")  # noqa: S608
        return cursor.fetchone()[0]


def eventually(condition, seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def test_events_hold_what_was_stored(connect, made, users) -> None:
    make, producers = made
    instance = make()
    assert [instance.publish_batch() for _ in range(4)] == [100, 100, 50, 0]
    assert count(connect, "users_outbox") == 0
    sent = {key.decode(): (value, partition) for key, value, partition in producers[0].events}
    for user in users:
        value, partition = sent.pop(str(user.user_id))
        schema_id, body = encoding.split(value)
        event = encoding.decode(body, users_created(), users_created())
        assert schema_id == 9
        assert partition == encoding.partition(str(user.user_id).encode(), 6)
        for name in event_fields():
            if name == "created_at":
                assert abs(time.time() - event[name].timestamp()) < 60
            else:
                assert event[name] == getattr(user, name), name
    assert not sent


def test_an_event_that_is_refused_keeps_the_whole_batch(connect, made, users) -> None:
    make, producers = made
    producers[0].refuse = KafkaTimeoutError("expired")
    instance = make()
    with pytest.raises(relay.NotAcknowledgedError, match=r"100 of 100 events: KafkaTimeoutError: .*expired"):
        instance.publish_batch()
    assert count(connect, "users_outbox") == 250
    instance._disconnect()
    assert producers[0].closed, "an idempotent producer is of no use after a failed send"


def test_a_missing_acknowledgement_keeps_the_whole_batch(connect, made, users) -> None:
    make, producers = made
    producers[0].acknowledge.clear()
    with pytest.raises(relay.NotAcknowledgedError, match="did not acknowledge"):
        make().publish_batch()
    assert count(connect, "users_outbox") == 250


def test_a_row_that_can_not_be_an_event_goes_to_quarantine_and_the_others_go_on(connect, made, users) -> None:
    make, producers = made
    with connect("millrace") as owner, owner.cursor() as cursor:
        cursor.execute("DELETE FROM millrace.users WHERE position = 0")
        cursor.execute("UPDATE millrace.users SET city = repeat('x', 2000000) WHERE position = 1")
    assert make(batch_size=1000).publish_batch() == 250
    assert len(producers[0].events) == 248
    assert count(connect, "users_outbox") == 0
    refused = store.quarantined(connect("ingest"), str(users[0].batch_id))
    assert "gone" in refused[str(users[0].user_id)]
    assert "too large" in refused[str(users[1].user_id)]
    assert len(refused) == 2


def test_an_event_that_is_sent_again_on_purpose_says_so(connect, made, users) -> None:
    make, producers = made
    instance = make(batch_size=1000)
    instance.publish_batch()
    store.republish(connect("ingest"), str(users[0].batch_id), [str(users[3].user_id)])
    instance.publish_batch()
    assert producers[0].headers == [None] * 250 + [[("republished", b"1")]]


def test_two_relays_share_the_outbox(connect, made, users) -> None:
    make, producers = made
    first, second = make(), make()
    producers[0].acknowledge.clear()
    errors: list[Exception] = []

    def publish() -> None:
        try:
            first.publish_batch()
        except relay.NotAcknowledgedError as error:
            errors.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    eventually(lambda: len(producers[0].events) == 100)
    producers.append(Producer())
    assert second.publish_batch() == 100, "the rows that the first one holds are skipped"
    thread.join()
    assert errors
    ids = {key for key, _, _ in producers[0].events} & {key for key, _, _ in producers[1].events}
    assert not ids
    assert count(connect, "users_outbox") == 150


def test_a_hanging_transaction_is_cut_off_by_the_server(made, connect, users) -> None:
    make, _ = made
    session = make()._connect_postgresql()
    with session.cursor() as cursor:
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("25s",)
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("10s",)
    session.close()


def test_it_outlives_an_outage_and_is_woken_by_a_store(connect, made, source_url, monkeypatch) -> None:
    make, producers = made
    monkeypatch.setattr(relay, "IDLE_POLL", 30.0)
    working = relay.Relay._encoder
    failures = 3

    def encoder(self):
        nonlocal failures
        if failures:
            failures -= 1
            raise RegistryUnavailableError("the registry is down")
        return working(self)

    monkeypatch.setattr(relay.Relay, "_encoder", encoder)
    instance = make()
    thread = threading.Thread(target=instance.run)
    thread.start()
    try:
        eventually(lambda: failures == 0 and instance._session is not None)
        batch = source.fetch(source_url, "randomuser", SEED, 30).users
        began = time.monotonic()
        store.store(connect("ingest"), batch)
        eventually(lambda: len(producers[-1].events) == 30)
        assert time.monotonic() - began < 3, "NOTIFY wakes it, not the poll"
        # The server cuts its session off; the next store is published all the same.
        admin = connect("postgres")
        admin.autocommit = True
        admin.cursor().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'relay'"
        )
        store.republish(connect("ingest"), str(batch[0].batch_id))
        eventually(lambda: len(producers[-1].events) == 60)
    finally:
        instance.stop()
        thread.join(timeout=10)
    assert not thread.is_alive()
    assert count(connect, "users_outbox") == 0


def test_systemd_is_told(made, tmp_path: Path, monkeypatch) -> None:
    make, _ = made
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        instance = make()
        thread = threading.Thread(target=instance.run)
        thread.start()
        instance.stop()
        thread.join(timeout=10)
        messages = b""
        while select.select([listener], [], [], 0)[0]:
            messages += listener.recv(4096) + b"\n"
    assert messages.startswith(b"READY=1")
    assert b"STOPPING=1" in messages


def test_sigterm_ends_it_at_once(made, monkeypatch) -> None:
    make, _ = made
    instance = make()
    monkeypatch.setattr(relay, "Relay", lambda connections, batch_size: instance)
    monkeypatch.setattr(relay, "IDLE_POLL", 30.0)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    began = time.monotonic()
    try:
        relay.serve(connections.Connections({}, "test"), batch_size=100)
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)
    assert time.monotonic() - began < 5


def test_a_missing_section_is_told_before_anything_starts() -> None:
    with pytest.raises(connections.ConnectionsError, match="section `kafka`"):
        relay.Relay(connections.Connections({"postgresql": {}}, "relay.json"), batch_size=100)


def test_a_bug_is_no_outage(made, connect, users, monkeypatch) -> None:
    make, _ = made
    monkeypatch.setattr(relay, "_TAKE", "SELECT nonsense, %s")
    with pytest.raises(psycopg2.errors.UndefinedColumn):
        make().run()
