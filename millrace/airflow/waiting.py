"""Waiting for a batch without holding a worker: a task looks once, then its trigger asks again until a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, TaskDeferralTimeout, TaskDeferred
from airflow.triggers.base import BaseTrigger, TriggerEvent

from millrace.airflow import client

if TYPE_CHECKING:
    from airflow.sdk import Context

Station = Literal["published", "readable"]

# Seconds between two looks: short while most batches arrive, then longer, because a look costs a login to each store. The
# first gives the scheduler time to see that the task's process has ended; see BatchWait.
FIRST_PAUSE: Final = 3.0
LONGEST_PAUSE: Final = 15.0
# Seconds past the deadline after which the scheduler takes the task back from a triggerer that doesn't answer.
TRIGGERER_GRACE: Final = 60.0


class Batch(TypedDict):
    """What tasks hand on of a batch; ids and counts, never rows."""

    batch_id: str
    seed: str
    count: int
    inserted: int
    republished: int
    dead_letters_from: dict[str, int] | None
    # The try of the task that last put the batch, or what was missing of it, into the outbox.
    attempt: int


def missing(station: Station, batch: Batch) -> list[str]:
    """Return the ids of the batch's users that have not reached the station.

    Raises BatchFailedError when waiting can't help, another MillraceError when it can't be told now.
    """
    from millrace import flow, store

    connections = client("ingest")
    try:
        if station == "published":
            return flow.published(connections, batch["batch_id"])
        return flow.readable(connections, batch["batch_id"], batch["dead_letters_from"])
    except store.UnknownBatchError as error:
        raise flow.BatchFailedError(str(error)) from error


class BatchTrigger(BaseTrigger):
    """Asks again and again whether a batch has reached a station, until `deadline` (seconds since the epoch).

    Its one event holds the batch and says `there`, `late`, or `failed` with the error. A store that can't be asked for a while is logged
    and asked again: whether the batch arrives is not known by that.
    """

    def __init__(self, station: Station, batch: Batch, deadline: float) -> None:
        super().__init__()
        self.station: Station = station
        self.batch = batch
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes this trigger again."""
        arguments = {"station": self.station, "batch": self.batch, "deadline": self.deadline}
        return f"{type(self).__module__}.{type(self).__qualname__}", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event."""
        yield TriggerEvent({**await self._outcome(), "batch": self.batch})

    async def _outcome(self) -> dict[str, str]:
        from millrace.errors import MillraceError
        from millrace.flow import BatchFailedError

        pause = FIRST_PAUSE
        while (left := self.deadline - time.time()) > 0:
            await asyncio.sleep(min(pause, left))
            pause = min(pause * 1.5, LONGEST_PAUSE)
            try:
                waited_for = await asyncio.to_thread(missing, self.station, self.batch)
            except BatchFailedError as error:
                return {"outcome": "failed", "error": str(error)}
            except MillraceError as error:
                self.log.warning("can't look, asking again: %s", error)
                continue
            if not waited_for:
                return {"outcome": "there"}
            self.log.info("%d users are not %s yet", len(waited_for), self.station)
        return {"outcome": "late"}


class BatchWait(BaseOperator):
    """Waits until every user of a batch has reached a station, for at most the run's deadline.

    Fails at once when a user sits in quarantine or is a dead letter, and names at the deadline each missing user's last
    station. When only this task is cleared, what of the batch can't be read is first put into the outbox again: else it
    would wait for what is lost.

    What it fails with is final. Its retries are for Airflow 3.3 alone, which takes a task for killed when its trigger
    fires before a busy scheduler has seen that the task's process had ended (apache/airflow issues 71580 and 72716).
    """

    template_fields = ("batch",)

    def __init__(self, *, station: Station, batch: Any, **arguments: Any) -> None:
        super().__init__(**{"retries": 2, "retry_delay": timedelta(seconds=5), **arguments})
        self.station: Station = station
        self.batch = batch

    def execute(self, context: Context) -> Batch:
        """Look once, and leave the waiting to the trigger; return the batch for the next task."""
        from millrace import flow

        run, ti = context["dag_run"], context["ti"]
        first_try = ti.max_tries - self.retries + 1  # since it was last cleared
        batch: Batch = self.batch
        with _final():
            connections = client("ingest")
            rate_limit = connections.source.rate_limit
            deadline = flow.parse_conf(run.run_id, run.conf, rate_limit=rate_limit).deadline
            if ti.try_number == first_try > batch["attempt"]:
                again = flow.send_again(connections, batch["batch_id"])
                batch = {**batch, **again, "attempt": first_try}
            if self._is_there(batch):
                return batch
        self.log.info("waiting up to %g s", deadline)
        raise TaskDeferred(
            trigger=BatchTrigger(self.station, batch, time.time() + deadline),
            method_name=self.go_on.__name__,
            timeout=timedelta(seconds=deadline + TRIGGERER_GRACE),
        )

    def go_on(self, context: Context, event: dict[str, Any]) -> Batch:
        """Act on the trigger's event."""
        batch: Batch = event["batch"]
        if event["outcome"] == "failed":
            raise AirflowFailException(event["error"])
        return self._at_deadline(batch) if event["outcome"] == "late" else batch

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Treat a triggerer that doesn't answer as a deadline that passed."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            self.log.error(
                "the triggerer did not answer by the deadline: see `journalctl -u airflow-triggerer`"
            )
            return self._at_deadline(self.batch)

    def _is_there(self, batch: Batch) -> bool:
        """Look once; what can't be told now is not there yet."""
        from millrace.errors import MillraceError
        from millrace.flow import BatchFailedError

        try:
            waited_for = missing(self.station, batch)
        except BatchFailedError:
            raise
        except MillraceError as error:
            self.log.warning("can't look: %s", error)
            return False
        self.log.info("%d of %d users are not %s yet", len(waited_for), batch["count"], self.station)
        return not waited_for

    def _at_deadline(self, batch: Batch) -> Batch:
        """Look for the last time; return the batch if it is there, fail with its users' last stations if not."""
        from millrace import flow
        from millrace.errors import MillraceError

        batch_id = batch["batch_id"]
        with _final():
            try:
                late = missing(self.station, batch)
                stations = flow.last_stations(client("ingest"), batch_id, late) if late else {}
                readable = late and self.station == "readable"
                hidden = flow.hidden_rows(client("ingest"), batch_id, stations) if readable else ""
            except flow.BatchFailedError:
                raise
            except MillraceError as error:
                raise flow.BatchLateError(
                    f"batch {batch_id}: whether it was {self.station} before the deadline is not known: {error}. "
                    "Clearing the run looks again, and sends again what is missing"
                ) from error
            if late:
                raise flow.late(batch_id, self.station, stations, hidden)
        return batch


@contextmanager
def _final() -> Iterator[None]:
    """Let an expected failure fail the task without a retry."""
    from millrace.errors import MillraceError

    try:
        yield
    except MillraceError as error:
        raise AirflowFailException(str(error)) from error
