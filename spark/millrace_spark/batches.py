"""One micro-batch of the streaming job: decode, judge, write, and only then let Spark commit its offsets."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from pyspark import inheritable_thread_target
from pyspark.sql import DataFrame, Row

from millrace.errors import MillraceError
from millrace_spark import transforms
from millrace_spark.registry import WriterSchemas
from millrace_spark.session import one_line
from millrace_spark.tables import Write
from millrace_spark.transforms import Event

log = logging.getLogger(__name__)

WRITE_DEADLINE_SECONDS: Final = 300.0
# A ring without a quorum may be back within this time: to begin anew costs cold JVMs longer than to wait.
WRITE_AGAIN_SECONDS: Final = 120.0
WRITE_PAUSE_SECONDS: Final = 5.0
# A task costs as much as some hundred rows: so many rows are worth one.
ROWS_PER_TASK: Final = 1000


class StalledError(MillraceError):
    """A write neither ended nor failed in time."""


@dataclass(frozen=True, slots=True)
class Sinks:
    """Where a batch goes. Each writes all rows that it is given, or raises."""

    users_by_id: Write
    users_by_country: Write
    countries: Write
    dead_letters: Write


@dataclass(slots=True)
class Batches:
    """The function that `foreachBatch` calls, and what it keeps from batch to batch.

    Writing a batch again gives the same rows, so a batch may be cut off anywhere and come again. A write that fails is begun
    again for `write_again` seconds, until the job is told to stop; one that hangs is given up after `write_deadline` seconds.
    """

    event: Event
    writers: WriterSchemas
    sinks: Sinks
    stop: threading.Event
    write_again: float = WRITE_AGAIN_SECONDS
    write_deadline: float = WRITE_DEADLINE_SECONDS
    failure: BaseException | None = None
    # As many as the last batch had: what a batch holds is known when it has been read. The first is one task's: executors
    # that all warm up at once on a small machine take twice as long for it.
    _records: int = 0
    _countries: set[str] = field(default_factory=set)
    _made_for: dict[int, str | None] | None = None
    _made: transforms.Decoder | None = None
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(2, "tables"))

    def __call__(self, records: DataFrame, batch_id: int) -> None:
        """Write one batch, and keep what went wrong for the job's last word."""
        try:
            self._process(records, batch_id)
        except BaseException as error:
            self.failure = error
            raise

    def _process(self, records: DataFrame, batch_id: int) -> None:
        started = time.monotonic()
        decoded, counts = self._decode(records.coalesce(self._tasks(records)))
        try:
            rows = sum(row.records for row in counts if row.reason is None)
            dead = {row.reason: row.records for row in counts if row.reason is not None}
            self._records = rows + sum(dead.values())
            if rows:
                self._write_countries(decoded, counts)
                self._write_tables(decoded)
            if dead:
                self._write(
                    {"dead letters": (self.sinks.dead_letters, transforms.dead_letters(decoded, self.event))}
                )
        finally:
            decoded.unpersist()
        log.log(
            logging.WARNING if dead else logging.INFO,
            "batch %d: rows=%d dead_letters=%d%s seconds=%.2f",
            batch_id,
            rows,
            sum(dead.values()),
            "".join(f" {reason}={count}" for reason, count in sorted(dead.items())),
            time.monotonic() - started,
        )

    def _tasks(self, records: DataFrame) -> int:
        """Return how many tasks a batch like the last one is worth, one for each of the executors' cores at most."""
        cores = records.sparkSession.sparkContext.defaultParallelism
        return max(1, min(cores, self._records // ROWS_PER_TASK))

    def _decode(self, records: DataFrame) -> tuple[DataFrame, list[Row]]:
        """Decode and keep the batch, and tally it: the one pass over the topic.

        Ids are not looked for beforehand. The tally names those that are not known yet; only when the registry
        gives a schema for one of them is the batch decoded once more.
        """
        denied: set[int] = set()
        while True:
            decoded = self._decoder()(records)
            decoded.cache()
            try:
                counts = transforms.tally(decoded).collect()
                unknown = {schema_id for row in counts for schema_id in row.schema_ids} - denied
                if not self.writers.learn(unknown):
                    return decoded, counts
                denied |= unknown
            except BaseException:
                decoded.unpersist()
                raise
            decoded.unpersist()

    def _decoder(self) -> transforms.Decoder:
        """Return the decoder for the writers known now."""
        if self._made_for != (known := self.writers.known) or self._made is None:
            self._made_for, self._made = known, transforms.Decoder(self.event, known)
        return self._made

    def _write_countries(self, decoded: DataFrame, counts: list[Row]) -> None:
        """List countries that this process has not seen yet, before any row of theirs exists."""
        seen = {country for row in counts if row.reason is None for country in row.countries}
        if new := seen - self._countries:
            good = decoded.where(decoded.reason.isNull()).select("country").distinct()
            self._write({"countries": (self.sinks.countries, good)})
            self._countries |= new

    def _write_tables(self, decoded: DataFrame) -> None:
        """Write both tables side by side: a small batch is mostly waiting."""
        self._write(
            {
                "users_by_id": (self.sinks.users_by_id, transforms.users_by_id(decoded, self.event)),
                "users_by_country": (
                    self.sinks.users_by_country,
                    transforms.users_by_country(decoded, self.event),
                ),
            }
        )

    def _write(self, writes: dict[str, tuple[Write, DataFrame]]) -> None:
        """Write to these sinks at the same time; raise the first's error, or StalledError after the deadline.

        The deadline is for the connector: it reads the schema before the first write to a table, and where the ring goes
        away just then it may wait for ever, even when the ring is back.
        """
        futures = {
            # In the job group of the query, so that stopping it cancels them.
            name: self._pool.submit(inheritable_thread_target(partial(self._write_one, name, write, rows)))
            for name, (write, rows) in writes.items()
        }
        # Not for the others: where one fails for want of the driver's control connection, another may hang for it.
        wait(futures.values(), timeout=self.write_deadline, return_when=FIRST_EXCEPTION)
        for future in futures.values():
            if future.done():
                future.result()
        if stalled := [name for name, future in futures.items() if not future.done()]:
            raise StalledError(
                f"no answer within {self.write_deadline:g} s while writing {', '.join(stalled)}: is the cluster up?"
            )

    def _write_one(self, name: str, write: Write, rows: DataFrame) -> None:
        """Write to one sink, again and again while that may help, and say so each time."""
        until = time.monotonic() + self.write_again
        while True:
            try:
                return write(rows)
            except Exception as error:
                if time.monotonic() >= until or self.stop.wait(WRITE_PAUSE_SECONDS):
                    raise
                log.warning("%s could not be written, and is begun again: %s", name, one_line(str(error)))
