"""What README.md shows to be typed beside a running platform, as it stands there."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest

from millrace import environment as environments
from tests.documented import AT_THE_ROOT, ON_A_HOST, REFUSED, ROOT


def typed(command: str) -> subprocess.CompletedProcess[str]:
    """Type it at the root of the repository, after `source .venv/bin/activate`."""
    command = command.replace(f"{environments.DEFAULT_NAME}-", f"{environments.name_from_environment()}-")
    return subprocess.run(
        ["bash", "-c", f"source .venv/bin/activate && {command}"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


@pytest.mark.parametrize("command", AT_THE_ROOT)
def test_at_the_root(command: str) -> None:
    answer = typed(command)
    assert answer.returncode == 0, answer.stdout[-6000:]
    assert answer.stdout.strip()


@pytest.mark.parametrize("command", REFUSED)
def test_who_made_the_hosts_goes_on_making_them(command: str) -> None:
    answer = typed(command)
    assert answer.returncode != 0
    assert "are made by vagrant" in answer.stdout


@pytest.mark.parametrize("command", ON_A_HOST)
def test_on_a_host(command: str, first_of: Any) -> None:
    service, typed_there = ON_A_HOST[command]
    answer = first_of(service).run(f"printf %s {shlex.quote(typed_there)} | bash -lc {shlex.quote(command)}")
    assert answer.rc == 0, answer.stdout + answer.stderr
    assert answer.stdout.strip()
