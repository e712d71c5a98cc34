"""The relay: takes users out of PostgreSQL's outbox and publishes them to Kafka.

At least once: outbox rows are locked, sent, and only when every broker's acknowledgement is in they are deleted.
Whatever dies in between, the rows are still there. Several relays may run: each skips the rows that another has
locked. No outage ends it and none makes it drop a row: it says what it waits for and tries again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import psycopg2
from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from millrace import systemd
from millrace.connections import Connections, ConnectionsError, kafka_config, postgresql_connect
from millrace.encoding import encoder, partition, unfit_fields
from millrace.errors import MillraceError
from millrace.registry import RegistryClient, RegistryError, RegistryUnavailableError, SchemaNotFoundError
from millrace.schemas import (
    REPUBLISHED_HEADER,
    SUBJECT,
    TOPIC,
    event_fields,
    users_created,
    users_created_text,
)
from millrace.store import CHANNEL, event_columns

if TYPE_CHECKING:
    from psycopg2.extensions import connection as PostgresqlConnection
    from psycopg2.extensions import cursor as PostgresqlCursor

log = logging.getLogger(__name__)

# Rows that another relay gave back, or whose wake-up was lost, are found this often.
IDLE_POLL: Final = 5.0
FIRST_BACKOFF: Final = 0.5
LONGEST_BACKOFF: Final = 10.0
REPORT_INTERVAL: Final = 10.0

# No transaction lives longer than 30 s: at most 5 s to have the topic's partitions (before it begins), 15 s until a
# send succeeded or expired, 4 s more where its request is just on the way; a process that hangs is cut off by the
# server after 25 s. A broker that says nothing is left after 4 s: by the third time another one leads.
SESSION_SETTINGS: Final = {"statement_timeout": "10s", "idle_in_transaction_session_timeout": "25s"}
ACKS_TIMEOUT: Final = 20.0
PRODUCER_SETTINGS: Final = {
    "acks": "all",
    "enable_idempotence": True,
    "linger_ms": 20,
    "batch_size": 262_144,
    "delivery_timeout_ms": 15_000,
    "request_timeout_ms": 4_000,
    "max_block_ms": 5_000,
    "bootstrap_timeout_ms": 10_000,
    "reconnect_backoff_max_ms": 2_000,
    "allow_auto_create_topics": False,
    "client_id": "relay",
}

# What an outage looks like. Anything else is a bug: it ends the process, and systemd starts it anew.
OUTAGES: Final = (
    psycopg2.OperationalError,
    psycopg2.InterfaceError,
    ConnectionsError,
    KafkaError,
    RegistryError,
    RegistryUnavailableError,
)


class NotAcknowledgedError(KafkaError):  # type: ignore[misc]  # kafka-python has no types
    """Events were sent and not acknowledged in time."""


class Relay:
    """One relay. `run` publishes until `stop` is called."""

    def __init__(self, connections: Connections, *, topic: str = TOPIC, batch_size: int) -> None:
        """Take the sections that are needed; nothing is connected yet, but a missing section is told at once."""
        self._kafka = connections.kafka
        self._postgresql = connections.postgresql
        self._registry = connections.registry
        self._topic = topic
        self._batch_size = batch_size
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        self._session: PostgresqlConnection | None = None
        self._producer: Any = None
        self._encode: Callable[[dict[str, Any]], bytes] | None = None
        self._report = _Report()

    def stop(self, *_: int | FrameType | None) -> None:
        """End `run` after the batch in hand; may be used as a signal handler."""
        self._stopping = True
        os.write(self._wake_write, b"!")

    def run(self) -> None:
        """Publish until stopped."""
        backoff = FIRST_BACKOFF
        systemd.notify("READY=1", "STATUS=connecting")
        try:
            while not self._stopping:
                systemd.notify("WATCHDOG=1")
                began = time.monotonic()
                try:
                    taken = self.publish_batch()
                except OUTAGES as error:
                    self._disconnect()
                    log.error(
                        "publishing stopped, nothing is lost: %s; next try in %.1f s", _said(error), backoff
                    )
                    systemd.notify(f"STATUS=waiting after: {_said(error)}"[:200])
                    self._sleep(backoff)
                    backoff = min(backoff * 2, LONGEST_BACKOFF)
                    continue
                backoff = FIRST_BACKOFF
                self._report.busy += time.monotonic() - began if taken else 0
                self._report.tell()
                if taken < self._batch_size:
                    self._wait_for_rows()
        finally:
            systemd.notify("STOPPING=1")
            self._report.tell(now=True)
            self._disconnect()

    def publish_batch(self) -> int:
        """Publish at most one batch; return how many outbox rows it took.

        Connects first where that is needed. Raises one of OUTAGES, and then the rows are still in the outbox.
        """
        encode = self._encode = self._encode or self._encoder()
        producer = self._producer = self._producer or self._connect_kafka()
        partitions = len(producer.partitions_for(self._topic))
        session = self._session = self._session or self._connect_postgresql()
        with session, session.cursor() as cursor:
            cursor.execute(_TAKE, (self._batch_size,))
            rows = cursor.fetchall()
            if not rows:
                return 0
            failures = self._send(producer, encode, partitions, rows)
            _quarantine(cursor, failures)
            cursor.execute(
                "DELETE FROM millrace.users_outbox WHERE id = ANY (%s)", ([row[0] for row in rows],)
            )
        self._report.published += len(rows) - len(failures)
        self._report.quarantined += len(failures)
        return len(rows)

    def _send(
        self,
        producer: Any,
        encode: Callable[[dict[str, Any]], bytes],
        partitions: int,
        rows: Sequence[tuple[Any, ...]],
    ) -> list[tuple[str, str, str]]:
        """Send outbox rows and wait for every acknowledgement.

        Return those that can't be an event, as (user id, batch id, error). Raises KafkaError if an event was not
        acknowledged.
        """
        fields = event_fields()
        failures: list[tuple[str, str, str]] = []
        futures = []
        for _, user_id, batch_id, republished, *values in rows:
            if values[0] is None:
                failures.append((user_id, batch_id, "the user's row is gone from millrace.users"))
                continue
            key = user_id.encode()
            event = dict(zip(fields, values, strict=True))
            try:
                value = encode(event)
                futures.append(
                    producer.send(
                        self._topic,
                        key=key,
                        value=value,
                        headers=[(REPUBLISHED_HEADER, b"1")] if republished else None,
                        partition=partition(key, partitions),
                    )
                )
            except MessageSizeTooLargeError as error:
                failures.append((user_id, batch_id, f"too large for Kafka: {error}"))
            except (ValueError, TypeError, OverflowError) as error:
                # What Avro says of a value that it can't hold is the value.
                wrong = ", ".join(unfit_fields(users_created(), event)) or "the event as a whole"
                failures.append((user_id, batch_id, f"{type(error).__name__} in {wrong}"))
        try:
            producer.flush(timeout=ACKS_TIMEOUT)
        except KafkaTimeoutError as error:
            raise NotAcknowledgedError(f"brokers did not acknowledge within {ACKS_TIMEOUT:g} s") from error
        refused = [future.exception for future in futures if not future.succeeded()]
        if refused:
            raise NotAcknowledgedError(
                f"{len(refused)} of {len(futures)} events: {_said(refused[0])}"
            ) from refused[0]
        return failures

    def _encoder(self) -> Callable[[dict[str, Any]], bytes]:
        """Without a schema id there is no event: the registry is asked first."""
        try:
            with RegistryClient(self._registry) as client:
                schema_id = client.lookup(SUBJECT, users_created_text())
        except SchemaNotFoundError as error:
            raise SchemaNotFoundError(
                f"{error}: this version's schema is not registered; run `millrace registry register`"
            ) from error
        log.info("schema %s has id %d", SUBJECT, schema_id)
        return encoder(users_created(), schema_id)

    def _connect_kafka(self) -> Any:
        return KafkaProducer(**kafka_config(self._kafka), **PRODUCER_SETTINGS)

    def _connect_postgresql(self) -> PostgresqlConnection:
        session = postgresql_connect(self._postgresql, application_name="relay", settings=SESSION_SETTINGS)
        with session, session.cursor() as cursor:
            cursor.execute(f"LISTEN {CHANNEL}")
        return session

    def _disconnect(self) -> None:
        """Give up session and producer: after a failed send an idempotent producer is of no more use."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(psycopg2.Error):  # it is given up; the server rolls back what was open
                session.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            _close(producer)

    def _wait_for_rows(self) -> None:
        """Wait until a store notifies, the poll interval is over, or the relay is to stop."""
        session = self._session
        systemd.notify("STATUS=waiting for users")
        if session is None:
            return
        if not session.notifies:
            select.select([session.fileno(), self._wake_read], [], [], IDLE_POLL)
        with contextlib.suppress(
            psycopg2.OperationalError
        ):  # the next batch meets the same error, and tells it
            session.poll()
        session.notifies.clear()

    def _sleep(self, seconds: float) -> None:
        """Sleep, without missing the watchdog or the end."""
        until = time.monotonic() + seconds
        while not self._stopping and (left := until - time.monotonic()) > 0:
            systemd.notify("WATCHDOG=1")
            select.select([self._wake_read], [], [], min(left, IDLE_POLL))


