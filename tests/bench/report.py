"""Renders docs/bench.md and its plots from docs/bench/*.json.

python tests/bench/report.py        (needs matplotlib; `make bench` brings it)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).resolve().parents[2] / "docs"
# Units that use less than this are summed up.
SMALL = 0.005
# What a topology is meant to reach on 2 cores with everything on them.
AIMS = {"compact": "5,000 rows/s at 0.40 CPU seconds per 1,000 rows", "single": "10,000 rows/s"}


def main() -> None:
    """Render all measurements there are."""
    mpl.rcParams.update({"svg.hashsalt": "millrace", "font.size": 9, "figure.constrained_layout.use": True})
    measured = [json.loads(path.read_text()) for path in sorted((DOCS / "bench").glob("*.json"))]
    sections = []
    for found in measured:
        plot_series(found)
        plot_latencies(found)
        sections.append(section(found))
    (DOCS / "bench.md").write_text(
        "# How fast, and what it costs\n\n"
        "Written by `make bench`: rows are stored in open loop (what is late stays owed) by the product's own code, and a row of each\n"
        "commit is looked for in both tables at LOCAL_QUORUM. Logins are on, everything runs on the one machine that is named, the\n"
        "load and the measurement included; scheduled DAGs are paused. Read figures of other machines with care: these say what the\n"
        "flow costs, not what a cluster can do.\n\n" + "\n".join(sections)
    )


def section(found: dict[str, Any]) -> str:
    """One topology's part of the report."""
    machine, sustained, backlog = found["machine"], found["sustained"], found["backlog"]
    name = found["topology"]
    rows = [
        f"| all it can, for {sustained['seconds']:.0f} s ({sustained['offered']:,.0f} rows/s offered) | {sustained['rate']:,.0f} rows/s | {latency(sustained)} | floor 3,000 rows/s, aim {AIMS.get(name, 'not set')} |",
        f"| half of it | {found['half']['rate']:,.0f} rows/s | {latency(found['half'])} | p50 1 s at most, aim 0.5 s; p99 3 s at most |",
        f"| little load | 100 rows/s | {latency(found['little'])} | p50 0.4 s at most |",
    ]
    loads = [found[part] for part in ("sustained", "half", "little")]
    units = sorted(
        (unit for unit, used in sustained["cpu"].items() if used >= SMALL),
        key=lambda unit: -sustained["cpu"][unit],
    )
    costs = [
        "| " + " | ".join([unit, *(f"{load['cpu'].get(unit, 0):.3f}" for load in loads)]) + " |"
        for unit in units
    ]
    loops = ", ".join(f"{load['loop']:.2f} s" for load in loads)
    rest = [sum(used for unit, used in load["cpu"].items() if unit not in units) for load in loads]
    totals = [sum(load["cpu"].values()) for load in loads]
    return f"""## Topology {name}

{machine["cores"]} cores ({machine["cpu"]}), {machine["memory_gib"]} GiB, {machine["hosts"]} hosts, Linux {machine["kernel"]};
commit {found["commit"]}, {found["date"]}.

| load | rate | latency from commit to readable: p50, p95, p99 | meant to be |
|---|---|---|---|
{chr(10).join(rows)}

This machine's own speed changes: at rest, just before each of the three, a fixed loop of Python took {loops} of CPU.

A backlog of {backlog["rows"]:,} rows was readable after {backlog["seconds"]:.0f} s ({backlog["rows"] / backlog["seconds"]:,.0f} rows/s).
{found["ingest"]["users"]:,} users from the offline source by the DAG: green after {found["ingest"]["seconds"]:.0f} s.

![rows over time](bench/{name}-rows.svg)
![latency](bench/{name}-latency.svg)

CPU seconds per 1,000 rows, by unit (bench-load and bench-watch are the measurement's own):

| unit | sustained | half | 100 rows/s |
|---|---|---|---|
{chr(10).join(costs)}
| the rest | {" | ".join(f"{used:.3f}" for used in rest)} |
| all | {" | ".join(f"{used:.3f}" for used in totals)} |
"""


def latency(load: dict[str, Any]) -> str:
    """Three percentiles in seconds."""
    return f"{load['p50']:.2f} s, {load['p95']:.2f} s, {load['p99']:.2f} s"


def plot_series(found: dict[str, Any]) -> None:
    """Committed and readable rows over time, of the sustained load and of the backlog."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3))
    for axis, part in zip(axes, ("sustained", "backlog"), strict=True):
        for kind, counts in found[part]["series"].items():
            axis.plot([count / 1000 for count in counts], label=kind)
        axis.set(title=part, xlabel="seconds", ylabel="thousand rows")
        axis.legend()
        axis.grid(alpha=0.3)
    save(figure, f"{found['topology']}-rows")


def plot_latencies(found: dict[str, Any]) -> None:
    """The distribution of latencies at half of the maximum and at little load."""
    figure, axis = plt.subplots(figsize=(9, 3))
    for part in ("half", "little"):
        seconds = found[part]["latencies"]
        shares = [(number + 1) / len(seconds) for number in range(len(seconds))]
        axis.plot(seconds, shares, label=f"{found[part]['rate']:,.0f} rows/s")
    axis.set(xlabel="seconds from commit to readable", ylabel="share of commits", xlim=(0, None))
    axis.legend()
    axis.grid(alpha=0.3)
    save(figure, f"{found['topology']}-latency")


def save(figure: Any, name: str) -> None:
    """Write a plot without what would change from run to run."""
    figure.savefig(DOCS / "bench" / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
