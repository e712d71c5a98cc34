"""`vagrant up` alone: hosts, and what Vagrant's provisioner installs on them; with one small host of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.person import Run, person

ENVIRONMENT = "typed"


@pytest.fixture
def run() -> Iterator[Run]:
    """Run a command in an environment of its own, which is gone afterwards."""
    in_it = person(MILLRACE_ENV=ENVIRONMENT, MILLRACE_TOPOLOGY="tests/molecule/offline_source.yml")
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
