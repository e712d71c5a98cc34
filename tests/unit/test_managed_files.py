"""The Ansible module managed_files, as root beside another user who owns the folder that it writes into."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[2] / "ansible" / "plugins" / "modules" / "managed_files.py"
# A user who may not enter this clone may still run this one.
PYTHON = Path(sys.executable).resolve()

# As root: the module's functions, and who is to own what they make.
MODULE_LOADED = f"""
import contextlib, importlib.util, sys, time
from types import SimpleNamespace

spec = importlib.util.spec_from_file_location("managed_files", {str(MODULE)!r})
managed_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(managed_files)
change = managed_files.Change(SimpleNamespace(check_mode=False))
rights = {{"owner": "nobody", "group": "nogroup"}}
file = {{"check": [], "mode": "0666", **rights}}
"""
# What it does with a file and a folder in nobody's folder, again and again.
MODULE_RUNS = """
end = time.monotonic() + 1.5
runs = 0
while time.monotonic() < end:
    runs += 1
    # What it refuses is no harm.
    with contextlib.suppress(OSError):
        managed_files.file({"path": sys.argv[1] + "/file", "content": f"{runs}", **file}, change)
    with contextlib.suppress(OSError):
        managed_files.folder({"path": sys.argv[1] + "/folder", "mode": "0777", **rights}, change)
    with contextlib.suppress(OSError):
        managed_files.file({"path": sys.argv[1] + "/folder/file", "content": f"{runs}", **file}, change)
print(runs)
"""
# Writes a file, or says why not.
MODULE_WRITES = """
try:
    managed_files.file({"path": sys.argv[1], "content": "written", **file}, change)
except OSError as error:
    print(error)
"""
# As nobody: links to root's secrets in the place of what the module writes and looks at.
RACER = """
import contextlib, os, sys
own, secrets = sys.argv[1:]
os.chdir(own)
print("ready", flush=True)
while True:
    with contextlib.suppress(OSError):
        os.unlink(".file.new")
    with contextlib.suppress(OSError):
        os.symlink(secrets + "/secret", ".file.new")
    with contextlib.suppress(OSError):
        os.rename("folder", "kept") if not os.path.islink("folder") else os.unlink("folder")
    with contextlib.suppress(OSError):
        os.symlink(secrets, "folder")
    with contextlib.suppress(OSError):
        os.unlink("folder")
    with contextlib.suppress(OSError):
        os.rename("kept", "folder") if os.path.isdir("kept") else os.mkdir("folder")
"""


def as_user(name: str, *command: str | Path) -> list[str | Path]:
    """The command line that runs a command as a user, asking for no password."""
    return [
        *([] if os.geteuid() == 0 else ["sudo", "-n"]),
        "setpriv",
        f"--reuid={name}",
        "--clear-groups",
        *command,
    ]


@pytest.fixture
def places() -> Iterator[tuple[Path, Path]]:
    """A folder of nobody's, and one of root's with a secret, in a folder that everybody may pass."""
    root = Path(tempfile.mkdtemp(prefix="millrace-links-"))
    root.chmod(0o755)
    own, secrets = root / "own", root / "secrets"
    subprocess.run(as_user("root", "install", "-d", "-o", "nobody", "-g", "nogroup", own), check=True)
    subprocess.run(as_user("root", "install", "-d", "-m", "0711", secrets), check=True)
    subprocess.run(as_user("root", "install", "-m", "0600", "/dev/null", secrets / "secret"), check=True)
    yield own, secrets
    subprocess.run(as_user("root", "rm", "-rf", own, secrets), check=True)
    root.rmdir()


def as_root(script: str, path: Path) -> str:
    """Run a script with the module on a path; return what it printed."""
    command = as_user("root", sys.executable, "-c", MODULE_LOADED + script, path)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_link_in_a_service_s_folder_leads_root_nowhere(places: tuple[Path, Path]) -> None:
    """Who owns the folder swaps its files for links to root's, as quickly as he can: what they lead to stays as it is."""
    own, secrets = places
    look = as_user("root", "find", secrets, "-printf", "%P %u %m %s\\n")
    before = subprocess.run(look, check=True, capture_output=True, text=True).stdout
    with subprocess.Popen(
        as_user("nobody", PYTHON, "-c", RACER, own, secrets), stdout=subprocess.PIPE
    ) as racer:
        racer.stdout.readline()
        runs = as_root(MODULE_RUNS, own)
        subprocess.run(as_user("root", "kill", str(racer.pid)), check=True)
    assert int(runs) > 20
    after = subprocess.run(look, check=True, capture_output=True, text=True).stdout
    assert after == before


def test_a_file_of_a_service_s_user_may_hold_anything(places: tuple[Path, Path]) -> None:
    own, _ = places
    for bytes_there in (r"\377", r"written\r"):
        subprocess.run(as_user("nobody", "sh", "-c", f"printf '{bytes_there}' >$0", own / "file"), check=True)
        assert as_root(MODULE_WRITES, own / "file") == ""
        assert (own / "file").read_bytes() == b"written"
        subprocess.run(as_user("root", "rm", own / "file"), check=True)


def test_a_link_is_followed_where_root_alone_could_put_it(places: tuple[Path, Path]) -> None:
    own, secrets = places
    subprocess.run(as_user("root", "ln", "-s", own, secrets / "link"), check=True)
    subprocess.run(as_user("nobody", "ln", "-s", secrets, own / "link"), check=True)
    assert as_root(MODULE_WRITES, secrets / "link" / "file") == ""
    assert (own / "file").read_text() == "written"
    assert "link is a link that others than root could have put there" in as_root(
        MODULE_WRITES, own / "link" / "file"
    )
    assert not (secrets / "file").exists()
