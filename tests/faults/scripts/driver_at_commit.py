"""kill -9 of the streaming job with a batch written and not committed; prints the batch's number as JSON.

Spark writes a commit as a temporary file that it renames. The moment is between the two: it is met by looking without a
pause, and tried again where it was missed.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from millrace import connections

TRIES = 20
checkpoint = Path(connections.load().spark_cluster.checkpoint)


def processes() -> list[int]:
    """Return the process ids of the streaming job, the JVM among them."""
    group = subprocess.check_output(
        ["systemctl", "show", "-p", "ControlGroup", "--value", "users_stream.service"], text=True
    ).strip()
    [tasks] = [
        path
        for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd")
        if (path := Path(f"{root}{group}/cgroup.procs")).exists()
    ]
    return [int(line) for line in tasks.read_text().split()]


def newest(folder: str) -> int:
    """Return the number of the last batch that the log has."""
    return max(
        (int(path.name) for path in (checkpoint / folder).iterdir() if path.name.isdigit()), default=-1
    )


def temporary() -> set[str]:
    """Return the names of commits that are being written, or that were cut off."""
    return {path.name for path in (checkpoint / "commits").iterdir() if path.name.endswith(".tmp")}


for _ in range(TRIES):
    deadline = time.monotonic() + 120
    before = newest("commits")
    # Running, with a batch of this process behind it.
    while newest("commits") == before:
        if time.monotonic() > deadline:
            sys.exit("the streaming job commits nothing")
        time.sleep(0.2)
    found = processes()
    left_over = temporary()
    while True:
        done = newest("commits")
        if temporary() - left_over:
            break
        if time.monotonic() > deadline:
            sys.exit("the streaming job commits nothing")
    for process in found:
        with contextlib.suppress(ProcessLookupError):  # Java forks for some of its work with files
            os.kill(process, signal.SIGKILL)
    # Neither renamed, nor the next batch begun.
    if newest("commits") == done and newest("offsets") == done + 1:
        json.dump({"batch": newest("offsets")}, sys.stdout)
        break
else:
    sys.exit(f"the moment was missed {TRIES} times")
