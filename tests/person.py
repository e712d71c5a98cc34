"""Commands as a person types them in this clone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[..., subprocess.CompletedProcess[str]]


def person(**variables: str) -> Run:
    """Run commands at the root of the repository as a person does, who has these variables in the shell."""
    # What other tests set up would be found first.
    ours = ("MILLRACE_", "ANSIBLE_", "TF_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)} | variables

    def run(*words: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        result = subprocess.run(
            words, cwd=ROOT, env=clean | more, text=True, capture_output=True, check=False
        )
        assert not check or result.returncode == 0, result.stdout[-6000:] + result.stderr[-6000:]
        return result

    return run
