"""Form, validity, and the modules' own tests."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.person import ROOT

from .conftest import TERRAFORM, Terraform

MODULES = sorted(f"modules/{path.name}" for path in (TERRAFORM / "modules").iterdir())
ENVIRONMENTS = sorted(f"environments/{path.name}" for path in (TERRAFORM / "environments").iterdir())


def test_files_are_formatted(terraform: Callable[..., Terraform]) -> None:
    terraform("").run("fmt", "-check", "-diff", "-recursive")


@pytest.mark.parametrize("folder", ENVIRONMENTS)
def test_environments_are_valid_and_locked(terraform: Callable[..., Terraform], folder: str) -> None:
    environment = terraform(folder)
    environment.init("-backend=false", "-lockfile=readonly")
    environment.run("validate")


@pytest.mark.parametrize("folder", MODULES)
def test_modules_pass_their_own_tests(terraform: Callable[..., Terraform], folder: str) -> None:
    module = terraform(folder)
    module.init()
    module.run("validate")
    result = module.run("test", "-no-color")
    passed = re.search(r"(\d+) passed, 0 failed", result.stdout)
    assert passed and int(passed[1]) > 0, result.stdout


@pytest.mark.parametrize("folder", MODULES)
def test_every_topology_is_planned(folder: str) -> None:
    tests = "".join(path.read_text() for path in (TERRAFORM / folder).glob("tests/*.tftest.hcl"))
    for path in (ROOT / "topologies").glob("*.yml"):
        assert f"/topologies/{path.name}" in tests


@pytest.mark.parametrize("module", MODULES)
def test_every_rule_of_a_module_is_broken_by_one_run(module: str) -> None:
    """The shape's rules, a single output's precondition, are held to the corpus of test_topology.py."""
    folder = TERRAFORM / module
    rules = sum(
        len(re.findall(r"^ +(?:validation|precondition|postcondition) \{$", path.read_text(), re.MULTILINE))
        for path in folder.glob("*.tf")
    )
    refusals = sum(path.read_text().count("expect_failures") for path in folder.glob("tests/*.tftest.hcl"))
    assert rules == refusals


def test_variables_and_outputs_are_described() -> None:
    for path in TERRAFORM.rglob("*.tf"):
        for block in re.findall(r"^(?:variable|output) .*?^\}", path.read_text(), re.MULTILINE | re.DOTALL):
            assert re.search(r"^  description +=", block, re.MULTILINE), f"{path}: {block.splitlines()[0]}"
            if block.startswith("variable"):
                assert re.search(r"^  type +=", block, re.MULTILINE), f"{path}: {block.splitlines()[0]}"
