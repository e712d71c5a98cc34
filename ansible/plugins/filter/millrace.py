"""Filters of the wiring."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

from millrace.topology import Catalogue


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


def openings(host: str, hosts: dict[str, Any], operator_cidrs: list[str]) -> list[dict[str, Any]]:
    """Return what role firewall opens on a host: see `Catalogue.openings`."""
    return Catalogue.load().openings(host, hosts, operator_cidrs)


def passages(host: str, hosts: dict[str, Any], operator_cidrs: list[str]) -> list[dict[str, Any]]:
    """Return what shows each other host's firewall to this one: a port that lets it in, and one that does not.

    Each has the other `host`, its `address`, the `name` of the opening, the `port`, and whether it is `open`.
    """
    catalogue, mine = Catalogue.load(), ipaddress.ip_network(hosts[host]["address"])
    found = {}
    for other in sorted(hosts.keys() - {host}):
        for opening in catalogue.openings(other, hosts, operator_cidrs):
            networks = [ipaddress.ip_network(source) for source in opening["sources"]]
            admitted = any(
                mine.version == network.version and mine.subnet_of(network) for network in networks
            )
            found.setdefault(
                (other, admitted),
                {
                    "host": other,
                    "address": hosts[other]["address"],
                    "name": opening["name"],
                    "port": opening["first"],
                    "open": admitted,
                },
            )
    return list(found.values())


class FilterModule:
    """What Ansible finds here."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name the filters."""
        return {"locked_release": locked_release, "openings": openings, "passages": passages}
