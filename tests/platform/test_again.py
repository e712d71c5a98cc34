"""`make up` over a platform that stands: this is the second run of everything."""

from __future__ import annotations

import re
import subprocess

from tests.documented import ROOT


def test_making_it_again_changes_nothing_and_brings_a_further_batch() -> None:
    made = subprocess.run(
        ["make", "up"], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    print(made.stdout)
    assert made.returncode == 0, made.stdout[-6000:]
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", made.stdout, re.MULTILINE)
    assert recap
    assert {host: changed for host, changed in recap if changed != "0"} == {}, [
        line for line in made.stdout.splitlines() if re.match(r"TASK|changed:", line)
    ]
