"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import difflib
import grp
import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: managed_files
short_description: Own a set of folders and files
description:
  - Makes folders and files as listed, each file replaced in one step, in one call for all of them (a loop costs a
    connection per file). A file that its own checker refuses is not installed.
  - Files in the folders that are marked I(exclusive) and are not listed are removed.
  - A folder that was another user's takes what is in it along, less what is root's. Users of services have no fixed numbers,
    so on a host made anew its old volume may seem to be anybody's.
  - The difference of a file that not everybody may read is never shown.
options:
  folders:
    description: Folders to have.
    type: list
    elements: dict
    default: []
    options:
      path: {description: Where., type: path, required: true}
      owner: {description: User., type: str, default: root}
      group: {description: Group., type: str, default: root}
      mode: {description: "Mode, octal.", type: str, default: "0755"}
      exclusive: {description: Remove the files in it that are not listed., type: bool, default: false}
  files:
    description: Files to have.
    type: list
    elements: dict
    default: []
    options:
      path: {description: Where., type: path, required: true}
      content: {description: The whole text., type: str, required: true}
      owner: {description: User., type: str, default: root}
      group: {description: Group., type: str, default: root}
      mode: {description: "Mode, octal.", type: str, default: "0644"}
      check:
        description: "Command that exits with 0 where the file is sound; %s stands for the path of the new file."
        type: list
        elements: str
        default: []
"""


class Change:
    """What this run changes, for the report."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.paths: list[str] = []
        self.diff: list[str] = []

    def note(self, path: Path, lines: list[str]) -> None:
        """Record a changed path with the lines that show how."""
        if str(path) not in self.paths:
            self.paths.append(str(path))
        self.diff += lines


def same_rights(path: Path, entry: dict) -> bool:
    """Whether owner, group and mode are as listed."""
    found = path.stat()
    return (
        found.st_uid == pwd.getpwnam(entry["owner"]).pw_uid
        and found.st_gid == grp.getgrnam(entry["group"]).gr_gid
        and stat.S_IMODE(found.st_mode) == int(entry["mode"], 8)
    )


def set_rights(path: Path, entry: dict) -> None:
    """Give owner, group and mode."""
    shutil.chown(path, entry["owner"], entry["group"])
    path.chmod(int(entry["mode"], 8))


def folder(entry: dict, change: Change) -> None:
    """Have one folder."""
    path = Path(entry["path"])
    if path.is_dir() and same_rights(path, entry):
        return
    change.note(path, [f"folder {path} {entry['owner']}:{entry['group']} {entry['mode']}\n"])
    if not change.module.check_mode:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        take_along(path, entry)
        set_rights(path, entry)


def take_along(path: Path, entry: dict) -> None:
    """Give what is in a folder from its former owner to the new one; the folder itself last, so that it can be cut off."""
    former = path.stat()
    if former.st_uid in (0, pwd.getpwnam(entry["owner"]).pw_uid):
        return
    command = ["chown", "--recursive", "--no-dereference", f"--from={former.st_uid}:{former.st_gid}"]
    result = subprocess.run(
        [*command, f"{entry['owner']}:{entry['group']}", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        raise OSError(f"{path}: {result.stderr.strip()}")


def file(entry: dict, change: Change) -> None:
    """Have one file with this content."""
    path = Path(entry["path"])
    before = path.read_text() if path.is_file() else None
    if before == entry["content"] and same_rights(path, entry):
        return
    if before == entry["content"]:
        change.note(path, [f"rights of {path}: {entry['owner']}:{entry['group']} {entry['mode']}\n"])
    elif int(entry["mode"], 8) & 0o004:
        old, new = (before or "").splitlines(keepends=True), entry["content"].splitlines(keepends=True)
        change.note(path, list(difflib.unified_diff(old, new, f"{path} (before)", f"{path} (after)")))
    else:
        change.note(path, [f"{path}: content changes (not shown: it may hold a secret)\n"])
    if change.module.check_mode:
        return
    new_path = path.with_name(f".{path.name}.new")
    new_path.unlink(missing_ok=True)
    with os.fdopen(os.open(new_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(entry["content"])
    set_rights(new_path, entry)
    refuse_unsound(new_path, entry)
    new_path.replace(path)


def refuse_unsound(new_path: Path, entry: dict) -> None:
    """Ask the file's own checker, where there is one; raises OSError with what it said."""
    if not entry["check"]:
        return
    command = [part.replace("%s", str(new_path)) for part in entry["check"]]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        new_path.unlink()
        said = (result.stderr.strip() or result.stdout.strip())[-2000:]
        raise OSError(f"{entry['path']} is left as it was, because its new content is not sound: {said}")


def remove_others(entry: dict, listed: set[str], change: Change) -> None:
    """Remove files in an exclusive folder that are not listed."""
    path = Path(entry["path"])
    for found in sorted(path.iterdir()) if path.is_dir() else []:
        if str(found) not in listed and not found.is_dir():
            change.note(found, [f"remove {found}\n"])
            if not change.module.check_mode:
                found.unlink()


def main() -> None:
    """Run the module."""
    rights = {
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
    }
    path = {"type": "path", "required": True}
    module = AnsibleModule(
        argument_spec={
            "folders": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": path,
                    **rights,
                    "mode": {"type": "str", "default": "0755"},
                    "exclusive": {"type": "bool", "default": False},
                },
            },
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": path,
                    # Kept out of the host's log and of verbose output.
                    "content": {"type": "str", "required": True, "no_log": True},
                    **rights,
                    "mode": {"type": "str", "default": "0644"},
                    "check": {"type": "list", "elements": "str", "default": []},
                },
            },
        },
        supports_check_mode=True,
    )
    change = Change(module)
    try:
        for entry in module.params["folders"]:
            folder(entry, change)
        for entry in module.params["files"]:
            file(entry, change)
        listed = {entry["path"] for entry in module.params["files"]}
        for entry in module.params["folders"]:
            if entry["exclusive"]:
                remove_others(entry, listed, change)
    except (OSError, KeyError, LookupError) as error:
        module.fail_json(msg=f"managed_files: {error}")
    module.exit_json(changed=bool(change.paths), paths=change.paths, diff={"prepared": "".join(change.diff)})


if __name__ == "__main__":
    main()
