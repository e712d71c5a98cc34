"""Streaming job: users_created (Kafka) -> users_by_id, users_by_country (Cassandra), dead letters (Kafka).

    users_stream.py --checkpoint /var/lib/.../checkpoint

A service: it submits to the standalone master that the connections name (client deploy mode) and runs until
SIGTERM, which ends it with 0, or until a batch fails, which ends it with 1 and the cause as its last line; its
supervisor starts it again. Environment: MILLRACE_CONNECTIONS (sections kafka, registry, cassandra, spark).

The checkpoint is a folder on this host's disk: the log of offsets, no state. Without it the job reads the topic
from its earliest record again, which changes nothing in the tables.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import threading
from functools import partial
from pathlib import Path

from millrace_spark import batches, registry, session, tables, topics
from millrace_spark.transforms import Event
from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import StreamingQueryException

from millrace import connections, schemas, systemd
from millrace.errors import MillraceError

log = logging.getLogger("users_stream")

_END_SECONDS = 20


def main(arguments: list[str] | None = None) -> int:
    """Run the job; return the process's exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of the offset and commit log")
    checkpoint: Path = parser.parse_args(arguments).checkpoint
    session.log_to_stderr()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        cause = _run(checkpoint.resolve(), connections.load(), stop)
    except MillraceError as error:
        cause = str(error)
    if cause is None:
        log.info("stopped")
        return 0
    log.error("ended: %s", cause)
    return 1


def _run(checkpoint: Path, clients: connections.Connections, stop: threading.Event) -> str | None:
    """Run until told to stop (None) or until the query ends by itself (the cause)."""
    kafka, keyspace = clients.kafka, clients.cassandra.keyspace
    spark = session.start(
        "users_stream", session.settings("common", "users_stream"), session.secrets(clients)
    )
    write_batch = batches.Batches(
        event=Event(schemas.users_created()),
        writers=registry.WriterSchemas(registry.fetcher(clients.registry), stop),
        sinks=batches.Sinks(
            users_by_id=tables.users_by_id(spark, keyspace),
            users_by_country=tables.users_by_country(spark, keyspace),
            countries=tables.countries(spark, keyspace),
            dead_letters=partial(topics.write_dead_letters, kafka=kafka, topic=schemas.DEAD_LETTER_TOPIC),
        ),
        stop=stop,
    )
    try:
        query = (
            topics.read_stream(spark, kafka, schemas.TOPIC)
            .writeStream.queryName("users_stream")
            .option("checkpointLocation", checkpoint.as_uri())
            .foreachBatch(write_batch)
            .start()
        )
        systemd.notify("READY=1")
        log.info("started: topic %s, checkpoint %s", schemas.TOPIC, checkpoint)
        executors = session.ExecutorWatch(spark)
        while not stop.is_set():
            if query.awaitTermination(1):
                return "the query ended without an error"
            executors.there()
        query.stop()
        return None
    except (
        StreamingQueryException,
        Py4JError,
    ) as error:  # Py4JError: the JVM is gone, or did not stop in time
        if stop.is_set():
            log.warning("stopped within a batch, which will come again: %s", session.one_line(str(error)))
            return None
        return _cause(error, write_batch.failure)
    finally:
        # A write that hangs in the JVM would hold up its end, too.
        ending = threading.Thread(target=spark.stop, daemon=True)
        ending.start()
        ending.join(_END_SECONDS)


def _cause(error: Exception, failure: BaseException | None) -> str:
    """Give the innermost cause in one line."""
    if failure is not None:
        return f"{type(failure).__name__}: {session.one_line(str(failure))}"
    return session.one_line(str(error))


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    # Not sys.exit, which would wait for every thread, also for one that waits for a hanging write.
    os._exit(code)
