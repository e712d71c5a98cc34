"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import hashlib
import os
import re
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
  - I(step=start) enables a unit, and starts it where it doesn't run. It returns I(restart), whether the unit is to be
    restarted, and I(last), whether that is to be done after all other members. A unit that runs what is wanted and was not
    seen to serve since is only waited for. One that runs something else, was not seen to serve with it and doesn't pass
    I(check), has nothing to lose and is started anew at once.
  - I(step=restart) restarts it. With I(gate) it refuses to begin unless I(check) passes, so that a rollout stops at the
    first member that doesn't come back. Without, it lets I(check) have its time once, and goes on whatever that says; what
    has just lost its workers has then done something for its users before it is away itself.
  - With I(reload) it is reloaded instead, unless I(unit_file) has changed, which takes a new start to be in force.
  - On failure the unit's log says why in the message. A unit that keeps dying is not waited for.
options:
  name: {description: Name of the unit., type: str, required: true}
  step: {description: What to do., type: str, choices: [start, restart], required: true}
  unit_file: {description: The unit's file or drop-in, whose content is in the fingerprint too., type: path}
  files: {description: Files and folders whose content makes the fingerprint., type: list, elements: path, default: []}
  links: {description: Links whose target makes the fingerprint, where they exist., type: list, elements: path, default: []}
  restart: {description: Restart it even where nothing has changed., type: bool, default: false}
  check: {description: Command that exits with 0 once the service and its cluster are whole., type: list, elements: str, default: []}
  gate: {description: Others serve while this one restarts, so it must not be taken away from a cluster that isn't whole., type: bool, default: false}
  last: {description: Command that exits with 0 where other members are to restart first., type: list, elements: str, default: []}
  timeout: {description: Seconds that the check may take to pass., type: int, default: 120}
  reload: {description: "Reload instead of restarting, where that is enough.", type: bool, default: false}
"""

STATE = Path("/var/lib/millrace/fingerprints")
# The record of a unit that was not seen to serve since it was told to start: this, and the fingerprint then.
TRIED = "tried "
# Of one that never was: there is no record.
NEVER = TRIED
ERROR = re.compile(r"\b(ERROR|FATAL|CRITICAL|PANIC)\b|Exception\b|\berror:|has run here before")
# How often a unit may die before it is given up; systemd would start it for ever.
DEATHS = 3
# A check may itself wait for a peer that hangs.
CHECK_SECONDS = 60


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
    names = "ActiveState,SubState,UnitFileState,NeedDaemonReload,LoadState,NRestarts,ActiveEnterTimestampMonotonic"
    output = systemctl("show", "-p", names, unit)
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
    """Return what the unit's log says since a time in seconds: its last errors, and its last lines."""
    command = ["journalctl", "-u", unit, "--no-pager", "-o", "cat", "--since", f"@{int(since)}"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().splitlines()
    # What a stack trace would push out of sight; each once, although it may have died several times of it.
    errors = list(dict.fromkeys(line for line in lines if ERROR.search(line)))[-8:]
    said = "\n".join(lines[-20:])
    return (
        f"Errors in its log:\n{chr(10).join(errors)}\nIts last log lines:\n{said}"
        if errors
        else f"Its last log lines:\n{said}"
    )


def passes(check: list[str]) -> tuple[bool, str]:
    """Whether a check passes, and the end of what it said."""
    try:
        result = subprocess.run(check, capture_output=True, text=True, check=False, timeout=CHECK_SECONDS)
    except subprocess.TimeoutExpired:
        return False, f"`{' '.join(check)}` gave no answer within {CHECK_SECONDS} s"
    return result.returncode == 0, (result.stderr.strip() or result.stdout.strip())[-2000:]


def wait(params: dict, since: float) -> None:
    """Wait until the check passes; raises UnitError with the last answer and the unit's log."""
    unit, check, timeout = params["name"], params["check"], params["timeout"]
    deadline = time.monotonic() + timeout
    pause = 0.5
    restarts = int(properties(unit)["NRestarts"])
    while True:
        state = properties(unit)
        deaths = int(state["NRestarts"]) - restarts
        if state["ActiveState"] == "failed":
            raise UnitError(f"{unit} failed. {log_of(unit, since)}")
        if deaths >= DEATHS:
            raise UnitError(f"{unit} has died {deaths} times since its start. {log_of(unit, since)}")
        said = f"{unit} is {state['ActiveState']} ({state['SubState']})"
        if state["ActiveState"] == "active":
            whole, said = passes(check) if check else (True, "")
            if whole:
                return
        if time.monotonic() > deadline:
            raise UnitError(
                f"{unit} does not serve after {timeout} s; the last check said: {said}\n{log_of(unit, since)}"
            )
        time.sleep(pause)
        pause = min(pause * 1.3, 3)


def require_whole(params: dict) -> None:
    """Refuse to take a member away from a cluster that isn't whole."""
    deadline = time.monotonic() + 60
    while True:
        whole, said = passes(params["check"])
        if whole:
            return
        if time.monotonic() > deadline:
            raise UnitError(
                f"{params['name']} is not restarted, because its cluster is not whole: {said}\n"
                "Mend the member that is named, then run this again."
            )
        time.sleep(2)


def act(params: dict, action: str, record: Path, wanted: str) -> None:
    """Restart or reload the unit, and record what it serves with once that is proven."""
    unit = params["name"]
    since = time.time()
    if record.exists():
        # It was seen to serve, with something else. Where there is no record, it never was: services go by that.
        record.write_text(TRIED + wanted)
    try:
        systemctl(action, unit)
    except UnitError as error:
        raise UnitError(f"{error}\n{log_of(unit, since)}") from error
    prove(params, since, record, wanted)


def prove(params: dict, since: float, record: Path, wanted: str) -> None:
    """Wait until the unit serves, and record with what."""
    wait(params, since)
    record.write_text(wanted)


def have_records() -> None:
    """Have the records' folder, where each service may see whether it has one."""
    for folder in (STATE.parent, STATE):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o755)


def started_since(record: Path, state: dict[str, str]) -> bool:
    """Whether the unit started after its record was written: a play may be cut off between the two."""
    entered = int(state["ActiveEnterTimestampMonotonic"]) / 1e6
    return time.clock_gettime(time.CLOCK_MONOTONIC) - entered < time.time() - record.stat().st_mtime


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "step": {"type": "str", "choices": ["start", "restart"], "required": True},
            "unit_file": {"type": "path"},
            "files": {"type": "list", "elements": "path", "default": []},
            "links": {"type": "list", "elements": "path", "default": []},
            "restart": {"type": "bool", "default": False},
            "check": {"type": "list", "elements": "str", "default": []},
            "gate": {"type": "bool", "default": False},
            "last": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "int", "default": 120},
            "reload": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    # Services look at their records, whatever root's own umask is here.
    os.umask(0o022)
    params = module.params
    unit = params["name"]
    record = STATE / unit
    try:
        # Apart from the rest, because it tells whether a reload is enough.
        own = fingerprint([params["unit_file"]], []) if params["unit_file"] else ""
        wanted = f"{own}:{fingerprint(params['files'], params['links'])}"
        recorded = record.read_text() if record.exists() else NEVER
        state = properties(unit)
        running = state["ActiveState"] in ("active", "reloading")
        enabled = state["UnitFileState"] in ("enabled", "static", "generated")
        changed = restart = params["restart"] or recorded != wanted
        if params["step"] == "start":
            # Others may be why it was not seen to serve: to start it anew could take a member from a cluster that lacks one.
            unproven = (
                running
                and recorded == TRIED + wanted
                and state["NeedDaemonReload"] != "yes"
                and started_since(record, state)
            )
            # One that runs something else and doesn't serve may be what keeps its cluster from forming.
            start = not running or (
                not unproven
                and recorded.startswith(TRIED)
                and not (params["check"] and passes(params["check"])[0])
            )
            changed = start or not enabled
            restart = params["restart"] if unproven else restart and not start
        if module.check_mode:
            module.exit_json(changed=changed, restart=restart, last=False)

        have_records()
        if state["NeedDaemonReload"] == "yes" or state["LoadState"] == "not-found":
            systemctl("daemon-reload")
        if not enabled:
            systemctl("enable", unit)
        if params["step"] == "start" and unproven:
            prove(params, record.stat().st_mtime, record, wanted)
        elif params["step"] == "start" and start:
            act(params, "restart", record, wanted)
        elif params["step"] == "restart" and restart:
            if params["gate"]:
                require_whole(params)
            elif params["check"]:
                # There a job that has just lost its workers waits until it has committed.
                passes(params["check"])
            enough = (
                params["reload"]
                and not params["restart"]
                and recorded.removeprefix(TRIED).startswith(f"{own}:")
            )
            act(params, "reload" if enough else "restart", record, wanted)
        last = restart and bool(params["last"]) and passes(params["last"])[0]
    except (OSError, UnitError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=changed, restart=restart, last=last)


if __name__ == "__main__":
    main()
