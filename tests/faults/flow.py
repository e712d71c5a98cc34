"""The steady flow under the faults: rows that are stored, when they could be read, and what has become of them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.faults.remote import FOLDER, control, now, script, start, stop

# Rows of a batch, and seconds between two of them. Everything shares few cores: this is a flow, not a load test.
ROWS, INTERVAL = 50, 2.0
# All bounds are for a machine that has nothing else to do. On one that has, they are this many times as long.
PATIENCE = float(os.environ.get("PATIENCE", "1"))
# Seconds from commit to readable that need no explanation.
LAG = 10.0 * PATIENCE
LOAD, WATCH = "faults-load", "faults-watch"


def begin() -> None:
    """Have rows flow, if they don't yet (a host that was rebooted has forgotten)."""
    control().check_output(f"touch {FOLDER}/journal {FOLDER}/readable")
    start(LOAD, "load", FOLDER, str(ROWS), str(INTERVAL))
    start(WATCH, "watch", FOLDER)


def end() -> None:
    """Store no more rows."""
    stop(LOAD, WATCH)


@dataclass(frozen=True)
class Batches:
    """Batches by number: when they were committed, and when they could be read. Seconds since the epoch."""

    asked: float
    committed: dict[int, float]
    readable: dict[int, float]

    def late(self) -> bool:
        """Whether rows don't flow, or one is not readable that should be."""
        newest = max(self.committed.values(), default=0.0)
        waiting = self.committed.keys() - self.readable.keys()
        return self.asked - newest > LAG or any(
            self.asked - self.committed[number] > LAG for number in waiting
        )

    def without_progress(self, since: float, until: float) -> float:
        """The longest time in which no further batch could be read."""
        return longest_gap(self.readable.values(), since, until)

    def caught_up(self, since: float) -> float:
        """How long after `since` the last batch that was late could be read."""
        late = [
            at for number, at in self.readable.items()
            if number in self.committed and at - self.committed[number] > LAG
        ]  # fmt: skip
        return max([0.0, *(at - since for at in late)])


def longest_gap(moments: Iterable[float], since: float, until: float) -> float:
    """The longest time between two moments, of those within these bounds."""
    within = sorted({since, until, *(at for at in moments if since < at < until)})
    return max((after - before for before, after in itertools.pairwise(within)), default=0.0)


def last_batch() -> int:
    """The number of the newest batch, -1 where there is none."""
    line = control().check_output(f"tail -n 1 {FOLDER}/journal").split()
    return int(line[0]) if line else -1


def batches(first: int) -> Batches:
    """What is known of the batches from this number on."""

    # What is readable comes first: it was committed before.
    files = f"{FOLDER}/readable {FOLDER}/journal"
    asked, *lines = (
        control()
        .check_output(f"date +%s.%N; awk '$1 >= {first} {{print FILENAME, $1, $2}}' {files}")
        .splitlines()
    )
    found: dict[str, dict[int, float]] = {"journal": {}, "readable": {}}
    for line in lines:
        path, number, moment = line.split()
        found[Path(path).name][int(number)] = float(moment)
    return Batches(float(asked), found["journal"], found["readable"])


def wait_until_steady(first: int, since: float, seconds: float) -> bool:
    """Wait until no row is late, and one is readable that was committed well after `since`: before, nothing can be late yet.

    Say whether that came within this time (times PATIENCE) and the wait that it takes at best.
    """
    deadline = time.monotonic() + seconds * PATIENCE + LAG
    while True:
        seen = batches(first)
        newest = max((seen.committed.get(number, 0.0) for number in seen.readable), default=0.0)
        if newest > since + LAG and not seen.late():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(1)


def checked(first: int) -> dict[str, Any]:
    """Compare what was committed from batch `first` on with every table."""
    last = last_batch()
    wanted = set(range(first, last + 1))
    wait_for(lambda: wanted <= batches(first).readable.keys(), 120, "not every batch could be read")
    answer: dict[str, Any] = script("check", FOLDER, str(first), str(last))
    return answer


def wrong(seen: dict[str, Any]) -> list[str]:
    """What `checked` saw that must not be."""
    names = ("lost", "doubled", "different", "quarantined", "dead_letters")
    return [f"{name}: {seen[name]}" for name in names if seen[name]]


def counted(began: float) -> dict[str, Any]:
    """Have the rollup count the minutes since `began`, compare it with PostgreSQL, and audit all rows of these minutes."""
    start = datetime.fromtimestamp(began, UTC).replace(second=0, microsecond=0)
    # Minutes that are over can be counted, once their rows are readable.
    time.sleep(60 - now() % 60)
    end = datetime.fromtimestamp(now(), UTC).replace(second=0, microsecond=0)
    last = last_batch()
    wait_for(lambda: last in batches(last).readable, 120, "rows of the last minute are late")
    bounds = (start.isoformat(), end.isoformat())
    rolled_up = control().run("millrace-rollup %s %s", *bounds)
    assert rolled_up.rc == 0, f"millrace-rollup: {(rolled_up.stdout + rolled_up.stderr)[-2000:]}"
    answer: dict[str, Any] = script("count", *bounds)
    audited = control().run("millrace audit --start %s --end %s", f"{start:%FT%T}", f"{end:%FT%T}")
    assert audited.rc == 0, audited.stderr
    return answer


def wait_for(asked: Callable[[], object], seconds: float, otherwise: str) -> None:
    """Wait until this is true; fail with `otherwise` after this time (times PATIENCE)."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not asked():
        assert time.monotonic() < deadline, otherwise
        time.sleep(1)
