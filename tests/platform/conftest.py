"""The hosts under test, as the inventory gives them."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

REPOSITORY = Path(__file__).resolve().parents[2]
INVENTORY = REPOSITORY / "inventories" / "vagrant"


@cache
def inventory() -> dict[str, Any]:
    """Groups, hosts and their variables."""
    command = ["ansible-inventory", "-i", str(INVENTORY), "--list"]
    listing: dict[str, Any] = json.loads(subprocess.check_output(command, cwd=REPOSITORY))
    return listing


def members(group: str) -> list[str]:
    """Names of the hosts in a group."""
    return list(inventory().get(group, {}).get("hosts", []))


@cache
def host_named(name: str) -> Host:
    """One host by name."""
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={INVENTORY}")


@pytest.fixture
def first_of() -> Any:
    """Give the first host of a group."""
    return lambda group: host_named(members(group)[0])


@pytest.fixture
def last_of() -> Any:
    """Give the last host of a group."""
    return lambda group: host_named(members(group)[-1])
