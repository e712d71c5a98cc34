"""Runs a scenario: whole hosts, a steady flow, faults and their end, and then what has become of the rows."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.faults import flow, injection
from tests.faults.injection import Fault
from tests.faults.remote import control, now
from tests.faults.scenarios import Scenario
from tests.platform.conftest import members

log = logging.getLogger(__name__)

# What `millrace health` checks; a run of Airflow's parts is checked by `airflow`.
SERVICES = (
    "zookeeper", "kafka", "cassandra", "postgresql", "schema_registry", "spark_master", "spark_worker", "users_stream",
    "relay", "airflow",
)  # fmt: skip
# Seconds until every service is whole again after a scenario.
WHOLE = 240.0


@dataclass
class Result:
    """What was seen. Times in seconds; None where it was not come to."""

    lost: int | None = None
    doubled: int | None = None
    without_progress: float | None = None
    catch_up: float | None = None
    faults: list[str] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)


def whole(seconds: float) -> list[str]:
    """Wait until every service is whole; return what is not after this time (times PATIENCE)."""
    deadline = time.monotonic() + seconds * flow.PATIENCE
    missing = []
    for service in SERVICES:
        if members(service):
            answer = control().run(
                f"millrace health --wait {max(0.0, deadline - time.monotonic()):.0f} {service}"
            )
            if answer.rc:
                missing.append(f"{service}: {(answer.stderr or answer.stdout).strip()}")
    return missing


@contextmanager
def flowing() -> Iterator[None]:
    """Rows flow for as long as this lasts, on hosts that are healed before and after."""
    injection.heal()
    try:
        if missing := whole(WHOLE):
            raise AssertionError(f"nothing was injected yet, and this is not whole: {'; '.join(missing)}")
        flow.begin()
        assert flow.wait_until_steady(0, 120), "nothing was injected yet, and rows don't flow"
        yield
    finally:
        flow.end()
        injection.heal()


def run(scenario: Scenario) -> Result:
    """Run a scenario while rows flow; every fault has ended when this returns, whatever happens."""
    result = Result()
    first, began = flow.last_batch() + 1, now()
    flow.wait_for(lambda: flow.last_batch() >= first, 60, "nothing was injected yet, and no row is stored")
    try:
        with ExitStack() as ends:
            over = _inject(scenario, ends)
            caught_up = flow.wait_until_steady(first, scenario.catch_up + 60)
            batches = flow.batches(first)
        result.without_progress = batches.without_progress(
            began, max(batches.readable.values(), default=now())
        )
        result.catch_up = batches.caught_up(over)
        _hold("without progress", result.without_progress, scenario.without_progress, result)
        _hold("catching up", result.catch_up, scenario.catch_up, result)
        if not caught_up:
            result.faults.append("rows are late, and a minute beyond the bound they still were")
        result.faults += whole(WHOLE)
        result.seen = flow.checked(first, began)
        result.lost, result.doubled = result.seen["lost"], result.seen["doubled"]
        for name in ("lost", "doubled", "different", "quarantined", "dead_letters"):
            if result.seen[name]:
                result.faults.append(f"{name}: {result.seen[name]}")
    except (AssertionError, RuntimeError, subprocess.SubprocessError) as error:
        result.faults.append(str(error))
    if result.faults:
        injection.heal()
    return result


def _inject(scenario: Scenario, ends: ExitStack) -> float:
    """Do the steps at their times, and end those that have a time; return when the last one was over.

    `ends` takes what ends each fault, in case that something goes wrong before.
    """
    log.info("%s", scenario.name)
    began = time.monotonic()
    # What comes next is first: faults, and what ends them.
    plan: list[tuple[float, Fault, float | None]] = [
        (step.at, step.fault, step.seconds) for step in scenario.steps
    ]
    over = now()
    while plan:
        plan.sort(key=lambda entry: entry[0])
        at, act, seconds = plan.pop(0)
        time.sleep(max(0.0, began + at - time.monotonic()))
        undo = act()
        over = now()
        if undo is not None:
            end = ends.callback(cache(undo))
            if seconds is not None:
                plan.append((at + seconds, end, None))
    return over


def _hold(name: str, seen: float, bound: float, result: Result) -> None:
    if seen > bound * flow.PATIENCE:
        result.faults.append(f"{seen:.0f} s {name}: it must be at most {bound * flow.PATIENCE:.0f} s")
