"""Runs a scenario: whole hosts, a steady flow, faults and their end, and then what has become of the rows."""

from __future__ import annotations

import itertools
import logging
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tests.faults import flow, injection
from tests.faults.injection import Fault
from tests.faults.remote import SCRIPTS, install, now
from tests.faults.scenarios import Scenario
from tests.platform.conftest import host_named, hosts, members, run_script

log = logging.getLogger(__name__)

# Seconds until every service is whole again after a scenario.
WHOLE = 240.0


@dataclass
class Result:
    """What was seen. Times in seconds, `began` since the epoch; None where it was not come to."""

    began: float
    lost: int | None = None
    doubled: int | None = None
    without_progress: float | None = None
    catch_up: float | None = None
    faults: list[str] = field(default_factory=list)
    seen: dict[str, Any] = field(default_factory=dict)


def whole(seconds: float) -> list[str]:
    """Wait until every service is whole, as a host of its own says; return what is not after this time (times PATIENCE)."""

    def missing(name: str) -> list[str]:
        asked = [service for service in hosts()[name]["services"] if name == members(service)[0]]
        # What a source does is up to the scenario; the depot serves installations alone.
        services = sorted({"units", *asked} - {"offline_source", "depot"})
        seconds_at_most = str(seconds * flow.PATIENCE)
        found: list[str] = run_script(
            host_named(name), "health", seconds_at_most, *services, folder=SCRIPTS.here
        )
        return found

    with ThreadPoolExecutor(len(hosts())) as pool:
        return list(itertools.chain.from_iterable(pool.map(missing, hosts())))


@contextmanager
def flowing() -> Iterator[float]:
    """Rows flow for as long as this lasts, on hosts that are healed before and after; gives the time since which they do."""
    install()
    injection.heal()
    try:
        if missing := whole(WHOLE):
            raise AssertionError(f"nothing was injected yet, and this is not whole: {'; '.join(missing)}")
        flow.begin()
        began, first = now(), flow.last_batch() + 1
        assert flow.wait_until_steady(first, began - flow.LAG, 120), (
            "nothing was injected yet, and rows don't flow"
        )
        yield began
    finally:
        flow.end()
        injection.heal()


def rollup(began: float) -> Result:
    """Of every minute since `began`: count its users by country and gender, as the rollup does, and audit its rows.

    The audit sees what no scenario has looked at: rows that were stored between two of them, and rows that nobody stored.
    """
    result = Result(began)
    try:
        result.seen = flow.counted(began)
    except (AssertionError, RuntimeError) as error:
        result.faults.append(str(error))
        return result
    result.lost, result.doubled = result.seen["lost"], result.seen["doubled"]
    result.faults += [f"{name}: {result.seen[name]}" for name in ("lost", "doubled") if result.seen[name]]
    return result


def run(scenario: Scenario) -> Result:
    """Run a scenario while rows flow; every fault has ended when this returns, whatever happens."""
    first, began = flow.last_batch() + 1, now()
    result = Result(began)
    flow.wait_for(lambda: flow.last_batch() >= first, 60, "nothing was injected yet, and no row is stored")
    try:
        with ExitStack() as ends:
            over = _inject(scenario, ends)
            caught_up = flow.wait_until_steady(first, over, scenario.catch_up + 60)
            batches = flow.batches(first)
        result.without_progress = batches.without_progress(began, batches.asked)
        result.catch_up = batches.caught_up(over)
        _hold("without progress", result.without_progress, scenario.without_progress * flow.PATIENCE, result)
        _hold("catching up", result.catch_up, scenario.catch_up * flow.PATIENCE, result)
        if not caught_up:
            result.faults.append("rows are late, and a minute beyond the bound they still were")
        result.faults += whole(WHOLE)
        result.seen = flow.checked(first)
        result.lost, result.doubled = result.seen["lost"], result.seen["doubled"]
        result.faults += flow.wrong(result.seen)
    except (AssertionError, RuntimeError, subprocess.SubprocessError) as error:
        result.faults.append(str(error))
    if result.faults:
        # What comes next must not suffer from it.
        injection.heal()
        whole(WHOLE)
        flow.wait_until_steady(first, now(), 120)
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
        if callable(undo):
            end = ends.callback(cache(undo))
            if seconds is not None:
                # From now on: to do harm may itself take a while.
                plan.append((time.monotonic() - began + seconds, end, None))
    return over


def _hold(name: str, seen: float, bound: float, result: Result) -> None:
    if seen > bound:
        result.faults.append(f"{seen:.0f} s {name}: it must be at most {bound:.0f} s")
