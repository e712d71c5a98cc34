"""Terraform with its provider, and a stand-in for AWS on loopback."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

from tests.person import ROOT, Run

TERRAFORM = ROOT / "terraform"
MIRROR = "MILLRACE_TERRAFORM_MIRROR"
REGION = "eu-central-1"
IMAGE = {
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


def inventory(run: Run, name: str) -> dict[str, Any]:
    """What an inventory gives: groups with their hosts, and each host's variables."""
    text = run("ansible-inventory", "-i", f"inventories/{name}", "--list").stdout
    # What comes from outside is marked, and is meant as the text that it is.
    listed = json.loads(text, object_hook=lambda value: value.get("__ansible_unsafe", value))
    return {**listed, "_meta": listed["_meta"]["hostvars"]}


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
            said = result.stdout[-4000:]
            pytest.fail(f"terraform {' '.join(command)} in {self.folder}:\n{said}", pytrace=False)
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


@dataclass
class Platform:
    """The environment under test, its state and the account that it is made in."""

    terraform: Terraform
    state: Path
    ec2: Any

    def plan(self, *options: str) -> Counter[str]:
        """How many resources a plan would create, update, delete, replace."""
        messages, code = self.terraform.messages("plan", *options)
        assert code == 0, messages
        return Counter(
            message["change"]["action"] for message in messages if message["type"] == "planned_change"
        )

    def resources(self) -> dict[str, dict[str, Any]]:
        """Address without module => attributes, of what the state holds."""
        return {
            f"{resource['type']}.{resource['name']}[{instance.get('index_key')}]": instance["attributes"]
            for resource in json.loads(self.state.read_text())["resources"]
            if resource["mode"] == "managed"
            for instance in resource["instances"]
        }

    def user_data(self) -> dict[str, str]:
        """Host => the script of its first boot, as the account holds it."""
        return {
            address.split("[")[1].rstrip("]"): base64.b64decode(
                self.ec2.describe_instance_attribute(InstanceId=attributes["id"], Attribute="userData")[
                    "UserData"
                ]["Value"]
            ).decode()
            for address, attributes in self.resources().items()
            if address.startswith("aws_instance.")
        }


def account(aws: str) -> dict[str, str]:
    """What leads Terraform to the stand-in, and what a person has to say."""
    return {
        "AWS_ENDPOINT_URL": aws,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "TF_VAR_region": REGION,
        "TF_VAR_operator_cidrs": json.dumps(["203.0.113.7/32"]),
    }


def ec2_of(aws: str) -> Any:
    """The stand-in's EC2, to ask it what it holds."""
    return boto3.client(
        "ec2",
        region_name=REGION,
        endpoint_url=aws,
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - of a stand-in
    )


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
    """A stand-in for AWS (moto's server) on loopback, which knows one image: its address."""
    images = tmp_path_factory.mktemp("aws") / "images.json"
    images.write_text(json.dumps([IMAGE]))
    with pytest.MonkeyPatch.context() as patch:
        # Read when moto is imported.
        patch.setenv("MOTO_AMIS_PATH", str(images))
        from moto.ec2.responses.instances import InstanceResponse
        from moto.moto_server.threaded_moto_server import ThreadedMotoServer

        start = InstanceResponse.run_instances

        def run_instances(response: Any) -> Any:
            """Moto overlooks this when an instance starts, though it honours it afterwards."""
            started = start(response)
            for instance in started.result.instances:
                instance.disable_api_termination = response._get_param("DisableApiTermination") or False
            return started

        patch.setattr(InstanceResponse, "run_instances", run_instances)
        # A line for each of thousands of requests.
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()
