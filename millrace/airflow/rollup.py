"""Submitting the rollup: a Spark job of its own, which the command that the host provides runs to its end."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import subprocess
from collections import deque
from datetime import datetime
from typing import Final

from airflow.sdk.configuration import conf

from millrace.airflow import SECTION
from millrace.errors import MillraceError

log = logging.getLogger(__name__)

# Takes start and end of the window, ends with 0 or says why not.
DEFAULT_COMMAND: Final = "/usr/local/bin/millrace-rollup"
_REMEMBERED_LINES: Final = 20


class RollupFailedError(MillraceError):
    """The job ended with a failure, or could not be started."""


def command(start: datetime, end: datetime) -> list[str]:
    """Return the command line that computes the window [start, end)."""
    program = shlex.split(conf.get(SECTION, "rollup_command", fallback=DEFAULT_COMMAND))
    return [*program, start.isoformat(), end.isoformat()]


def submit(start: datetime, end: datetime) -> None:
    """Compute the window [start, end) of users_per_minute; the job's lines go to the log.

    Raises RollupFailedError with the job's last lines.
    """
    line = command(start, end)
    log.info("starting %s", shlex.join(line))
    last: deque[str] = deque(maxlen=_REMEMBERED_LINES)
    try:
        # A session of its own: a task that is stopped takes the job's whole process group with it.
        job = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
    except OSError as error:
        raise RollupFailedError(
            f"{line[0]} can't be started: {error}. `ansible-playbook site.yml --tags spark` installs it"
        ) from error
    try:
        assert job.stdout is not None  # noqa: S101 - asked for above
        for text in job.stdout:
            log.info("%s", text.rstrip())
            last.append(text.rstrip())
        code = job.wait()
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGTERM)
    if code:
        raise RollupFailedError(
            f"users_rollup, {start.isoformat()} to {end.isoformat()}, ended with {code}: "
            + (last[-1] if last else "without a word")
        )
