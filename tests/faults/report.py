"""Keeps the results of environment `faults` in docs/faults.jsonl and renders docs/faults.md from them.

MILLRACE_ENV=faults python -m tests.faults.report
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from millrace import environment as environments
from tests.faults.conftest import NAMES, ROLLUP, latest
from tests.faults.flow import INTERVAL, ROWS
from tests.faults.scenarios import named

DOCS = Path(__file__).resolve().parents[2] / "docs"


def main() -> None:
    """Write both files."""
    found = latest()
    (DOCS / "faults.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found.values()))
    (DOCS / "faults.md").write_text(report(found))


def report(found: dict[tuple[int, str], dict[str, Any]]) -> str:
    """Render the results by round and scenario as a page."""
    rounds = sorted({round_ for round_, _ in found})
    lines = found.values()
    committed = sum(line["seen"].get("committed", 0) for line in lines)
    lost, doubled = (sum(line[key] or 0 for line in lines) for key in ("lost", "doubled"))
    dates = sorted({line["date"] for line in lines})
    patience = max(line["patience"] for line in lines)
    header = ["scenario", "bounds", *(f"round {round_}" for round_ in rounds)]
    table = [
        [f"`{name}`", bounds(name), *(cell(found.get((round_, name))) for round_ in rounds)] for name in NAMES
    ]
    return f"""# What dies, and what becomes of the rows

Written from the results of `make faults`: topology {environments.current().topology}, {os.cpu_count()} cores, a steady flow of {ROWS / INTERVAL:g} rows/s, {" to ".join(sorted({dates[0], dates[-1]}))}.
What each scenario does stands in [scenarios.py](../tests/faults/scenarios.py). A cell has the longest time without a further
readable row, and the time from the fault's end until no row was late any more, both in seconds{f"; bounds held {patience:g} times over" if patience != 1 else ""}.

{len(lines)} runs, {committed:,} rows committed while they went on: **{lost} lost, {doubled} doubled**, {sum(bool(line["faults"]) for line in lines)} runs red.

{chr(10).join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *table])}
"""


def bounds(name: str) -> str:
    """The bounds of the two times; the rollup counts and has none."""
    if name == ROLLUP:
        return "-"
    scenario = named(name)
    return f"{scenario.without_progress:g} / {scenario.catch_up:g}"


def cell(line: dict[str, Any] | None) -> str:
    """The two times of a run; and in bold what went wrong."""
    if line is None:
        return "not run"
    times = " / ".join(
        "-" if line[key] is None else f"{line[key]:.0f}" for key in ("without_progress", "catch_up")
    )
    return f"{times} **{'; '.join(line['faults'])}**" if line["faults"] else times


if __name__ == "__main__":
    main()
