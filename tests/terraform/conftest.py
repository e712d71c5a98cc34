"""Terraform with its provider, and a stand-in for AWS on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
TERRAFORM = ROOT / "terraform"
MIRROR = "MILLRACE_TERRAFORM_MIRROR"


@dataclass(frozen=True)
class Terraform:
    """Terraform in one folder of the repository, with its own data beside the tree."""

    folder: Path
    data: Path
    variables: dict[str, str]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command; a failure that nobody expects shows what Terraform said."""
        result = subprocess.run(
            ["terraform", *command],
            cwd=self.folder,
            env={**os.environ, **self.variables, "TF_DATA_DIR": str(self.data), "TF_IN_AUTOMATION": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        if check and result.returncode:
            pytest.fail(f"terraform {' '.join(command)} in {self.folder}:\n{result.stdout}", pytrace=False)
        return result

    def init(self, *options: str) -> None:
        """Install the provider from the mirror if there is one, else from where Terraform is set up to find it."""
        mirror = provider_mirror()
        source = [f"-plugin-dir={mirror}"] if mirror else []
        result = self.run("init", "-input=false", "-no-color", *source, *options, check=False)
        if result.returncode:
            pytest.fail(
                f"terraform init in {self.folder} found no provider, neither a mirror on this machine nor a download."
                f" {MIRROR}=folder names a file-system mirror (`terraform providers mirror folder` makes one)."
                f"\n{result.stdout}",
                pytrace=False,
            )

    def messages(self, *command: str) -> tuple[list[dict[str, Any]], int]:
        """The messages of a command with -json, and its exit code."""
        result = self.run(*command, "-json", check=False)
        lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
        return [json.loads(line) for line in lines], result.returncode

    def faults(self, *command: str) -> list[str]:
        """What a command says is wrong."""
        messages, _ = self.messages(*command)
        found = [message["diagnostic"] for message in messages if message["type"] == "diagnostic"]
        return [fault.get("detail") or fault["summary"] for fault in found]


def provider_mirror() -> Path | None:
    """The file-system mirror that is named, else one in a place where mirrors usually lie."""
    named = os.environ.get(MIRROR)
    if named:
        if not any(Path(named).glob("*/hashicorp/aws")):
            pytest.fail(f"{MIRROR}={named}: the folder holds no provider hashicorp/aws", pytrace=False)
        return Path(named)
    data = [os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"]
    data += (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    # Those that Terraform looks into by itself, then any folder of software beside the system's.
    places = [Path.home() / ".terraform.d/plugins", *(Path(folder) / "terraform/plugins" for folder in data)]
    places += sorted(Path("/opt").glob("*"))
    return next((place for place in places if any(place.glob("*/hashicorp/aws"))), None)


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Terraform]:
    """Make a Terraform for a folder below terraform/."""
    if not shutil.which("terraform"):
        pytest.fail("terraform is not on PATH: install release 1.11 or newer", pytrace=False)

    def make(folder: str, **variables: str) -> Terraform:
        configuration = os.environ.get("TF_CLI_CONFIG_FILE")
        if configuration and not Path(configuration).is_file():
            # Terraform warns of it with every command.
            variables["TF_CLI_CONFIG_FILE"] = ""
        return Terraform(TERRAFORM / folder, tmp_path_factory.mktemp("terraform"), variables)

    return make


@pytest.fixture(scope="session")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A stand-in for AWS (moto's server), which knows one image: its address."""
    folder = tmp_path_factory.mktemp("aws")
    image = {
        "ami_id": "ami-00000000000000012",
        "name": "debian-12-amd64-20260101-0000",
        "description": "Debian 12",
        "owner_id": "136693071363",
        "public": True,
        "virtualization_type": "hvm",
        "architecture": "x86_64",
        "state": "available",
        "platform": None,
        "image_type": "machine",
        "image_location": "debian/12",
        "hypervisor": "xen",
        "root_device_name": "/dev/xvda",
        "root_device_type": "ebs",
        "sriov": "simple",
        "creation_date": "2026-01-01T00:00:00.000Z",
    }
    (folder / "images.json").write_text(json.dumps([image]))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env={**os.environ, "MOTO_AMIS_PATH": str(folder / "images.json")},
            stdout=log,
            stderr=log,
        )
        try:
            for _ in range(60):
                if server.poll() is not None:
                    break
                try:
                    requests.get(f"{address}/moto-api/", timeout=5).raise_for_status()
                    break
                except requests.ConnectionError:
                    time.sleep(0.5)
            else:
                pytest.fail(f"moto's server does not answer:\n{(folder / 'log').read_text()}")
            assert server.poll() is None, (folder / "log").read_text()
            yield address
        finally:
            server.terminate()
            server.wait(timeout=20)
