#!/usr/bin/env python3
"""Assemble what the depot serves, from the package registries, and hold it to its locks.

    build.py --source DIR --out DIR             build what is missing or was built from another lock
    build.py --source DIR --out DIR --rebuild   build everything anew
    build.py --source DIR --out DIR --missing   only say what that is
    build.py --source DIR --out DIR --update NAME ...   build these releases and write their locks into the source

The source folder holds releases.json (releases.yml as JSON), artifacts/locks/NAME.json and requirements/NAME.txt. The depot gets
releases/NAME-VERSION/ with NAME-VERSION.lock beside it, and wheels/NAME-HASH/ for each requirements file. Runs where
Maven, Java and pip are: on the depot's host. It needs the standard library alone. Mirrors and certificates come from the
ordinary settings of mvn and pip.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>millrace</groupId><artifactId>assembly</artifactId><version>1</version>
<packaging>pom</packaging><dependencies>{}</dependencies></project>
"""
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
GET = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"


class BuildError(Exception):
    """A release that can't be assembled or differs from its lock."""


def run(*command: str, cwd: Path) -> None:
    """Run a program; its output is shown when it fails."""
    result = subprocess.run(
        command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if result.returncode:
        raise BuildError(f"{' '.join(command)} failed:\n{result.stdout[-4000:]}")


def maven(coordinates: list[str], lib: Path, work: Path) -> None:
    """Copy the jars of the coordinates, with all that they need at run time, into ``lib``."""
    dependencies = ""
    for coordinate in coordinates:
        group, artifact, version = (escape(part) for part in coordinate.split(":"))
        dependencies += (
            f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
            f"<version>{version}</version></dependency>"
        )
    (work / "pom.xml").write_text(POM.format(dependencies))
    run("mvn", "-B", "-q", "-C", COPY, "-DincludeScope=runtime", f"-DoutputDirectory={lib}", cwd=work)


def maven_archive(coordinate: str, target: Path, work: Path) -> None:
    """Unpack the tar archive of a coordinate (group:artifact:version:type:classifier), less its top folder if any."""
    group, artifact, version, kind, classifier = coordinate.split(":")
    run(
        "mvn", "-B", "-q", "-C", GET,
        f"-Dartifact={group}:{artifact}:{version}:{kind}:{classifier}", f"-DoutputDirectory={work}",
        cwd=work,
    )  # fmt: skip
    (archive,) = work.glob(f"{artifact}-{version}*.{kind}")
    unpack(archive, {"": target}, work)


def pypi(package: dict[str, Any], target: Path, work: Path) -> None:
    """Unpack a package's archive: each of its ``folders`` into the release's folder of that name."""
    # pip reads what a source archive says of itself, which runs its setup.py; it builds nothing.
    options = ["--no-binary", ":all:", "--no-build-isolation"] if package.get("archive") == "sdist" else []
    run(
        sys.executable, "-m", "pip", "download", "-q", "--no-deps", *options, "-d", str(work), package["package"],
        cwd=work,
    )  # fmt: skip
    name = package["package"].split("==")[0]
    (archive,) = [path for path in work.iterdir() if path.name.lower().startswith(f"{name}-")]
    unpack(archive, {folder: target / into for folder, into in package["folders"].items()}, work)


def unpack(archive: Path, folders: dict[str, Path], work: Path) -> None:
    """Unpack a tar or zip archive, less its top folder if it has but one, and move folders of it to where they belong.

    The targets may exist.
    """
    unpacked = work / "unpacked"
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as bundle:
            for member in bundle.infolist():
                path = Path(bundle.extract(member, unpacked))
                if mode := member.external_attr >> 16 & 0o777:
                    path.chmod(mode)
    else:
        unpacked.mkdir()
        run("tar", "-xf", str(archive), "-C", str(unpacked), "--no-same-owner", cwd=work)
    entries = list(unpacked.iterdir())
    top = entries[0] if len(entries) == 1 and entries[0].is_dir() else unpacked
    for folder, target in folders.items():
        if not (top / folder).is_dir():
            raise BuildError(f"{archive.name} holds no folder {folder}")
        shutil.copytree(top / folder, target, dirs_exist_ok=True, symlinks=False)
    shutil.rmtree(unpacked)
    archive.unlink()


def artifact_of(jar: Path) -> str:
    """Return a jar's name less its version, which begins with a number and a dot."""
    return re.split(r"-\d+\.", jar.name)[0]


def manifest(folder: Path) -> dict[str, dict[str, object]]:
    """Every file of a folder: relative path -> sha256, size in bytes, and whether it is a program."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            entry: dict[str, object] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            if path.stat().st_mode & 0o100:
                entry["program"] = True
            files[str(path.relative_to(folder))] = entry
    return files


def differences(built: dict[str, dict[str, object]], locked: dict[str, dict[str, object]]) -> list[str]:
    """What a release has that its lock has not, and the other way round, file by file."""
    return (
        [f"{path}: is not in the lock" for path in built.keys() - locked.keys()]
        + [f"{path}: is missing" for path in locked.keys() - built.keys()]
        + [
            f"{path}: sha256 is {built[path]['sha256']}, the lock says {locked[path]['sha256']}"
            for path in built.keys() & locked.keys()
            if built[path]["sha256"] != locked[path]["sha256"]
        ]
    )


def assemble(spec: dict[str, object], target: Path) -> None:
    """Fetch all parts of a release into ``target``."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for package in spec.get("pypi", []):  # type: ignore[attr-defined]
            pypi(package, target, work)
        if archive := spec.get("maven_archive"):
            maven_archive(str(archive), target, work)
        if coordinates := spec.get("maven"):
            lib = target / str(spec.get("maven_folder", "lib"))
            present = {artifact_of(path) for path in lib.glob("*.jar")}
            fresh = work / "jars"
            maven(coordinates, fresh, work)  # type: ignore[arg-type]
            lib.mkdir(parents=True, exist_ok=True)
            for jar in fresh.glob("*.jar"):
                # A release that brings a jar keeps its own version of it.
                if artifact_of(jar) not in present:
                    shutil.move(jar, lib / jar.name)
        for pattern in spec.get("remove", []):  # type: ignore[attr-defined]
            for path in list(target.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@dataclass(frozen=True)
class Depot:
    """The depot's folder and the folder that says what belongs into it."""

    source: Path
    out: Path

    def specs(self) -> dict[str, dict[str, object]]:
        """Every release by name."""
        specs: dict[str, dict[str, object]] = json.loads((self.source / "releases.json").read_text())
        return specs

    def release_folder(self, name: str) -> Path:
        """Where a release lies."""
        return self.out / "releases" / f"{name}-{self.specs()[name]['version']}"

    def record(self, name: str) -> Path:
        """The lock that a release was built from; it lies beside the release."""
        folder = self.release_folder(name)
        return folder.with_name(f"{folder.name}.lock")

    def wheels_folder(self, requirements: Path) -> Path:
        """Where the wheels of a requirements file lie."""
        return (
            self.out
            / "wheels"
            / f"{requirements.stem}-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:10]}"
        )

    def requirements(self) -> list[Path]:
        """The locks of the environments that hosts have (the controller has its own)."""
        return [
            path
            for name in ("hosts", "airflow")
            if (path := self.source / "requirements" / f"{name}.txt").exists()
        ]

    def missing(self) -> tuple[list[str], list[Path]]:
        """Releases and requirements files that the depot hasn't, or has from another lock."""
        releases = [
            name
            for name in self.specs()
            if not (record := self.record(name)).exists()
            or record.read_bytes() != self.lock(name).read_bytes()
        ]
        wheels = [path for path in self.requirements() if not self.wheels_folder(path).exists()]
        return releases, wheels

    def lock(self, name: str) -> Path:
        """The lock of a release."""
        return self.source / "artifacts" / "locks" / f"{name}.json"

    def build_release(self, name: str, *, update: bool) -> None:
        """Assemble one release, compare it with its lock (or write that), and put it into its place."""
        folder = self.release_folder(name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            target = Path(temporary) / "release"
            target.mkdir(mode=0o755)
            assemble(self.specs()[name], target)
            built = manifest(target)
            if update:
                self.lock(name).write_text(json.dumps(built, indent=1, sort_keys=True) + "\n")
            if faults := differences(built, json.loads(self.lock(name).read_text())):
                raise BuildError("\n".join([f"{name} differs from its lock:", *sorted(faults)]))
            record = self.record(name)
            record.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            target.rename(folder)
            record.write_bytes(self.lock(name).read_bytes())
        print(
            f"{folder.name}: {len(built)} files, {sum(int(str(f['size'])) for f in built.values()) >> 20} MiB",
            flush=True,
        )

    def build_wheels(self, requirements: Path) -> None:
        """Download the wheels of a requirements file; pip holds them to the hashes in it."""
        folder = self.wheels_folder(requirements)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            target = Path(temporary) / "wheels"
            target.mkdir(mode=0o755)
            run(
                sys.executable, "-m", "pip", "download", "-q", "--require-hashes", "--only-binary", ":all:",
                "-d", str(target), "-r", str(requirements),
                cwd=folder.parent,
            )  # fmt: skip
            target.rename(folder)
        print(f"{folder.name}: {len(list(folder.iterdir()))} wheels", flush=True)


def main() -> None:
    """Build what is missing; see the module's description."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--rebuild", action="store_true")
    parser.add_argument("--update", nargs="+", metavar="NAME", default=[])
    arguments = parser.parse_args()

    os.umask(0o022)
    depot = Depot(arguments.source, arguments.out)
    for name in arguments.update:
        depot.build_release(name, update=True)
    releases, wheels = depot.missing() if not arguments.update else ([], [])
    if arguments.rebuild:
        shutil.rmtree(arguments.out / "wheels", ignore_errors=True)
        releases, wheels = list(depot.specs()), depot.requirements()
    if arguments.missing:
        print("\n".join([*releases, *(path.name for path in wheels)]))
        return
    for name in releases:
        depot.build_release(name, update=False)
    for requirements in wheels:
        depot.build_wheels(requirements)


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(str(error))
