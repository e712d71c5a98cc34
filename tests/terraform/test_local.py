"""Hosts on this machine by `terraform apply`: made, told to Ansible as Vagrant's are, left alone by Vagrant, removed."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.person import ROOT, Run, person

from .conftest import inventory

TOPOLOGIES = sorted((ROOT / "topologies").glob("*.yml"))
# What a path may hold, through shell, Terraform, Ansible, ssh and rsync; the same one for the run after one that was cut off.
STATE = Path(tempfile.gettempdir(), "millrace tf-test's ü\"")
# A line more in any topology.
BROKER = {"index": 29, "size": "small", "rack": "rack1", "ids": {"kafka": 9}, "services": ["kafka"]}
FOR_OTHER_HOSTS = """\
Host *
  ProxyJump nowhere.invalid
  Port 2222
  User nobody
  RemoteCommand true
  RequestTTY force
  PubkeyAuthentication no
  StrictHostKeyChecking yes
  ControlPath /nowhere/%C
  LocalForward 127.0.0.1:1 127.0.0.1:1
"""


@pytest.fixture(scope="module", params=TOPOLOGIES, ids=lambda path: path.stem)
def topology(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of the topologies after the other, as a person's own file."""
    return Path(shutil.copy(request.param, tmp_path_factory.mktemp("topology")))


@pytest.fixture(scope="module")
def run(topology: Path) -> Iterator[Run]:
    """Run a command in an environment whose hosts Terraform has made, which is gone afterwards."""
    command = person(MILLRACE_ENV="tf-test", MILLRACE_TOPOLOGY=str(topology), XDG_STATE_HOME=str(STATE))
    person(MILLRACE_ENV="tf-test", XDG_STATE_HOME=str(STATE))("scripts/down")
    try:
        command("scripts/terraform-hosts", "make")
        yield command
    finally:
        command("scripts/down")
        shutil.rmtree(STATE, ignore_errors=True)
    left = command("lxc-ls", "-1", "--filter", "^tf-test-").stdout
    assert left == ""


def test_hosts_answer_and_a_second_plan_is_empty(run: Run) -> None:
    answers = run(
        "ansible", "all", "-i", "inventories/terraform", "-m", "ansible.builtin.wait_for_connection"
    )
    assert "UNREACHABLE" not in answers.stdout
    plan = run(
        "bash",
        "-c",
        'exports=$(scripts/terraform-hosts prepare) && eval "$exports" && cd terraform/environments/local'
        " && terraform plan -input=false -no-color -detailed-exitcode",
        check=False,
    )
    assert plan.returncode == 0, plan.stdout + plan.stderr


def test_both_inventories_are_the_same(run: Run) -> None:
    """The same groups and variables, for the same environment, whoever made its hosts."""
    by_terraform = inventory(run, "terraform")
    file = STATE / "millrace/tf-test" / "environment.yml"
    text = file.read_text()
    try:
        file.write_text(text.replace("made_by: terraform", "made_by: vagrant"))
        by_vagrant = inventory(run, "vagrant")
    finally:
        file.write_text(text)
    assert by_terraform == by_vagrant
    assert len(by_terraform["_meta"]) >= 1


def test_vagrant_leaves_them_alone(run: Run) -> None:
    refused = run("vagrant", "up", "--no-provision", check=False)
    assert refused.returncode != 0
    assert "made by terraform" in refused.stderr
    refused = run("ansible-inventory", "-i", "inventories/vagrant", "--list", check=False)
    assert refused.returncode != 0
    assert "made by terraform" in refused.stderr


def test_a_host_that_is_there_is_not_made_again(run: Run) -> None:
    name = next(iter(inventory(run, "terraform")["_meta"])).removeprefix("tf-test-")
    refused = run("scripts/lxc-hosts", "make", name, check=False)
    assert refused.returncode != 0
    assert "is there already" in refused.stderr


@pytest.mark.parametrize("topology", [ROOT / "topologies" / "single.yml"], ids=["single"], indirect=True)
def test_another_person_has_hosts_of_their_own_beside_them(run: Run, tmp_path: Path) -> None:
    """Whose state lies elsewhere, at a path of every sort, and whose ssh is set up for other hosts altogether."""
    state = tmp_path / 'it\'s a "folder" of Jörg, 100%d'
    other = person(
        XDG_STATE_HOME=str(state), MILLRACE_ENV="tf-other", MILLRACE_TOPOLOGY="tests/molecule/base.yml"
    )
    for words in (["scripts/terraform-hosts", "make"], ["scripts/down"]):
        refused = other(*words, check=False, MILLRACE_ENV="tf-test")
        assert refused.returncode != 0
        assert str(STATE / "millrace" / "tf-test") in refused.stderr, "who has it is said"
    try:
        other("scripts/lxc-hosts", "make")
        ping = ("ansible", "all", "-m", "ansible.builtin.wait_for_connection")
        settings = tmp_path / "ssh_config"
        settings.write_text(FOR_OTHER_HOSTS)
        # ssh reads the machine's settings as it does a person's own, which can't be set up for a test.
        hidden = 'mount --bind "$1" /etc/ssh/ssh_config; exec setpriv --reuid "$2" --regid "$3" --init-groups "${@:4}"'
        wanted = (str(settings), str(os.getuid()), str(os.getgid()))
        within = ("scripts/as-root", "unshare", "-m", "bash", "-ec", hidden, "_", *wanted)
        assert "proxyjump nowhere.invalid" in other(*within, "ssh", "-G", "host").stdout
        other(*within, "ansible", *ping[1:])
        addresses = [
            host["ansible_host"]
            for hosts in (inventory(other, "vagrant"), inventory(run, "terraform"))
            for host in hosts["_meta"].values()
        ]
        assert len(set(addresses)) == len(addresses)
    finally:
        other("scripts/down")
    assert run("lxc-ls", "-1", "--filter", "^tf-(test|other)-").stdout.split() == ["tf-test-single"]


def test_a_host_line_adds_one_host(run: Run, topology: Path) -> None:
    """The others go on running, and the roles' argument specs accept what the inventory then says of each."""
    boots = (
        "ansible",
        "all",
        "-i",
        "inventories/terraform",
        "-o",
        "-a",
        "cut -d' ' -f22 /proc/1/stat /etc/machine-id",
    )
    before = run(*boots).stdout.splitlines()
    grown = yaml.safe_load(topology.read_text())
    grown["hosts"]["broker"] = BROKER
    topology.write_text(yaml.safe_dump(grown, sort_keys=False))
    run("scripts/terraform-hosts", "make")
    hosts = inventory(run, "terraform")
    assert hosts["_meta"]["tf-test-broker"]["host_ids"] == {"kafka": 9}
    assert "tf-test-broker" in hosts["kafka"]["hosts"]
    after = run(*boots).stdout.splitlines()
    assert set(before) < set(after)
    assert len(after) == len(before) + 1
    played = run("ansible-playbook", "-i", "inventories/terraform", "site.yml", "--tags", "always")
    checked = re.findall(r"TASK \[(\w+) : Validating arguments", played.stdout)
    assert "kafka" in checked, played.stdout
    assert re.search(
        r"^tf-test-broker +: ok=\d+ +changed=0 +unreachable=0 +failed=0", played.stdout, re.MULTILINE
    )
