"""The environment of the virtual machine: made by Terraform on a stand-in for AWS, except that the instance is real."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from millrace import environment as environments
from millrace import terraform
from tests.person import ROOT
from tests.platform.conftest import host_named, hosts
from tests.terraform.conftest import (
    MIRROR,
    TERRAFORM,
    Platform,
    Terraform,
    aws,  # noqa: F401
    ec2_of,
    provider_mirror,
)
from tests.terraform.conftest import account as account_variables
from tests.vm.machine import LOOPBACK, PATIENCE, Instance, Machine

HOST = "host"
TIMINGS: list[tuple[str, float]] = []


@contextmanager
def stage(title: str) -> Iterator[None]:
    """Say what goes on, and how long it took: all of it is slow."""
    print(f"\n{time.strftime('%H:%M:%S')}  == {title}", flush=True)
    started = time.monotonic()
    try:
        yield
    finally:
        TIMINGS.append((title, time.monotonic() - started))
        print(f"{time.strftime('%H:%M:%S')}  -- {title}: {TIMINGS[-1][1]:.0f} s", flush=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Where the time went."""
    terminalreporter.section("timings")
    for title, seconds in TIMINGS:
        terminalreporter.write_line(f"{seconds:6.0f} s  {title}")


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """Where disks and state lie, for one run at a time. What a cut-off run left there goes first."""
    cache = environments.cache_directory() / "vm"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "run.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.fail(
                "another run has its virtual machine on this machine: wait for its end", pytrace=False
            )
        run = cache / "run"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        yield run
        shutil.rmtree(run)


@pytest.fixture(scope="session")
def image() -> Path:
    """The folder of the disk that machines start from."""
    with stage("tools and image"):
        built = subprocess.run([ROOT / "scripts/vm-image"], check=True, stdout=subprocess.PIPE, text=True)
    return Path(built.stdout.strip())


@dataclass
class Account:
    """The environment as Terraform made it."""

    platform: Platform
    environment: environments.Environment
    folder: Path
    image: Path
    machines: list[Machine] = field(default_factory=list)

    def apply(self, **variables: str) -> None:
        """Make what is declared, as a person does."""
        environment = {**os.environ, **variables}
        subprocess.run(["scripts/terraform-hosts", "make"], cwd=ROOT, env=environment, check=True)

    def instance(self) -> Instance:
        """The instance of the one host."""
        resources = self.platform.resources()
        mine = resources[f"aws_instance.host[{HOST}]"]
        volume = resources[f"aws_ebs_volume.data[{HOST}]"]
        networks = {
            found["id"]: found["cidr_block"]
            for address, found in resources.items()
            if address.startswith("aws_subnet.")
        }
        size = self.environment.hosts()[0]
        return Instance(
            id=mine["id"],
            address=mine["private_ip"],
            network=networks[mine["subnet_id"]],
            user_data=self.platform.user_data()[HOST],
            memory_mb=size["memory_mb"],
            cpus=size["cpus"],
            volume_id=volume["id"],
            volume_gb=volume["size"],
        )

    def start(self) -> Machine:
        """Start the instance as it is declared now, and let the tests of hosts find it."""
        hosts.cache_clear()
        host_named.cache_clear()
        name, host = next(iter(hosts().items()))
        machine = Machine(self.instance(), self.folder, self.image, self.environment.directory, host["user"])
        self.machines.append(machine)
        # AWS leads a public address to the instance; here a port of this machine does.
        hosts()[name] = host | {"operator_address": LOOPBACK, "port": machine.port}
        machine.attach_volume()
        machine.wait_for_login()
        return machine


@pytest.fixture(scope="session")
def account(folder: Path, image: Path, aws: str) -> Iterator[Account]:  # noqa: F811
    """The environment `vm`, whose state is the test's own; with its machines, it is gone afterwards."""
    mirror = provider_mirror()
    variables = {
        "XDG_STATE_HOME": str(folder / "state"),
        "MILLRACE_ENV": "vm",
        "MILLRACE_TOPOLOGY": "tests/molecule/kafka.yml",
        "MILLRACE_HOSTS": "terraform",
        "MILLRACE_TERRAFORM": "aws",
        **({MIRROR: str(mirror)} if mirror else {}),
        **account_variables(aws),
        # What comes from this machine comes by QEMU's own address in the instance's network.
        "TF_VAR_operator_cidrs": json.dumps(["10.20.0.2/32"]),
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
    }
    with pytest.MonkeyPatch.context() as patch:
        # What a person has set is for other environments.
        for name in os.environ:
            if name.startswith(("MILLRACE_", "ANSIBLE_", "TF_")):
                patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        environment = environments.current(create=True)
        state = environment.directory
        folder_of = Terraform(TERRAFORM / "environments/aws", terraform.data_directory(state), {})
        platform = Platform(folder_of, state / "terraform.tfstate", ec2_of(aws))
        account = Account(platform, environment, folder, image)
        with stage("terraform apply"):
            account.apply()
        try:
            yield account
        finally:
            for machine in account.machines:
                machine.remove()


@pytest.fixture(scope="session")
def machine(account: Account) -> Machine:
    """The first instance, after its first boot."""
    with stage("first boot"):
        return account.start()


def install(machine: Machine) -> str:
    """Run site.yml on the machine as a person does, but for the way to it; what Ansible printed."""
    way = f"ansible_host={LOOPBACK} ansible_port={machine.port}"
    patience = f"systemd_service_timeout={PATIENCE}"
    command = ["ansible-playbook", "site.yml", "-e", way, "-e", patience]
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as ansible:
        assert ansible.stdout
        for line in ansible.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    assert ansible.returncode == 0, "".join(lines[-40:])
    return "".join(lines)