class _Report:
    """One line of what was done per interval."""

    def __init__(self) -> None:
        self.published = 0
        self.quarantined = 0
        self.busy = 0.0  # seconds spent on batches that had rows
        self._since = time.monotonic()

    def tell(self, *, now: bool = False) -> None:
        elapsed = time.monotonic() - self._since
        if elapsed < REPORT_INTERVAL and not now:
            return
        if self.published or self.quarantined:
            log.info(
                "published %d users in the last %.0f s (%.0f/s while busy), %d into quarantine",
                self.published,
                elapsed,
                self.published / max(self.busy, 0.001),
                self.quarantined,
            )
            systemd.notify(f"STATUS=published {self.published} users in the last {elapsed:.0f} s")
        self.published = self.quarantined = 0
        self.busy = 0.0
        self._since = time.monotonic()


def serve(connections: Connections, *, batch_size: int) -> None:
    """Run a relay until SIGTERM or SIGINT."""
    relay = Relay(connections, batch_size=batch_size)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, relay.stop)
    relay.run()


def _quarantine(cursor: PostgresqlCursor, failures: Sequence[tuple[str, str, str]]) -> None:
    if not failures:
        return
    log.error(
        "%d users can't be events and go into millrace.users_quarantine; the first is %s: %s",
        len(failures),
        failures[0][0],
        failures[0][2],
    )
    cursor.executemany(
        "INSERT INTO millrace.users_quarantine (user_id, batch_id, error) VALUES (%s, %s, %s) "
        "ON CONFLICT (user_id) DO UPDATE SET error = excluded.error, quarantined_at = now()",
        failures,
    )


_TAKE: Final = f"""
    SELECT o.id, o.user_id::text, o.batch_id::text, o.republished, {event_columns("u")}
    FROM (
        SELECT id, user_id, batch_id, republished FROM millrace.users_outbox ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
    ) AS o
    LEFT JOIN millrace.users AS u ON u.user_id = o.user_id
    ORDER BY o.id
"""  # noqa: S608 - the columns are names of the schema


def _close(producer: Any) -> None:
    """End a producer and its thread at once, whatever it still has to send: the outbox has it too."""
    # Its `close` flushes first, and when that fails the thread goes on for ever: there must be nothing to flush.
    producer.flush = lambda timeout=None: None
    producer.close(timeout=0)


def _said(error: BaseException) -> str:
    """An error in one line, with its kind unless its text has it."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    return text if isinstance(error, MillraceError) or text.startswith(kind) else f"{kind}: {text}"
