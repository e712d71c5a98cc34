"""`vagrant up` alone: hosts, and what Vagrant's provisioner installs on them; with one small host of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = "typed"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run() -> Iterator[Run]:
    """Run a command in an environment of its own, which is gone afterwards."""
    variables = {"MILLRACE_ENV": ENVIRONMENT, "MILLRACE_TOPOLOGY": "tests/molecule/offline_source.yml"}

    def in_it(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            words, cwd=ROOT, env=os.environ | variables, text=True, capture_output=True, check=False
        )
        assert not check or result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
        return result

    in_it("make", "down")
    yield in_it
    in_it("make", "down")
    assert in_it("lxc-ls", "-1", "--filter", f"^{ENVIRONMENT}-").stdout == ""


def test_vagrant_up_installs_what_the_topology_says(run: Run) -> None:
    made = run("vagrant", "up")
    assert "failed=0" in made.stdout
    host = f"{ENVIRONMENT}-host"
    said = run("vagrant", "ssh", host, "--", "sudo -i millrace health offline_source").stdout
    assert said.strip()
