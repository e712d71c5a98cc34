"""The hosts under test: those of the environment that MILLRACE_ENV names."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from millrace import environment as environments
from millrace import secrets as environment_secrets


@cache
def hosts() -> dict[str, dict[str, Any]]:
    """What the environment says of each host, by name."""
    return {host["name"]: host for host in environments.current().located_hosts()}


@cache
def secrets() -> dict[str, str]:
    """The environment's secrets by name."""
    return environment_secrets.read(environments.current().directory)


def members(service: str) -> list[str]:
    """Names of the hosts that run a service."""
    return [name for name, host in hosts().items() if service in host["services"]]


@cache
def host_named(name: str) -> Host:
    """One host by name, as root."""
    host = hosts()[name]
    return testinfra.get_host(
        f"ssh://{host['user']}@{host['operator_address']}:{host.get('port', 22)}",
        sudo=True,
        ssh_config=str(environments.current().ssh_config()),
    )


SCRIPTS = Path(__file__).parent / "scripts"


def run_script(host: Host, name: str, *arguments: str, folder: Path = SCRIPTS) -> Any:
    """Run a Python file of a folder of scripts on a host with root's logins; return the JSON that it prints."""
    text = (folder / f"{name}.py").read_text()
    answer = host.run(
        "MILLRACE_CONNECTIONS=/etc/millrace/connections/admin.json /opt/millrace/current/bin/python -c %s"
        + " %s" * len(arguments),
        text,
        *arguments,
    )
    assert answer.rc == 0, answer.stderr
    return json.loads(answer.stdout)


def description(host: Host) -> dict[str, Any]:
    """What the environment says of a host."""
    return next(entry for name, entry in hosts().items() if host_named(name) is host)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Keep what failed for the last words of `make test-platform`: Molecule removes the hosts after this, at length."""
    failed = [
        f"{report.nodeid}: {getattr(getattr(report.longrepr, 'reprcrash', None), 'message', report.longreprtext)}"
        for outcome in ("failed", "error")
        for report in terminalreporter.getreports(outcome)
    ]
    # Molecule runs pytest without its cache.
    cache = terminalreporter.config.rootpath / ".pytest_cache"
    cache.mkdir(exist_ok=True)
    (cache / "failed").write_text("".join(f"{line}\n\n" for line in failed))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of `host` runs on every host."""
    if "host" in metafunc.fixturenames:
        metafunc.parametrize("host", list(hosts()), indirect=True)


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Host:
    """Give one host after the other."""
    return host_named(request.param)


@pytest.fixture
def first_of() -> Any:
    """Give the first host that runs a service."""
    return lambda service: host_named(members(service)[0])


@pytest.fixture
def last_of() -> Any:
    """Give the last host that runs a service."""
    return lambda service: host_named(members(service)[-1])
