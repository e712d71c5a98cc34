"""Submitting the rollup: a program of the host, here a shell script."""

import logging
import os
import time
from datetime import UTC, datetime

import pytest

from millrace.airflow import rollup

WINDOW = datetime(2026, 1, 31, 9, tzinfo=UTC), datetime(2026, 1, 31, 10, tzinfo=UTC)


@pytest.fixture
def program(tmp_path, monkeypatch):
    path = tmp_path / "rollup"
    monkeypatch.setenv("AIRFLOW__MILLRACE__ROLLUP_COMMAND", f"{path} --quiet")

    def write(*lines: str) -> None:
        path.write_text("\n".join(("#!/bin/sh", *lines, "")))
        path.chmod(0o755)

    return write


def test_the_job_gets_the_window_and_its_lines_are_logged(program, caplog) -> None:
    program('echo "got $*"')
    with caplog.at_level(logging.INFO, logger="millrace"):
        rollup.submit(*WINDOW)
    assert "got --quiet 2026-01-31T09:00:00+00:00 2026-01-31T10:00:00+00:00" in caplog.messages


def test_a_job_that_fails_is_an_error_with_its_last_line(program) -> None:
    program("echo starting", "echo the ring is away >&2", "exit 3")
    with pytest.raises(rollup.RollupFailedError, match=r"09:00:00.* ended with 3: the ring is away"):
        rollup.submit(*WINDOW)


def test_a_program_that_is_not_there_is_named(program) -> None:
    with pytest.raises(rollup.RollupFailedError, match=r"rollup can't be started.*--tags spark"):
        rollup.submit(*WINDOW)


def test_a_task_that_is_stopped_takes_the_job_with_it(program, tmp_path, monkeypatch) -> None:
    program(f"echo $$ >{tmp_path}/pid", "echo up", "exec sleep 60")

    class Stopped(BaseException):
        """What ends a task from outside."""

    def stop(*_: object) -> None:
        raise Stopped

    monkeypatch.setattr(rollup.log, "info", lambda text, *_: stop() if text == "%s" else None)
    with pytest.raises(Stopped):
        rollup.submit(*WINDOW)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        os.waitpid(pid, os.WNOHANG)
        time.sleep(0.1)
    pytest.fail("the job still runs")
