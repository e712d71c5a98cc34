"""Hosts on this machine by `terraform apply`: made, told to Ansible as Vagrant's are, left alone by Vagrant, removed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from millrace import environment as environments
from tests.terraform.conftest import ROOT

FOLDER = ROOT / "terraform" / "environments" / "local"
TOPOLOGIES = sorted(path.stem for path in (ROOT / "topologies").glob("*.yml"))

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", params=TOPOLOGIES)
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a command in an environment whose hosts Terraform has made, which is gone afterwards."""
    # What other tests set up would be found first.
    ours = ("MILLRACE_", "ANSIBLE_", "TF_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    variables = clean | {"MILLRACE_ENV": "tf-test", "MILLRACE_TOPOLOGY": request.param}

    def command(*words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            words, cwd=ROOT, env=variables | more, text=True, capture_output=True, check=False
        )
        assert not check or result.returncode == 0, result.stdout + result.stderr
        return result

    command("scripts/down")
    try:
        command("scripts/terraform-hosts", "make")
        yield command
    finally:
        command("scripts/down")
    left = command("lxc-ls", "-1", "--filter", "^tf-test-").stdout
    assert left == ""


def inventory(run: Run, name: str) -> dict[str, Any]:
    """What an inventory gives: groups with their hosts, and each host's variables."""
    listed = json.loads(run("ansible-inventory", "-i", f"inventories/{name}", "--list").stdout)
    return {**listed, "_meta": listed["_meta"]["hostvars"]}


def test_hosts_answer_and_a_second_plan_is_empty(run: Run) -> None:
    answers = run(
        "ansible", "all", "-i", "inventories/terraform", "-m", "ansible.builtin.wait_for_connection"
    )
    assert "UNREACHABLE" not in answers.stdout
    plan = run("terraform", f"-chdir={FOLDER}", "plan", "-input=false", "-detailed-exitcode", check=False)
    assert plan.returncode == 0, plan.stdout + plan.stderr


def test_both_inventories_are_the_same(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same groups and variables, for the same environment, whoever made its hosts."""
    by_terraform = inventory(run, "terraform")
    file = environments.state_directory() / "tf-test" / "environment.yml"
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
