"""What a fault hits, named by its part in the flow: a function that finds the units when the fault begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from testinfra.host import Host

from tests.faults.remote import script
from tests.platform.conftest import host_named, hosts, members


@dataclass(frozen=True)
class Unit:
    """A systemd unit on a host; its name is the service's, but for those that are several or come from Debian."""

    host_name: str
    name: str

    @property
    def host(self) -> Host:
        return host_named(self.host_name)


Target = Callable[[], list[Unit]]


def member(service: str, index: int = 0, unit: str = "") -> Target:
    """One member of a service."""
    return lambda: [Unit(members(service)[index], unit or service)]


def postgresql() -> list[Unit]:
    [name] = members("postgresql")
    unit = host_named(name).check_output("systemctl list-units --plain --no-legend 'postgresql@*'").split()[0]
    return [Unit(name, unit)]


def leader() -> list[Unit]:
    """The broker that leads partition 0 of the topic."""
    return [Unit(_cluster()["leaders"]["0"], "kafka")]


def controller() -> list[Unit]:
    """The broker that is the controller."""
    return [Unit(_cluster()["controller"], "kafka")]


def leader_and_another() -> list[Unit]:
    """Two of the brokers."""
    leading = _cluster()["leaders"]["0"]
    another = next(name for name in members("kafka") if name != leading)
    return [Unit(leading, "kafka"), Unit(another, "kafka")]


def executor_worker() -> list[Unit]:
    """A worker that has an executor of the streaming job."""
    for name in members("spark_worker"):
        if host_named(name).run(f"pgrep -f '{EXECUTOR}'").rc == 0:
            return [Unit(name, "spark_worker")]
    raise AssertionError("the streaming job has no executor: `millrace health users_stream`")


# The command line of an executor, as pgrep finds it (and not the shell that asks).
EXECUTOR = "[C]oarseGrainedExecutorBackend"


def addresses(host_names: list[str]) -> list[str]:
    """The addresses by which hosts reach each other."""
    return [str(hosts()[name]["address"]) for name in host_names]


def _cluster() -> Any:
    return script("cluster")
