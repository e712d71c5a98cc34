"""The hosts that Terraform has made, from the output of its environment's folder."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from millrace import topology as topologies

# Folder of terraform/environments -> the provider of its hosts.
PROVIDERS = {"local": "lxc", "aws": "aws"}


class TerraformFault(Exception):
    """Hosts that Terraform does not tell as the topology has them, with the cause and the fix."""


def provider_from_environment() -> str:
    """The provider of the folder that MILLRACE_TERRAFORM names, by default the one of hosts on this machine."""
    asked = os.environ.get("MILLRACE_TERRAFORM") or "local"
    if asked not in PROVIDERS:
        raise TerraformFault(f"MILLRACE_TERRAFORM={asked!r} is not one of {', '.join(PROVIDERS)}")
    return PROVIDERS[asked]


def folder(provider: str) -> Path:
    """Where the hosts of a provider are declared."""
    name = next(name for name, found in PROVIDERS.items() if found == provider)
    return topologies.ROOT / "terraform" / "environments" / name


def data_directory(state: Path) -> Path:
    """Where Terraform keeps its own data for the environment whose state lies there."""
    return state / "terraform"


def provisioned(hosts: list[dict[str, Any]], where: Path, state: Path) -> list[dict[str, Any]]:
    """Return the hosts of an environment with the addresses and users that Terraform gave them.

    `where` is the folder that declares them, `state` where the environment's state lies.

    Raises TerraformFault when there is no output, or when it holds other hosts than the topology.
    """
    output = read(where, state)["hosts"]
    wanted, found = {host["name"] for host in hosts}, set(output)
    if wanted != found:
        raise TerraformFault(
            f"{where}: Terraform has made {', '.join(sorted(found)) or 'no hosts'}, the topology has"
            f" {', '.join(sorted(wanted))}; run `scripts/terraform-hosts make`"
        )
    keys = ("address", "operator_address", "user")
    return [host | {key: output[host["name"]][key] for key in keys} for host in hosts]


def operator_cidrs(where: Path, state: Path) -> list[str]:
    """Return the networks that Terraform was told the hosts are operated from; raises TerraformFault where it was not."""
    output = read(where, state)
    if "operator_cidrs" not in output:
        raise TerraformFault(
            f"{where}: Terraform tells no operator_cidrs; run `scripts/terraform-hosts make`"
        )
    return sorted(output["operator_cidrs"])


def read(where: Path, state: Path) -> dict[str, Any]:
    """Return Terraform's outputs by name; `hosts` has addresses, user and topology entry of every host, by name."""
    command = ["terraform", f"-chdir={where}", "output", "-no-color", "-json"]
    try:
        result = subprocess.run(
            command,
            env={**os.environ, "TF_DATA_DIR": str(data_directory(state))},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise TerraformFault(
            "terraform is not on PATH, and it knows where this environment's hosts are"
        ) from error
    outputs = {} if result.returncode else json.loads(result.stdout)
    if "hosts" not in outputs:
        raise TerraformFault(
            f"{where}: Terraform tells no hosts; run `scripts/terraform-hosts make` first. It says: {result.stderr.strip()}"
        )
    return {name: output["value"] for name, output in outputs.items()}
