"""Keeps the results of environment `faults` in docs/faults.jsonl and renders docs/faults.md from them.

MILLRACE_ENV=faults python -m tests.faults.report
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from millrace import environment as environments
from tests.faults.conftest import NAMES, ROLLUP, latest, results
from tests.faults.flow import INTERVAL, ROWS
from tests.faults.scenarios import named

DOCS = Path(__file__).resolve().parents[2] / "docs"


def main() -> None:
    """Write both files."""
    lines = results()
    (DOCS / "faults.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (DOCS / "faults.md").write_text(report(lines, latest()))


def report(lines: list[dict[str, Any]], found: dict[tuple[int, str], dict[str, Any]]) -> str:
    """Render all results, and the last one of each round and scenario, as a page."""
    rounds = sorted({round_ for round_, _ in found})
    tries = Counter((line["round"], line["scenario"]) for line in lines)
    committed = sum(line["seen"].get("committed", 0) for line in lines)
    lost, doubled = (sum(line[key] or 0 for line in lines) for key in ("lost", "doubled"))
    dates = sorted({line["date"] for line in lines})
    patience = max(line["patience"] for line in lines)
    header = ["scenario", "bounds", *(f"round {round_}" for round_ in rounds)]
    table = [
        [
            f"`{name}`",
            " / ".join(f"{bound:g}" if bound else "-" for bound in bounds(name)),
            *(cell(name, found.get((round_, name)), tries[round_, name]) for round_ in rounds),
        ]
        for name in NAMES
    ]
    doubled_bounds = f" These runs had {patience:g} times the bounds (`PATIENCE={patience:g}`); what is above the plain one is marked †."
    return f"""# What dies, and what becomes of the rows

Written from the results of `make faults`: topology {environments.current().topology}, {os.cpu_count()} cores, a steady flow of {ROWS / INTERVAL:g} rows/s, {" to ".join(sorted({dates[0], dates[-1]}))}.
What each scenario does stands in [scenarios.py](../tests/faults/scenarios.py). A cell has the longest time without a further
readable row, and the time from the fault's end until no row was late any more, both in seconds.{doubled_bounds if patience != 1 else ""}

{len(lines)} runs, {committed:,} rows committed while they went on: **{lost} lost, {doubled} doubled**, {sum(bool(line["faults"]) for line in lines)} runs red.

{chr(10).join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *table])}
"""


def bounds(name: str) -> tuple[float | None, float | None]:
    """The bounds of the two times; the rollup counts and has none."""
    if name == ROLLUP:
        return None, None
    scenario = named(name)
    return scenario.without_progress, scenario.catch_up


def cell(name: str, line: dict[str, Any] | None, tries: int) -> str:
    """The two times of a run, how often it was tried, and in bold what went wrong the last time."""
    if line is None:
        return "not run"
    seen = zip((line["without_progress"], line["catch_up"]), bounds(name), strict=True)
    times = " / ".join(
        "-" if seconds is None else f"{seconds:.0f}{'†' if bound and seconds > bound else ''}"
        for seconds, bound in seen
    )
    times += f" (try {tries})" if tries > 1 else ""
    return f"{times} **{'; '.join(line['faults'])}**" if line["faults"] else times


if __name__ == "__main__":
    main()
