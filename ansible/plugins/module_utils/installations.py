"""What modules share that install from the depot: where it is, and folders of versions of which one is current."""

from __future__ import annotations

import shutil
from pathlib import Path

# The depot, as an option of a module.
DEPOT = {
    "type": "dict",
    "required": True,
    "options": {
        "url": {"type": "str", "required": True},
        "username": {"type": "str", "required": True},
        "password": {"type": "str", "required": True, "no_log": True},
    },
}


def current(root: Path) -> str | None:
    """Return the name of the folder that ``root/current`` points to."""
    link = root / "current"
    return link.readlink().name if link.is_symlink() else None


def make_current(root: Path, target: Path) -> None:
    """Point ``root/current`` to a folder of it in one step, keep the one before, and remove older ones."""
    previous = current(root)
    new = root / ".current.new"
    new.unlink(missing_ok=True)
    new.symlink_to(target.name)
    new.replace(root / "current")
    for old in root.iterdir():
        if old.is_dir() and not old.is_symlink() and old.name not in (target.name, previous):
            shutil.rmtree(old)
