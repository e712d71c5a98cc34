"""Measures environment `bench` and writes what it saw to docs/bench/TOPOLOGY.json.

    MILLRACE_ENV=bench python -m tests.bench

Rows go in open loop: what is late stays owed. First the JVMs are warmed up; then a backlog is drained, which says where to look
for the maximum. That is of the highest load that was kept up for five minutes: its rows, by the seconds until the last of them
could be read. Logins are on, as everywhere. DAGs are paused meanwhile: an hourly run's audit and rollup take minutes.
"""

from __future__ import annotations

import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from millrace import environment as environments
from tests.bench import flow
from tests.platform.airflow_api import Airflow
from tests.remote import control, now

ENVIRONMENT = "bench"
ROOT = Path(__file__).resolve().parents[2]
BACKLOG = 300_000
SUSTAINED = 300.0
# The JVMs go on compiling what is hot for so many seconds; until then a row costs up to half as much again.
WARM_UP_RATE, WARM_UP = 2000, 600.0
# Between two rates that are tried.
STEP_DOWN = 0.92
INGEST_USERS = 5_000


def main() -> None:
    """Run every measurement, one after the other; about 40 minutes."""
    environment = environments.current()
    if environment.name != ENVIRONMENT:
        sys.exit(
            f"made-up users go into environment {ENVIRONMENT!r} and no other, this is {environment.name!r}: run `make bench`"
        )
    flow.SCRIPTS.install()
    airflow = Airflow()
    print(
        "DAGs are paused until the loads are done; if this is killed, unpause them by hand", file=sys.stderr
    )
    with airflow.schedules_paused():
        loads = measure()
    result = {
        "topology": environment.topology,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": subprocess.check_output(
            ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], text=True
        ).strip(),
        "machine": machine(environment.provider),
        **loads,
        "ingest": ingest(airflow),
    }
    path = ROOT / "docs" / "bench" / f"{environment.topology}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    print(f"wrote {path.relative_to(ROOT)}", file=sys.stderr)


def measure() -> dict[str, Any]:
    """Warm up, then a backlog, the highest load that is kept up, half of it, and little."""
    flow.load("warm-up", WARM_UP_RATE, WARM_UP, patience=math.inf)
    drained, drain_seconds = drain()
    # A whole number of hundreds that may just be too much.
    rate = round(BACKLOG / drain_seconds / 100) * 100
    while True:
        sustained, kept_up = flow.load(f"{rate:,.0f} rows/s for {SUSTAINED:.0f} s", rate, SUSTAINED)
        if kept_up:
            break
        rate = round(rate * STEP_DOWN / 100) * 100
    maximum = sustained.readable_rows / sustained.seconds
    half, _ = flow.load(f"half of it: {maximum / 2:,.0f} rows/s", maximum / 2, 120)
    little, _ = flow.load("100 rows/s", 100, 60)
    return {
        "backlog": {"rows": BACKLOG, "seconds": drain_seconds, "series": drained.series()},
        "sustained": {
            "rate": maximum,
            "offered": sustained.rate,
            "seconds": SUSTAINED,
            **described(sustained),
            "series": sustained.series(),
        },
        "half": {"rate": half.rate, **described(half), "latencies": half.latencies()},
        "little": {"rate": little.rate, **described(little), "latencies": little.latencies()},
    }


def drain() -> tuple[flow.Seen, float]:
    """Store a backlog while the relay stands still; then, how many seconds it takes until all of it can be read."""
    released: list[float] = []

    def release() -> None:
        released.append(now())
        control().check_output("systemctl start relay")

    control().check_output("systemctl stop relay")
    try:
        seen, _ = flow.load("a backlog", 0, BACKLOG, patience=math.inf, when_loaded=release)
    finally:
        control().check_output("systemctl start relay")
    return seen, max(seen.readable.values()) - released[0]


def described(seen: flow.Seen) -> dict[str, Any]:
    """Percentiles of the latency in seconds, CPU seconds per 1,000 rows by unit, and of a fixed loop just before."""
    return {
        "loop": seen.loop,
        "p50": seen.percentile(0.5),
        "p95": seen.percentile(0.95),
        "p99": seen.percentile(0.99),
        "cpu": {unit: 1000 * used / seen.cpu_rows for unit, used in seen.cpu.items()},
    }


def ingest(airflow: Airflow) -> dict[str, float]:
    """From the offline source by the DAG: users, and the seconds until its run was green."""
    run_id = f"bench-{int(time.time())}"
    started = time.monotonic()
    airflow.run("users_ingest", run_id, {"count": INGEST_USERS})
    state = airflow.outcome("users_ingest", run_id, 600)
    assert state == "success", f"{run_id}: {state}"
    return {"users": INGEST_USERS, "seconds": time.monotonic() - started}


def machine(provider: str) -> dict[str, Any]:
    """What everything ran on."""
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(environments.machine_memory_mb() / 1024),
        "kernel": platform.release(),
        "hosts": provider,
    }


if __name__ == "__main__":
    main()
