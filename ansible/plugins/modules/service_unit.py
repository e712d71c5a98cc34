"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: service_unit
short_description: Start or restart a unit by its state, and prove that it serves
description:
  - A unit's fingerprint is a hash of its unit file, configuration and release. It is recorded after a start that was
    proven by I(check), so a play that was cut off can't lose a restart, and an unchanged unit is left alone.
  - I(step=start) starts and enables a unit that doesn't run or was never seen to serve. I(step=restart) restarts one that runs with another
    fingerprint than the recorded one; with I(gate) it refuses to begin unless I(check) passes, so that a rollout stops at
    the first member that doesn't come back.
  - On failure the unit's last log lines are in the message.
options:
  name: {description: Name of the unit., type: str, required: true}
  step: {description: What to do., type: str, choices: [start, restart], required: true}
  files: {description: Files and folders whose content makes the fingerprint., type: list, elements: path, default: []}
  links: {description: Links whose target makes the fingerprint, where they exist., type: list, elements: path, default: []}
  check: {description: Command that exits with 0 once the service and its cluster are whole., type: list, elements: str, default: []}
  gate: {description: Others serve while this one restarts, so it must not be taken away from a cluster that isn't whole., type: bool, default: false}
  timeout: {description: Seconds that the check may take to pass., type: int, default: 120}
  reload: {description: Reload instead of restarting., type: bool, default: false}
"""

STATE = Path("/var/lib/millrace/fingerprints")


class UnitError(Exception):
    """A unit that doesn't come up, or a cluster that isn't whole."""


def systemctl(*arguments: str) -> str:
    """Run systemctl and return its output; raises UnitError with what it said."""
    result = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if result.returncode:
        raise UnitError(f"systemctl {' '.join(arguments)}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout.strip()


def properties(unit: str) -> dict[str, str]:
    """Return the unit's state as systemd tells it."""
    output = systemctl("show", "-p", "ActiveState,SubState,UnitFileState,NeedDaemonReload,LoadState", unit)
    return dict(line.split("=", 1) for line in output.splitlines())


def fingerprint(files: list[str], links: list[str]) -> str:
    """Hash paths, rights and contents of everything that the unit runs from."""
    digest = hashlib.sha256()
    for name in sorted(files):
        path = Path(name)
        for found in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if found.is_file():
                digest.update(f"{found}:{found.stat().st_mode:o}:".encode() + found.read_bytes())
    for name in sorted(filter(os.path.islink, links)):
        digest.update(f"{name}:{Path(name).readlink()}".encode())
    return digest.hexdigest()


def log_of(unit: str, since: float) -> str:
    """Return the unit's last log lines since a time in seconds."""
    command = ["journalctl", "-u", unit, "--no-pager", "-o", "cat", "-n", "30", "--since", f"@{int(since)}"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def wait(params: dict, since: float, timeout: int) -> None:
    """Wait until the check passes; raises UnitError with the last answer and the unit's log."""
    unit, check = params["name"], params["check"]
    deadline = time.monotonic() + timeout
    pause = 0.5
    while True:
        state = properties(unit)
        if state["ActiveState"] == "failed":
            raise UnitError(f"{unit} failed. Its last log lines:\n{log_of(unit, since)}")
        said = f"{unit} is {state['ActiveState']} ({state['SubState']})"
        if state["ActiveState"] == "active":
            if not check:
                return
            result = subprocess.run(check, capture_output=True, text=True, check=False)
            if result.returncode == 0:
                return
            said = (result.stderr.strip() or result.stdout.strip())[-2000:]
        if time.monotonic() > deadline:
            raise UnitError(
                f"{unit} does not serve after {timeout} s; the last check said: {said}\n"
                f"Its last log lines:\n{log_of(unit, since)}"
            )
        time.sleep(pause)
        pause = min(pause * 1.3, 3)


def require_whole(params: dict) -> None:
    """Refuse to take a member away from a cluster that isn't whole."""
    deadline = time.monotonic() + 60
    while True:
        result = subprocess.run(params["check"], capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return
        if time.monotonic() > deadline:
            said = (result.stderr.strip() or result.stdout.strip())[-2000:]
            raise UnitError(
                f"{params['name']} is not restarted with its new configuration, because its cluster is not whole: {said}\n"
                "Mend the member that is named, then run this again."
            )
        time.sleep(2)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "step": {"type": "str", "choices": ["start", "restart"], "required": True},
            "files": {"type": "list", "elements": "path", "default": []},
            "links": {"type": "list", "elements": "path", "default": []},
            "check": {"type": "list", "elements": "str", "default": []},
            "gate": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 120},
            "reload": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    unit = params["name"]
    record = STATE / unit
    try:
        wanted = fingerprint(params["files"], params["links"])
        recorded = record.read_text() if record.exists() else None
        state = properties(unit)
        running = state["ActiveState"] in ("active", "reloading")
        enabled = state["UnitFileState"] in ("enabled", "static", "generated")
        action = None
        # One that runs and was never seen to serve has nothing to lose: it may be what keeps its cluster from forming.
        if params["step"] == "start" and (not running or recorded is None):
            action = "restart"
        elif params["step"] == "restart" and running and recorded != wanted:
            action = "reload" if params["reload"] else "restart"
        if module.check_mode:
            module.exit_json(changed=bool(action) or not enabled)

        if state["NeedDaemonReload"] == "yes" or state["LoadState"] == "not-found":
            systemctl("daemon-reload")
        if not enabled:
            systemctl("enable", unit)
        if action:
            if params["step"] == "restart" and params["gate"]:
                require_whole(params)
            since = time.time()
            try:
                systemctl(action, unit)
            except UnitError as error:
                raise UnitError(f"{error}\nIts last log lines:\n{log_of(unit, since)}") from error
            wait(params, since, params["timeout"])
            record.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            record.write_text(wanted)
    except (OSError, UnitError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(action) or not enabled, action=action)


if __name__ == "__main__":
    main()
