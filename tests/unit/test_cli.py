"""The command line: help everywhere, failures as one line, and the offline source as a process."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing

import click
import pytest
import requests
from click.testing import CliRunner

from millrace.cli import main


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, command in group.commands.items():
        found.append((*path, name))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
def test_every_command_says_what_it_does(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    "arguments", [["relay"], ["migrate", "postgresql"], ["verify"], ["dead-letters", "list"]]
)
def test_a_failure_is_its_reason_and_no_traceback(arguments: list[str], monkeypatch) -> None:
    monkeypatch.delenv("MILLRACE_CONNECTIONS", raising=False)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "Error: no connections file is named" in result.output
    assert "Traceback" not in result.output


def test_help_costs_no_heavy_import() -> None:
    heavy = "import sys, millrace.cli; print({'kafka', 'cassandra', 'psycopg2', 'faker', 'requests'} & set(sys.modules))"
    assert (
        subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout
        == "set()\n"
    )


def test_the_offline_source_serves_until_sigterm(tmp_path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    token = tmp_path / "token"
    token.write_text("secret\n")
    command = [sys.executable, "-m", "millrace.cli", "source", "serve", "--port", str(port)]
    with subprocess.Popen([*command, "--control-token-file", str(token)], env={**os.environ}) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            until = time.monotonic() + 30
            while True:
                try:
                    assert requests.get(f"{url}/healthz", timeout=5).json() == {"status": "ok"}
                    break
                except requests.ConnectionError:
                    assert time.monotonic() < until, "the service did not come up"
                    assert process.poll() is None, "the service ended"
                    time.sleep(0.1)
            answer = requests.get(
                f"{url}/control/fault", headers={"Authorization": "Bearer secret"}, timeout=5
            )
            assert answer.json() == {"kind": None, "count": None}
            taken = subprocess.run(command, check=False, capture_output=True, text=True)
            assert taken.returncode == 1
            assert f"can't listen on 127.0.0.1:{port}" in taken.stderr
            assert "Traceback" not in taken.stderr
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0


def test_an_unreadable_token_is_told(tmp_path) -> None:
    missing = CliRunner().invoke(main, ["source", "serve", "--control-token-file", str(tmp_path / "none")])
    assert missing.exit_code == 1
    assert "can't be read" in missing.output
    (tmp_path / "empty").touch()
    empty = CliRunner().invoke(main, ["source", "serve", "--control-token-file", str(tmp_path / "empty")])
    assert "is empty" in empty.output
