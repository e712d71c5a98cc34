"""The topology's rules as Terraform knows them: the same corpus, the same words as the Python validator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.person import ROOT

from .conftest import Terraform

CORPUS = sorted((ROOT / "tests" / "topologies").glob("*.yml"))


@pytest.fixture(scope="module")
def module(terraform: Callable[..., Terraform]) -> Terraform:
    module = terraform("modules/topology")
    module.init()
    return module


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_each_fault_is_refused_with_one_message(module: Terraform, path: Path) -> None:
    expected = path.read_text().splitlines()[1].removeprefix("# refused: ")
    faults = module.faults("plan", "-refresh=false", f"-var=topology={path}")
    assert len(faults) == 1, faults
    lines = faults[0].splitlines()
    assert expected in lines[0]
    assert len(lines) == 1, "one fault gives one message"
