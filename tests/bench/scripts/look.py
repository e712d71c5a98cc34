"""Prints what the load and the watch have written since a number of lines, and how it stands:
look.py FOLDER COMMITS READABLE UNIT..., with the units that are asked whether they run.

One look is one login: a login costs a tenth of a second of CPU, on the machine that is measured.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

folder, commits, readable, units = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]


def lines(name: str, since: int) -> list[list[str]]:
    """Return the fields of the complete lines after the first `since`."""
    text = (folder / name).read_text(encoding="ascii")
    return [line.split("\t") for line in text[: text.rfind("\n") + 1].splitlines()[since:]]


# In this order: what is readable was committed before, and a load may end between two questions.
found = lines("readable", readable)
stored = lines("journal", commits)
running = [
    unit
    for unit in units
    if subprocess.run(["systemctl", "is-active", "-q", unit], check=False).returncode == 0
]
print(
    json.dumps(
        {
            "commits": [(float(at), int(rows)) for _, at, rows, *_ in stored],
            "readable": [(int(number), float(at)) for number, at in found],
            "running": running,
            "loaded": (folder / "loaded").exists(),
            "now": time.time(),
        }
    )
)
