"""Results are kept, so that a run that was cut off goes on where it was: a scenario that has passed is not run again.

They lie with the environment's state, in faults.jsonl, a line per scenario and round.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from millrace import environment as environments
from tests.faults.flow import PATIENCE
from tests.faults.run import Result, flowing
from tests.faults.scenarios import SCENARIOS

ENVIRONMENT = "faults"
# The last of a round: every minute of it, as the rollup counts it and the audit compares it.
ROLLUP = "rollup"
NAMES = [*(scenario.name for scenario in SCENARIOS), ROLLUP]


def results_file() -> Path:
    return environments.current().directory / "faults.jsonl"


def results() -> list[dict[str, Any]]:
    path = results_file()
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def latest() -> dict[tuple[int, str], dict[str, Any]]:
    """Return the last result of every round and scenario, by scenario and then by round."""
    found = {(line["round"], line["scenario"]): line for line in results()}
    return dict(sorted(found.items(), key=lambda item: (NAMES.index(item[0][1]), item[0][0])))


def began(round_: int, now: float) -> float:
    """When the first scenario of a round began, seconds since the epoch."""
    return min([now, *(line["began"] for line in results() if line["round"] == round_)])


def record(round_: int, name: str, result: Result) -> None:
    line = {
        "round": round_,
        "scenario": name,
        "date": datetime.now(UTC).date().isoformat(),
        "patience": PATIENCE,
        **asdict(result),
    }
    with results_file().open("a") as file:
        file.write(json.dumps(line) + "\n")


def pytest_configure() -> None:
    name = environments.name_from_environment()
    if name != ENVIRONMENT:
        raise pytest.UsageError(
            f"faults are injected into environment {ENVIRONMENT!r} and no other, this is {name!r}: run `make faults`"
        )
    if os.environ.get("FRESH"):
        results_file().unlink(missing_ok=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every scenario in every round, less what has passed before, and less what ONLY does not name."""
    only = os.environ.get("ONLY")
    if only and only not in NAMES:
        raise pytest.UsageError(f"ONLY={only}: there are {', '.join(NAMES)}")
    passed = {key for key, line in latest().items() if not line["faults"]}
    rounds = range(1, int(os.environ.get("ROUNDS", "1")) + 1)
    wanted: list[tuple[int, str]] = []
    for round_ in rounds:
        left = [only] if only else [name for name in NAMES if (round_, name) not in passed]
        wanted += [(round_, name) for name in dict.fromkeys([*left, ROLLUP] if left else [])]
    metafunc.parametrize(("round_", "name"), wanted, ids=[f"{name}-{round_}" for round_, name in wanted])


@pytest.fixture(scope="session")
def flow() -> Iterator[float]:
    with flowing() as since:
        yield since


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The last result of every scenario and round."""
    found = latest()
    if not found:
        return
    terminalreporter.section("faults")
    row = "{:<42}{:>6}  {:<7}{:>6}{:>9}{:>19}{:>10}".format
    terminalreporter.line(
        row("scenario", "round", "result", "lost", "doubled", "without progress", "catch up")
    )
    for (round_, name), line in found.items():
        numbers = [line[key] for key in ("lost", "doubled")]
        times = [line[key] for key in ("without_progress", "catch_up")]
        terminalreporter.line(
            row(
                name,
                round_,
                "red" if line["faults"] else "green",
                *("-" if number is None else number for number in numbers),
                *("-" if seconds is None else f"{seconds:.0f} s" for seconds in times),
            )
        )
