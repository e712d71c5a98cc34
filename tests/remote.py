"""Scripts on the host of the operator's commands: installed in a folder of their own, run with root's logins."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testinfra.host import Host

from tests.platform.conftest import host_named, members

ENVIRONMENT = "MILLRACE_CONNECTIONS=/etc/millrace/connections/admin.json"
PYTHON = "/opt/millrace/current/bin/python"


def control() -> Host:
    """The host of the operator's commands: every command that the flow offers runs there."""
    return host_named(members("relay")[0])


@dataclass(frozen=True)
class Scripts:
    """The Python files of a folder here, and the folder there that they and what they write lie in."""

    here: Path
    there: str

    def install(self) -> None:
        """Put them onto the host."""
        control().check_output(f"mkdir -p {self.there}")
        for path in self.here.glob("*.py"):
            control().check_output(f"printf %s %s >{self.there}/{path.name}", "%s", path.read_text())

    def run(self, name: str, *arguments: str) -> Any:
        """Run one to its end; return the JSON that it prints."""
        command = f"{ENVIRONMENT} {PYTHON} {self.there}/{name}.py" + " %s" * len(arguments)
        answer = control().run(command, *arguments)
        assert answer.rc == 0, f"{name}: {answer.stderr}"
        return json.loads(answer.stdout)

    def start(self, unit: str, name: str, *arguments: str, restart: bool = True) -> None:
        """Run one as a service, until `stop`; where it runs already it goes on."""
        again = "-p Restart=always -p RestartSec=1 -p StartLimitIntervalSec=0" if restart else ""
        if control().run(f"systemctl is-active -q {unit}").rc:
            control().check_output(
                f"systemd-run -q --collect --unit={unit} {again}"
                f" -E {ENVIRONMENT} {PYTHON} {self.there}/{name}.py {' '.join(arguments)}"
            )

    @staticmethod
    def stop(*units: str) -> None:
        """End services that `start` began."""
        control().run(f"systemctl stop {' '.join(units)}")


def now() -> float:
    """The time there, in seconds since the epoch."""
    return float(control().check_output("date +%s.%N"))


def boot(name: str) -> str:
    """What tells a host's boots apart, also a container's: when its first process started. Empty while it can't be asked."""
    try:
        return host_named(name).run("cut -d' ' -f22 /proc/1/stat").stdout.strip()
    except RuntimeError:
        return ""
