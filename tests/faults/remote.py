"""The scripts of this folder, on the host of the operator's commands."""

from pathlib import Path

from tests.remote import Scripts, control, now

__all__ = ["FOLDER", "control", "install", "now", "script", "start", "stop"]

SCRIPTS = Scripts(Path(__file__).parent / "scripts", "/var/lib/millrace-faults")
FOLDER = SCRIPTS.there
install, script, start, stop = SCRIPTS.install, SCRIPTS.run, SCRIPTS.start, SCRIPTS.stop
