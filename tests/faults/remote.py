"""Scripts on the host of the operator's commands: installed in a folder of their own, run with root's logins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from testinfra.host import Host

from tests.platform.conftest import host_named, members

SCRIPTS = Path(__file__).parent / "scripts"
FOLDER = "/var/lib/millrace-faults"
ENVIRONMENT = "MILLRACE_CONNECTIONS=/etc/millrace/connections/admin.json"
PYTHON = "/opt/millrace/current/bin/python"


def control() -> Host:
    """The host of the operator's commands: every command that the flow offers runs there."""
    return host_named(members("relay")[0])


def install() -> None:
    """Put the scripts onto the host."""
    control().check_output(f"mkdir -p {FOLDER}")
    for path in SCRIPTS.glob("*.py"):
        control().check_output(f"printf %s %s >{FOLDER}/{path.name}", "%s", path.read_text())


def script(name: str, *arguments: str) -> Any:
    """Run a script to its end; return the JSON that it prints."""
    command = f"{ENVIRONMENT} {PYTHON} {FOLDER}/{name}.py" + " %s" * len(arguments)
    answer = control().run(command, *arguments)
    assert answer.rc == 0, f"{name}: {answer.stderr}"
    return json.loads(answer.stdout)


def start(unit: str, name: str, *arguments: str) -> None:
    """Run a script as a service, until `stop`; where it runs already it goes on."""
    if control().run(f"systemctl is-active -q {unit}").rc:
        control().check_output(
            f"systemd-run -q --collect --unit={unit} -p Restart=always -p RestartSec=1 -p StartLimitIntervalSec=0"
            f" -E {ENVIRONMENT} {PYTHON} {FOLDER}/{name}.py {' '.join(arguments)}"
        )


def stop(*units: str) -> None:
    """End services that `start` began."""
    control().run(f"systemctl stop {' '.join(units)}")


def now() -> float:
    """The time there, in seconds since the epoch."""
    return float(control().check_output("date +%s.%N"))
