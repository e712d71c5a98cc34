"""Filters of the wiring."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError


def locked_release(name: str, repository: str) -> dict[str, Any]:
    """Return what role systemd_service takes as a release: its entry in releases.yml, its name and its locked files."""
    artifacts = Path(repository, "artifacts")
    releases = yaml.safe_load((artifacts / "releases.yml").read_text())
    lock = artifacts / "locks" / f"{name}.json"
    if name not in releases:
        raise AnsibleFilterError(f"artifacts/releases.yml has no release {name!r}")
    if not lock.exists():
        raise AnsibleFilterError(f"{lock} is missing: `make locks` writes it")
    return {**releases[name], "name": name, "manifest": json.loads(lock.read_text())}


class FilterModule:
    """What Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {"locked_release": locked_release}
