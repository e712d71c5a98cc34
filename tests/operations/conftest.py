"""An operator's day on the environment that MILLRACE_ENV names: playbooks run, die, and run again while users flow."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.platform.conftest import host_named, hosts, members
from tests.platform.test_flow import wait_until_readable

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Moment:
    """When a run is killed: some seconds after a task of a play has begun."""

    play: str
    task: str
    seconds: float = 0


@dataclass
class Run:
    """What became of a playbook."""

    code: int
    output: str
    killed: bool = False

    @property
    def changed(self) -> dict[str, int]:
        """How many tasks changed something, by host."""
        return {
            host: int(count)
            for host, count in re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", self.output, re.MULTILINE)
        }


def play(*arguments: str, variables: dict[str, Any] | None = None, until: Moment | None = None) -> Run:
    """Run ansible-playbook to its end, or kill it with all its children at a moment."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), *arguments]
    if variables:
        command += ["--extra-vars", json.dumps(variables)]
    print(f"\n$ {' '.join(command[1:])}", flush=True)
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    begun, at, killer = time.monotonic(), "", None
    for line in process.stdout:
        lines.append(line)
        if found := re.match(r"PLAY \[(.*?)\] \*", line):
            at = found[1]
        elif until and not killer and at == until.play and line.startswith(f"TASK [{until.task}] *"):
            killer = threading.Timer(until.seconds, os.killpg, (process.pid, signal.SIGKILL))
            killer.start()
    code = process.wait()
    run = Run(code, "".join(lines), killed=code == -signal.SIGKILL)
    print(
        f"  {time.monotonic() - begun:.0f} s, exit code {code}, changed {sum(run.changed.values())}",
        flush=True,
    )
    if "\nfatal: " in run.output:
        print(run.output[run.output.index("\nfatal: ") :][:4000], flush=True)
    return run


def completed(run: Run) -> Run:
    """Return a run that must have gone well."""
    assert run.code == 0, run.output[-6000:]
    return run


@dataclass(frozen=True)
class Start:
    """A unit's life: systemd's id of it, and when it last stopped and started, in microseconds."""

    id: str
    stopped: int
    started: int


def starts() -> dict[tuple[str, str], Start]:
    """Every unit of the platform on every host."""
    found = {}
    for name in hosts():
        output = host_named(name).check_output(
            "cd /var/lib/millrace/fingerprints && for unit in *; do systemctl show "
            "-p Id,InvocationID,ActiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic $unit; echo; done"
        )
        for block in output.split("\n\n"):
            shown = dict(line.split("=", 1) for line in block.splitlines())
            found[name, shown["Id"].removesuffix(".service")] = Start(
                shown["InvocationID"],
                int(shown["ActiveExitTimestampMonotonic"]),
                int(shown["ActiveEnterTimestampMonotonic"]),
            )
    return found


def restarted(before: dict[tuple[str, str], Start]) -> dict[str, list[str]]:
    """Units that are not what they were: by unit its hosts, in the order in which they stopped."""
    now = starts()
    found: dict[str, list[str]] = {}
    for key in sorted(now, key=lambda key: now[key].stopped):
        if key not in before or now[key].id != before[key].id:
            found.setdefault(key[1], []).append(key[0])
    return found


def assert_one_by_one(unit: str) -> None:
    """No member stopped before the one that stopped before it had started. (Hosts of one machine share its clock.)"""
    lives = sorted(
        (start for (_, name), start in starts().items() if name == unit), key=lambda start: start.stopped
    )
    for earlier, later in itertools.pairwise(lives):
        assert earlier.started < later.stopped, f"{unit} was away on two hosts at once"


@dataclass
class Flow:
    """Batches that were stored while something else happened."""

    batches: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@contextmanager
def users_flowing() -> Iterator[Flow]:
    """Store a batch every few seconds; at the end every user must be readable, with equal values at every station."""
    control = host_named(members("relay")[0])
    flow, stop = Flow(), threading.Event()
    start = control.check_output("date -u +%Y-%m-%dT%H:%M:%S")

    def store() -> None:
        while not stop.is_set():
            try:
                stored = control.check_output(
                    f"millrace batch store --run-id operations-{uuid.uuid4()} --count 200"
                )
                flow.batches.append(json.loads(stored.splitlines()[-1])["batch_id"])
            except (AssertionError, RuntimeError) as error:  # it was refused; the host is rebooting
                flow.refused.append(str(error))
            stop.wait(3)

    thread = threading.Thread(target=store)
    thread.start()
    try:
        yield flow
    finally:
        stop.set()
        thread.join()
    assert flow.batches, flow.refused
    for batch in flow.batches[-3:]:
        wait_until_readable(control, batch, 240)
    end = control.check_output("date -u -d 'now + 1 second' +%Y-%m-%dT%H:%M:%S")
    time.sleep(1)
    audit = control.run(f"millrace audit --start {start} --end {end}")
    assert audit.rc == 0, audit.stdout + audit.stderr
    print(f"  {len(flow.batches)} batches, {len(flow.refused)} refused; {audit.stdout.strip()}", flush=True)


def assert_whole() -> None:
    """Every service of the platform is whole, as its hosts see it."""
    for name, host in hosts().items():
        for service in ["units", *host["services"]]:
            if service != "depot":
                answer = host_named(name).run(f"millrace health {service} --wait 120")
                assert answer.rc == 0, f"{name}: {answer.stderr}"


@pytest.fixture(scope="session")
def platform() -> None:
    """The whole platform, as site.yml installs it."""
    completed(play("site.yml"))
