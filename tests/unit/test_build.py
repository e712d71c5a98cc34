"""What the depot's root takes over of what was downloaded, and what it refuses."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[2] / "artifacts" / "build.py"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("depot_build", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def staged(tmp_path) -> Path:
    """A release as the build leaves it."""
    stage = tmp_path / "stage"
    (stage / "lib").mkdir(parents=True)
    (stage / "lib" / "a.jar").write_bytes(b"a jar")
    (stage / "run").write_text("#!/bin/sh\n")
    (stage / "run").chmod(0o6777)
    return stage


def test_files_are_copied_with_modes_of_our_own(build, staged, tmp_path) -> None:
    files = build.take(staged, tmp_path / "taken")
    jar = {"sha256": hashlib.sha256(b"a jar").hexdigest(), "size": 5}
    assert files["lib/a.jar"] == jar
    assert files["run"]["program"] is True
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "taken").rglob("*")}
    assert modes == {"lib": 0o755, "a.jar": 0o644, "run": 0o755}
    assert (tmp_path / "taken" / "lib" / "a.jar").read_bytes() == b"a jar"


ODDITIES: dict[str, Callable[[Path], None]] = {
    "a link to a file": lambda place: place.symlink_to("/etc/shadow"),
    "a link to a folder": lambda place: place.symlink_to("/etc"),
    "a link to nothing": lambda place: place.symlink_to("nowhere"),
    "a pipe": os.mkfifo,
}


@pytest.mark.parametrize("oddity", ODDITIES)
def test_what_is_no_plain_file_is_refused(build, staged, tmp_path, oddity: str) -> None:
    ODDITIES[oddity](staged / "lib" / "odd")
    with pytest.raises(build.BuildError, match=r"lib/odd: what was downloaded holds"):
        build.take(staged, tmp_path / "taken")


@pytest.fixture
def depot(build, staged, tmp_path, monkeypatch) -> object:
    """A depot whose sandbox leaves what `staged` is; a release and a requirements file have the hashes of its files."""
    source = tmp_path / "depot" / "source"
    (source / "artifacts" / "locks").mkdir(parents=True)
    (source / "requirements").mkdir()
    (source / "releases.json").write_text(json.dumps({"thing": {"version": "1"}}))
    locked = build.take(staged, tmp_path / "as-locked")
    (source / "artifacts" / "locks" / "thing.json").write_text(json.dumps(locked))
    hashes = " ".join(f"--hash=sha256:{entry['sha256']}" for entry in locked.values())
    (source / "requirements" / "hosts.txt").write_text(f"thing==1 {hashes}\n")
    depot = build.Depot(source, tmp_path / "depot" / "served")
    monkeypatch.setattr(build.Depot, "stage", lambda *_: staged)
    return depot


def test_what_has_its_hashes_is_served(depot) -> None:
    depot.build_release("thing", update=False)
    depot.build_wheels(depot.source / "requirements" / "hosts.txt")
    assert depot.missing() == ([], [])
    assert (depot.release_folder("thing") / "lib" / "a.jar").read_bytes() == b"a jar"


@pytest.mark.parametrize("harm", ["another content", "one more"])
def test_nothing_is_served_that_has_another_hash(build, depot, staged, harm: str) -> None:
    depot.build_release("thing", update=False)
    (staged / "lib" / ("a.jar" if harm == "another content" else "b.jar")).write_bytes(b"harm")
    with pytest.raises(build.BuildError, match=r"thing differs from its lock"):
        depot.build_release("thing", update=False)
    with pytest.raises(build.BuildError, match=r"hosts.txt has no such hashes: lib/.\.jar"):
        depot.build_wheels(depot.source / "requirements" / "hosts.txt")
    served = [path.read_bytes() for path in depot.out.rglob("*.jar")]
    assert served == [b"a jar"], "what was served before still is"
    assert sorted(path.name for path in depot.out.parent.iterdir()) == ["served", "source"]
