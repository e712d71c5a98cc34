"""The hosts that Terraform has made, from the output of its environment's folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from millrace import topology as topologies

# The folder of terraform/environments for each provider.
FOLDERS = {"lxc": "local", "aws": "aws"}


class OutputError(Exception):
    """What Terraform tells of its hosts is not what the topology says."""


def folder(provider: str) -> Path:
    """Where the hosts of a provider are declared."""
    return topologies.ROOT / "terraform" / "environments" / FOLDERS[provider]


def provisioned(hosts: list[dict[str, Any]], where: Path) -> list[dict[str, Any]]:
    """Return the hosts of an environment with the addresses and users that Terraform gave them.

    Raises OutputError when there is no output, or when it holds other hosts than the topology.
    """
    output = read(where)
    wanted, found = {host["name"] for host in hosts}, set(output)
    if wanted != found:
        raise OutputError(
            f"{where}: Terraform has made {', '.join(sorted(found)) or 'no hosts'}, the topology has"
            f" {', '.join(sorted(wanted))}; run `terraform apply` there"
        )
    return [host | {key: output[host["name"]][key] for key in ("address", "user")} for host in hosts]


def read(where: Path) -> dict[str, dict[str, Any]]:
    """Return Terraform's output `hosts`: address and user of every host, by name."""
    command = ["terraform", f"-chdir={where}", "output", "-json", "hosts"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise OutputError("terraform is not on PATH: it knows the addresses of this environment's hosts") from error
    if result.returncode:
        raise OutputError(
            f"{where}: Terraform tells no hosts; run `terraform apply` there first. It says: {result.stderr.strip()}"
        )
    hosts: dict[str, dict[str, Any]] = json.loads(result.stdout)
    return hosts
