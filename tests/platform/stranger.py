"""A machine on the hosts' network that belongs to none of them, as a host of another environment is: a network namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from millrace import environment as environments

# Prints which of these answer, also to say that nobody listens: what has come through. Plain Python, for any host.
PROBE = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def answers(target):
    try:
        socket.create_connection(target, 2).close()
    except ConnectionRefusedError:
        pass
    except OSError:
        return False
    return True
targets = [tuple(target) for target in json.loads(sys.argv[1])]
with ThreadPoolExecutor(128) as pool:
    print(json.dumps([target for target, found in zip(targets, pool.map(answers, targets)) if found]))
"""

Target = tuple[str, int]


def answered(text: str) -> set[Target]:
    """The targets that `PROBE` has printed."""
    return {(address, port) for address, port in json.loads(text)}


@dataclass(frozen=True)
class Stranger:
    """The namespace, and its address."""

    name: str
    address: str

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command there."""
        return _root("ip", "netns", "exec", self.name, *command)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command there, and talk to it."""
        return subprocess.Popen(
            [*_sudo(), "ip", "netns", "exec", self.name, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answers(self, targets: list[Target]) -> set[Target]:
        """Which of these (address, TCP port) say anything."""
        result = self.run(sys.executable, "-c", PROBE, json.dumps(targets))
        assert result.returncode == 0, result.stderr
        return answered(result.stdout)

    def neighbours(self) -> set[str]:
        """Addresses that have told their hardware's: those machines are there, and could be reached."""
        lines = _root("ip", "-n", self.name, "neighbour").stdout.splitlines()
        return {line.split()[0] for line in lines if " lladdr " in line}


@contextmanager
def stranger() -> Iterator[Stranger]:
    """Have one for a while. It is on LXC's bridge, with an address of the slice that no environment is given."""
    environment = environments.current()
    network = environments.NETWORKS["lxc"]
    slices = [str(found) for found in network.subnets(new_prefix=environments.SLICE_PREFIX)]
    # Each environment has its own, so that two can be tested at a time.
    address = str(network[20 + slices.index(environment.subnet)])
    name = f"stranger-{environment.name}"
    _root("ip", "netns", "delete", name)
    try:
        for step in (
            f"ip netns add {name}",
            f"ip link add {name[:15]} type veth peer name eth0 netns {name}",
            f"ip link set {name[:15]} master lxcbr0 up",
            f"ip -n {name} link set eth0 up",
            f"ip -n {name} address add {address}/{network.prefixlen} dev eth0",
        ):
            result = _root(*step.split())
            assert result.returncode == 0, f"{step}: {result.stderr}"
        yield Stranger(name, address)
    finally:
        _root("ip", "netns", "delete", name)


def _sudo() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


def _root(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*_sudo(), *command], capture_output=True, text=True, check=False)
