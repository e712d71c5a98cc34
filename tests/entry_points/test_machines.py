"""What the scripts make of machines that are set up in other ways than this one; programs in the place of those that say so."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a script on a machine with these programs (name=lines of bash); return what it says and its exit status."""

    def with_programs(
        *command: str, terminal: bool = False, variables: dict[str, str] | None = None, **programs: str
    ) -> str:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, lines in programs.items():
            (folder / name).write_text(f"#!/bin/bash\n{lines}\n")
            (folder / name).chmod(0o755)
        # With a terminal, but none to read from: as Vagrant starts scripts.
        words = f"{shlex.join(command)} </dev/null"
        result = subprocess.run(
            ["script", "-qec", words, "/dev/null"] if terminal else ["bash", "-c", words],
            cwd=ROOT,
            env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | (variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            check=False,
        )
        return f"{result.stdout}exit status {result.returncode}"

    return with_programs


USER = 'case $1 in -u) echo 1000 ;; -un) echo person ;; *) exec /usr/bin/id "$@" ;; esac'
# Takes a password, and gives root's rights to who has typed it.
SUDO = """case $1 in
  -n) exit 1 ;;
  -v) echo "[sudo] password for person:" ;;
  -E) "${@:2}" ;;
esac"""


def test_sudo_asks_at_the_terminal(run: Run) -> None:
    said = run("scripts/as-root", "echo", "as root", terminal=True, id=USER, sudo=SUDO)
    assert "as root" in said and "exit status 0" in said, said


def test_sudo_without_a_terminal(run: Run) -> None:
    said = run("scripts/as-root", "echo", "as root", id=USER, sudo=SUDO)
    assert "sudo has no terminal to ask person for a password" in said, said


def test_a_person_without_rights(run: Run) -> None:
    said = run("scripts/as-root", "echo", "as root", terminal=True, id=USER, sudo="exit 1")
    assert "sudo does not give them to person" in said, said


def test_a_persons_own_vagrantfile(run: Run, tmp_path: Path) -> None:
    (tmp_path / "Vagrantfile").write_text(
        'Vagrant.configure("2") { |config| config.ssh.username = "person" }\n'
    )
    said = run("vagrant", "status", variables={"VAGRANT_HOME": str(tmp_path)})
    assert f"{tmp_path}/Vagrantfile is for other hosts" in said, said
