"""Commands that README.md and CONTRIBUTING.md show, and which test runs each of them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "CONTRIBUTING.md")
# What a command begins with, after variables of its own.
PROGRAMS = re.compile(
    r"(?:\w+=\S+ )*(?:make|scripts/[\w-]+|(?:ansible|terraform|vagrant|molecule|pytest|millrace|nodetool|cqlsh|zkCli|psql|airflow|kafka-[\w-]+)"
    r"|eval|export|cd|source|apt)(?= |$)"
)


def commands() -> set[str]:
    """Every command of the pages: lines of indented blocks less their comments, and code within the text."""
    found = set()
    for page in PAGES:
        # The picture is no command.
        text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
        found |= {
            re.split(r" {2,}#", line.strip())[0].strip()
            for line in re.findall(r"^ {4}.+$", text, re.MULTILINE)
        }
        found |= {" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)}
    return {command for command in found if PROGRAMS.match(command)}
