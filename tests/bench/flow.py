"""A load and what was seen of it: commits, when they could be read, and the CPU seconds of every unit meanwhile."""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.platform.conftest import host_named, hosts, members
from tests.remote import Scripts, control

SCRIPTS = Scripts(Path(__file__).parent / "scripts", "/var/lib/millrace-bench")
LOAD, WATCH = "bench-load", "bench-watch"
# Seconds between two looks.
STEP = 5.0
# Seconds without a further readable row: it won't come any more.
STANDSTILL = 180.0


@dataclass
class Seen:
    """Times in seconds since the epoch; CPU seconds by unit, over all hosts."""

    rate: float
    began: float
    # What `yardstick` took just before.
    loop: float = 0.0
    commits: list[tuple[float, int]] = field(default_factory=list)
    readable: dict[int, float] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    cpu_rows: int = 0

    @property
    def rows(self) -> int:
        """How many were committed."""
        return sum(rows for _, rows in self.commits)

    @property
    def readable_rows(self) -> int:
        """How many were readable, up to the last commit that was seen to be."""
        return sum(self.commits[number][1] for number in self.readable)

    def behind(self, moment: float) -> float:
        """How late the oldest row is that can't be read yet: since it was due, or, without a rate, since its commit."""
        if self.rate:
            return max(0.0, moment - self.began - self.readable_rows / self.rate)
        waiting = next((number for number in range(len(self.commits)) if number not in self.readable), None)
        return 0.0 if waiting is None else moment - self.commits[waiting][0]

    @property
    def seconds(self) -> float:
        """From the beginning until the last row could be read."""
        return max(self.readable.values()) - self.began

    def latencies(self) -> list[float]:
        """Seconds from commit to readable, of one row of each commit, sorted."""
        return sorted(max(0.0, at - self.commits[number][0]) for number, at in self.readable.items())

    def percentile(self, share: float) -> float:
        """The latency that this share of the commits had at most (nearest rank)."""
        latencies = self.latencies()
        return latencies[max(0, math.ceil(share * len(latencies)) - 1)]

    def series(self) -> dict[str, list[float]]:
        """Rows committed and readable, cumulative, by second since the beginning."""
        end = int(self.seconds) + 1
        committed: Counter[int] = Counter()
        readable: Counter[int] = Counter()
        for number, (at, rows) in enumerate(self.commits):
            committed[int(at - self.began)] += rows
            if number in self.readable:
                readable[int(self.readable[number] - self.began)] += rows
        return {
            "committed": list(itertools.accumulate(committed[second] for second in range(end))),
            "readable": list(itertools.accumulate(readable[second] for second in range(end))),
        }


def cpu() -> Counter[str]:
    """CPU seconds of every unit so far, summed over the hosts."""
    used: Counter[str] = Counter()
    for name in hosts():
        text = (SCRIPTS.here / "cpu.py").read_text()
        used.update(json.loads(host_named(name).check_output("python3 -c %s", text)))
    return used


def yardstick() -> float:
    """CPU seconds of a fixed loop on this machine at rest, the median of five: virtual machines change their speed."""
    seconds = []
    for _ in range(5):
        before = time.process_time()
        for _ in range(5_000_000):
            pass
        seconds.append(time.process_time() - before)
    return statistics.median(seconds)


def settle() -> None:
    """Wait until Cassandra has compacted what earlier loads left: it is not this load's cost."""
    for name in members("cassandra"):
        # With one at work, a table of them follows the figures.
        host_named(name).check_output(
            "timeout 600 sh -c 'while nodetool compactionstats | grep -Eq \"^pending tasks +[1-9]|compaction type\"; do sleep 2; done'"
        )


def look(seen: Seen) -> dict[str, Any]:
    """Read what the load and the watch have written since the last look; return how the load stands."""
    stands: dict[str, Any] = SCRIPTS.run(
        "look", SCRIPTS.there, str(len(seen.commits)), str(len(seen.readable)), LOAD, WATCH
    )
    seen.commits += [(at, rows) for at, rows in stands.pop("commits")]
    seen.readable.update(stands.pop("readable"))
    return stands


def load(
    title: str,
    rate: float,
    amount: float,
    patience: float = 30.0,
    when_loaded: Callable[[], object] = lambda: None,
) -> tuple[Seen, bool]:
    """Store rows at a rate for `amount` seconds, and wait until they can be read; a rate of 0 stores `amount` rows at once.

    Returns what was seen, and whether rows were never more than `patience` seconds late; the load ends when they are.
    `when_loaded` is called once, when all are stored.
    """
    settle()
    loop = yardstick()
    control().check_output(f"rm -f {SCRIPTS.there}/loaded {SCRIPTS.there}/journal {SCRIPTS.there}/readable")
    SCRIPTS.start(WATCH, "watch", SCRIPTS.there, restart=False)
    control().check_output(f"timeout 60 sh -c 'until [ -e {SCRIPTS.there}/readable ]; do sleep 0.2; done'")
    before = cpu()
    SCRIPTS.start(LOAD, "load", SCRIPTS.there, f"{rate:g}", f"{amount:g}", restart=False)
    control().check_output(f"timeout 120 sh -c 'until [ -s {SCRIPTS.there}/journal ]; do sleep 0.2; done'")
    seen = Seen(rate, began=0.0, loop=loop)
    kept_up, known, moved = True, 0, math.inf
    try:
        while True:
            time.sleep(STEP)
            stands = look(seen)
            seen.began = seen.began or seen.commits[0][0]
            behind = seen.behind(stands["now"])
            progress(title, seen, stands["now"] - seen.began, behind)
            kept_up = kept_up and behind <= patience
            ended = stands["loaded"] or not kept_up
            if ended and not seen.cpu:
                seen.cpu, seen.cpu_rows = dict(cpu() - before), seen.readable_rows
                SCRIPTS.stop(LOAD)
                when_loaded()
            for unit, needed in ((LOAD, kept_up and not stands["loaded"]), (WATCH, True)):
                if needed and unit not in stands["running"]:
                    raise AssertionError(
                        f"{unit} ended early: {control().check_output(f'journalctl -u {unit} -n 5 -o cat')}"
                    )
            if ended and (moved == math.inf or len(seen.readable) > known):
                known, moved = len(seen.readable), stands["now"]
            if stands["now"] - moved > STANDSTILL:
                raise AssertionError(f"no further row has become readable for {STANDSTILL:.0f} s")
            if ended and len(seen.readable) == len(seen.commits):
                look(seen)
                if len(seen.readable) == len(seen.commits):
                    break
    finally:
        SCRIPTS.stop(LOAD, WATCH)
        print(file=sys.stderr)
    return seen, kept_up


def progress(title: str, seen: Seen, elapsed: float, behind: float) -> None:
    """Write over the line of the last look."""
    print(
        f"\r{title}: {elapsed:4.0f} s, committed {seen.rows:,}, readable {seen.readable_rows:,}"
        f" ({seen.readable_rows / elapsed:,.0f}/s), {behind:4.1f} s behind   ",
        end="",
        file=sys.stderr,
    )
