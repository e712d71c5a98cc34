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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from millrace import environment as environments
from tests.faults import flow, remote
from tests.faults.flow import longest_gap
from tests.platform.conftest import host_named, hosts
from tests.remote import now

ENVIRONMENT = "operations"
ROOT = Path(__file__).resolve().parents[2]


def pytest_configure() -> None:
    name = environments.name_from_environment()
    if name != ENVIRONMENT:
        raise pytest.UsageError(
            f"hosts of environment {ENVIRONMENT!r} are operated and no others, this is {name!r}: run `make test-operations`"
        )


@dataclass(frozen=True)
class Moment:
    """When something happens to a run: some seconds after a task of a play has begun."""

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


def play(
    *arguments: str,
    variables: dict[str, Any] | None = None,
    until: Moment | None = None,
    meanwhile: tuple[Moment, Callable[[], object]] | None = None,
) -> Run:
    """Run ansible-playbook to its end, or kill it with all its children at a moment; or do something else then."""
    command = [str(Path(sys.executable).with_name("ansible-playbook")), *arguments]
    if variables:
        command += ["--extra-vars", json.dumps(variables)]
    print(f"\n$ {' '.join(command[1:])}", flush=True)
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    moment, act = meanwhile or (until, partial(os.killpg, process.pid, signal.SIGKILL))
    begun, at, timer = time.monotonic(), "", None
    for line in process.stdout:
        lines.append(line)
        if found := re.match(r"PLAY \[(.*?)\] \*", line):
            at = found[1]
        elif moment and not timer and at == moment.play and line.startswith(f"TASK [{moment.task}] *"):
            timer = threading.Timer(moment.seconds, act)
            timer.start()
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
    """What became of rows while something else happened: the longest times in seconds without a further committed row, and
    without a further readable one."""

    without_commit: float = 0.0
    without_progress: float = 0.0


@contextmanager
def users_flowing() -> Iterator[Flow]:
    """Rows flow at a steady rate; at the end each must be in every table once, with its values."""
    remote.install()
    flow.begin()
    try:
        # A platform that has just been installed takes a minute or two for its first rows.
        assert flow.wait_until_steady(flow.last_batch() + 1, now() - flow.LAG, 180), "rows don't flow"
        first, began = flow.last_batch() + 1, now()
        found = Flow()
        yield found
        over = now()
        # A host that was rebooted has forgotten.
        flow.begin()
        assert flow.wait_until_steady(first, over, 240), "rows are late four minutes after it was over"
        batches = flow.batches(first)
        found.without_commit = longest_gap(batches.committed.values(), began, over)
        found.without_progress = longest_gap(batches.readable.values(), began, over)
        seen = flow.checked(first)
    finally:
        flow.end()
    print(
        f"  {seen['committed']} users, {found.without_commit:.0f} s without a further committed one,"
        f" {found.without_progress:.0f} s without a further readable one",
        flush=True,
    )
    assert flow.wrong(seen) == []


# Seconds without a further readable row that a restart of a service, member by member, may cost; the streaming job takes
# longest to start. Times PATIENCE. A row is committed whatever restarts, unless it is PostgreSQL.
# With control, PostgreSQL and the job's driver reboot.
PAUSE = {"reboot": 150, "zookeeper": 20, "kafka": 40, "cassandra": 40, "relay": 30, "postgresql": 60}
LONGEST_PAUSE, COMMIT_PAUSE = 90, 10


def assert_flowing(seen: Flow, service: str) -> None:
    """Rows went on while members of a service restarted."""
    assert seen.without_progress <= PAUSE.get(service, LONGEST_PAUSE) * flow.PATIENCE
    if service != "postgresql":
        assert seen.without_commit <= COMMIT_PAUSE * flow.PATIENCE


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


@pytest.fixture(scope="session")
def applied() -> dict[str, Any]:
    """The variables that tests have set so far: a run of the whole site.yml without one of them would take it back."""
    return {}
