"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import contextlib
import difflib
import errno
import grp
import os
import pwd
import stat
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

# Characters of a file that are read; none that is installed has as many.
LARGEST = 1 << 24

DOCUMENTATION = """
module: managed_files
short_description: Own a set of folders and files
description:
  - Makes folders and files as listed, each file replaced in one step, in one call for all of them (a loop costs a
    connection per file). A file that its own checker refuses is not installed.
  - Files in the folders that are marked I(exclusive) and are not listed are removed.
  - A folder that was another user's takes what is in it along, less what is root's. Users of services have no fixed numbers,
    so on a host made anew its old volume may seem to be anybody's.
  - Some of the folders are services', whose users may put anything there at any time, links to root's files too. Everything is
    done by descriptors, and a link is followed only where nobody but root could have put it.
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

# As many links as a path may lead over.
LINKS = 40


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


class Descriptors(contextlib.ExitStack):
    """Folders by descriptor: what is done with one is done to that folder, whatever its path leads to by then."""

    def folder(self, path: Path, *, make: bool = False) -> int | None:
        """Open a folder, made with its parents where I may; None where there is none.

        A link on the way is followed where only root could have put it; raises OSError at any other.
        """
        here = self._keep(os.open("/", os.O_RDONLY))
        ahead = list(path.parts[1:])
        links = 0
        while ahead:
            name = ahead.pop(0)
            try:
                kind = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
            except FileNotFoundError:
                if not make:
                    return None
                os.mkdir(name, 0o755 if ahead else 0o700, dir_fd=here)
                kind = stat.S_IFDIR
            if stat.S_ISLNK(kind):
                links += 1
                if not self._only_roots(here) or links > LINKS:
                    raise OSError(
                        f"{path}: {name} is a link that others than root could have put there; it is not followed"
                    )
                target = Path(os.readlink(name, dir_fd=here))
                if target.is_absolute():
                    here = self._keep(os.open("/", os.O_RDONLY))
                ahead = [part for part in target.parts if part != "/"] + ahead
            else:
                here = self._keep(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here))
        return here

    def _keep(self, descriptor: int) -> int:
        self.callback(os.close, descriptor)
        return descriptor

    @staticmethod
    def _only_roots(folder: int) -> bool:
        found = os.fstat(folder)
        return found.st_uid == 0 and not found.st_mode & 0o022


def same_rights(descriptor: int, entry: dict) -> bool:
    """Whether owner, group and mode are as listed."""
    found = os.fstat(descriptor)
    return (
        found.st_uid == pwd.getpwnam(entry["owner"]).pw_uid
        and found.st_gid == grp.getgrnam(entry["group"]).gr_gid
        and stat.S_IMODE(found.st_mode) == int(entry["mode"], 8)
    )


def set_rights(descriptor: int, entry: dict) -> None:
    """Give owner, group and mode."""
    os.fchown(descriptor, pwd.getpwnam(entry["owner"]).pw_uid, grp.getgrnam(entry["group"]).gr_gid)
    os.fchmod(descriptor, int(entry["mode"], 8))


def folder(entry: dict, change: Change) -> None:
    """Have one folder."""
    path = Path(entry["path"])
    with Descriptors() as descriptors:
        found = descriptors.folder(path)
        if found is not None and same_rights(found, entry):
            return
        change.note(path, [f"folder {path} {entry['owner']}:{entry['group']} {entry['mode']}\n"])
        if change.module.check_mode:
            return
        made = descriptors.folder(path, make=True) if found is None else found
        take_along(made, entry)
        set_rights(made, entry)


def take_along(descriptor: int, entry: dict) -> None:
    """Give what is in a folder from its former owner to the new one; the folder itself last, so that it can be cut off."""
    former = os.fstat(descriptor)
    if former.st_uid in (0, pwd.getpwnam(entry["owner"]).pw_uid):
        return
    command = ["chown", "--recursive", "--no-dereference", f"--from={former.st_uid}:{former.st_gid}"]
    result = subprocess.run(
        [*command, f"{entry['owner']}:{entry['group']}", f"/proc/self/fd/{descriptor}/."],
        capture_output=True,
        text=True,
        check=False,
        pass_fds=[descriptor],
    )
    if result.returncode:
        raise OSError(f"{entry['path']}: {result.stderr.strip()}")


def file(entry: dict, change: Change) -> None:
    """Have one file with this content."""
    path = Path(entry["path"])
    with Descriptors() as descriptors:
        parent = descriptors.folder(path.parent)
        before, same = (None, False) if parent is None else content(parent, path.name, entry)
        if before == entry["content"] and same:
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
        if parent is None:
            raise FileNotFoundError(f"{path}: its folder is missing")
        replace(parent, path, entry)


def content(parent: int, name: str, entry: dict) -> tuple[str | None, bool]:
    """Return a file's text, None where there is none, and whether its rights are as listed."""
    try:
        # Not to wait for who writes into a pipe.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP):
            return None, False
        raise
    # Its owner may have put anything there, of any size.
    with os.fdopen(descriptor, encoding="utf-8", errors="replace", newline="") as handle:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None, False
        return handle.read(LARGEST), same_rights(descriptor, entry)


def replace(parent: int, path: Path, entry: dict) -> None:
    """Put a new file into the place of what is there, in one step."""
    new = f".{path.name}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(new, dir_fd=parent)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=parent)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as handle:
        handle.write(entry["content"])
        handle.flush()
        set_rights(descriptor, entry)
        os.fsync(descriptor)
    try:
        refuse_unsound(path.with_name(new), entry)
    except OSError:
        os.unlink(new, dir_fd=parent)
        raise
    os.replace(new, path.name, src_dir_fd=parent, dst_dir_fd=parent)


def refuse_unsound(new_path: Path, entry: dict) -> None:
    """Ask the file's own checker, where there is one; raises OSError with what it said."""
    if not entry["check"]:
        return
    command = [part.replace("%s", str(new_path)) for part in entry["check"]]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        said = (result.stderr.strip() or result.stdout.strip())[-2000:]
        raise OSError(f"{entry['path']} is left as it was, because its new content is not sound: {said}")


def remove_others(entry: dict, listed: set[str], change: Change) -> None:
    """Remove files in an exclusive folder that are not listed."""
    path = Path(entry["path"])
    with Descriptors() as descriptors:
        here = descriptors.folder(path)
        for name in sorted(os.listdir(here)) if here is not None else []:  # noqa: PTH208 - of a descriptor
            kind = os.stat(name, dir_fd=here, follow_symlinks=False).st_mode
            if str(path / name) not in listed and not stat.S_ISDIR(kind):
                change.note(path / name, [f"remove {path / name}\n"])
                if not change.module.check_mode:
                    os.unlink(name, dir_fd=here)


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
    # Folders on the way to a listed one are everybody's to pass, whatever root's own umask is here.
    os.umask(0o022)
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
