#!/usr/bin/env python3
"""Assemble what the depot serves, from the package registries, and hold it to its locks.

    build.py --source DIR --out DIR             build what is missing or was built from another lock
    build.py --source DIR --out DIR --rebuild   build everything anew
    build.py --source DIR --out DIR --missing   only say what that is
    build.py --source DIR --out DIR --update NAME ...   build these releases and write their locks into the source

The source folder holds releases.json (releases.yml as JSON), artifacts/locks/NAME.json and requirements/NAME.txt. The depot gets
releases/NAME-VERSION/ with NAME-VERSION.lock beside it, and wheels/NAME-HASH/ for each requirements file. Runs as root where
systemd, Maven, Java and pip are: on the depot's host. It needs the standard library alone.

What is downloaded may run before anybody has looked at it: Maven's plugins do, and a source archive's setup.py. So nothing is
fetched or unpacked by root. This program starts itself as a user of no rights, in a sandbox that sees no more of the depot than
its source (`--stage NAME`), and root takes from what that leaves the regular files alone, holds each to its hash, and only then
puts them where they are served from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>millrace</groupId><artifactId>assembly</artifactId><version>1</version>
<packaging>pom</packaging><dependencies>{}</dependencies></project>
"""
# The unit that downloads and unpacks, and the folder that it leaves.
UNIT = "depot-build"
STAGE = Path("/var/lib/private") / UNIT
# A user that exists as long as the unit; it sees the system read-only, a /tmp of its own, and of others' processes nothing.
SANDBOX = (
    "DynamicUser=yes",
    f"StateDirectory={UNIT}",
    "StateDirectoryMode=0700",
    "ProtectHome=yes",
    "ProtectProc=invisible",
    "PrivateDevices=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "CapabilityBoundingSet=",
    "LockPersonality=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "UMask=0022",
)
# How the registries are reached from here, where that is not told by files.
INHERITED = ("PIP_CERT", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# Settings of mvn and pip (mirrors, with logins perhaps): root's files, handed over as credentials.
MIRRORS = ("settings.xml", "pip.conf")
HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
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


def mvn(*goal: str, work: Path) -> None:
    """Run a goal of Maven with a repository of the stage's own."""
    settings = credential("settings.xml")
    run(
        "mvn", "-B", "-q", "-C", *(["-s", str(settings)] if settings else []),
        f"-Dmaven.repo.local={Path(os.environ['HOME']) / 'repository'}", *goal,
        cwd=work,
    )  # fmt: skip


def pip_download(requirements: Path, target: Path, *options: str) -> None:
    """Download what a requirements file names; pip takes nothing that has not the hash in it, and runs nothing before."""
    run(
        sys.executable, "-m", "pip", "download", "-q", "--no-cache-dir", "--require-hashes", *options,
        "-d", str(target), "-r", str(requirements),
        cwd=target,
    )  # fmt: skip


def credential(name: str) -> Path | None:
    """Where a file is that root handed over, if it did."""
    path = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / name
    return path if path.exists() else None


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
    mvn(COPY, "-DincludeScope=runtime", f"-DoutputDirectory={lib}", work=work)


def maven_archive(coordinate: str, target: Path, work: Path) -> None:
    """Unpack the tar archive of a coordinate (group:artifact:version:type:classifier), less its top folder if any."""
    group, artifact, version, kind, classifier = coordinate.split(":")
    mvn(
        GET, f"-Dartifact={group}:{artifact}:{version}:{kind}:{classifier}", f"-DoutputDirectory={work}",
        work=work,
    )  # fmt: skip
    (archive,) = work.glob(f"{artifact}-{version}*.{kind}")
    unpack(archive, {"": target}, work)


def pypi(package: dict[str, Any], target: Path, work: Path) -> None:
    """Unpack a package's archive: each of its ``folders`` into the release's folder of that name."""
    # pip reads what a source archive says of itself, which runs its setup.py; it builds nothing, and what that needs is
    # the system's.
    sdist = package.get("archive") == "sdist"
    options = ["--no-binary", ":all:", "--no-build-isolation"] if sdist else ["--only-binary", ":all:"]
    (work / "download").mkdir()
    (work / "requirements.txt").write_text(f"{package['package']} --hash=sha256:{package['sha256']}\n")
    pip_download(work / "requirements.txt", work / "download", "--no-deps", *options)
    name = package["package"].split("==")[0]
    (archive,) = [path for path in (work / "download").iterdir() if path.name.lower().startswith(f"{name}-")]
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
    shutil.rmtree(work / "download", ignore_errors=True)


def artifact_of(jar: Path) -> str:
    """Return a jar's name less its version, which begins with a number and a dot."""
    return re.split(r"-\d+\.", jar.name)[0]


def take(staged: Path, target: Path) -> dict[str, dict[str, object]]:
    """Copy what a stage holds into a new folder of root's; return its files: path -> sha256, size in bytes, whether a program.

    The stage is not to be trusted: a link or anything else that is no folder and no regular file is an error, and of a file's
    mode nothing is taken but whether its owner may execute it.
    """
    files: dict[str, dict[str, object]] = {}
    target.mkdir(mode=0o755)
    # By descriptors, so that no folder on the way can become a link.
    for where, folders, names, descriptor in os.fwalk(staged, follow_symlinks=False):
        inner = Path(where).relative_to(staged)
        for name in folders:
            if not stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                raise BuildError(f"{inner / name}: what was downloaded holds a link to a folder")
            (target / inner / name).mkdir(mode=0o755)
        for name in names:
            try:
                opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
            except OSError as error:
                raise BuildError(
                    f"{inner / name}: what was downloaded holds no plain file there: {error}"
                ) from error
            with os.fdopen(opened, "rb") as content, (target / inner / name).open("xb") as copy:
                if not stat.S_ISREG(os.fstat(opened).st_mode):
                    raise BuildError(f"{inner / name}: what was downloaded holds no plain file there")
                digest, size = hashlib.sha256(), 0
                while chunk := content.read(1 << 20):
                    digest.update(chunk)
                    size += copy.write(chunk)
                program = bool(os.fstat(opened).st_mode & stat.S_IXUSR)
            (target / inner / name).chmod(0o755 if program else 0o644)
            files[str(inner / name)] = {"sha256": digest.hexdigest(), "size": size} | (
                {"program": True} if program else {}
            )
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
    target.mkdir()
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
    """The depot's folder and the folder that says what belongs into it, beside each other."""

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

    def stage(self, name: str) -> Path:
        """Download and unpack a release, or the wheels of a requirements file (NAME.txt), confined; return what came of it."""
        program = self.source / "artifacts" / Path(__file__).name
        output = self.confined(sys.executable, str(program), "--source", str(self.source), "--stage", name)
        sys.stdout.write(output)
        return STAGE / name

    def confined(self, *command: str) -> str:
        """Run a command in the sandbox, and nothing of it is left running; return its output. HOME is the stage."""
        known = [path for name in MIRRORS if (path := self.source / "mirrors" / name).exists()]
        properties = [
            *SANDBOX,
            # Of the depot's folder, an empty one but for the source.
            f"TemporaryFileSystem={self.out.parent}:ro",
            f"BindReadOnlyPaths={self.source}",
            *(f"LoadCredential={path.name}:{path}" for path in known),
        ]
        # What a run left that was cut off.
        subprocess.run(["systemctl", "stop", "--quiet", UNIT], stderr=subprocess.DEVNULL, check=False)
        result = subprocess.run(
            [
                *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={UNIT}"),
                *(f"--property={setting}" for setting in properties),
                *(f"--setenv={name}" for name in INHERITED if name in os.environ),
                f"--setenv=HOME={Path('/var/lib') / UNIT}",
                *command,
            ],
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        if result.returncode:
            raise BuildError(result.stdout[-4000:] or f"{command[0]} ended with {result.returncode}")
        return result.stdout

    def build_release(self, name: str, *, update: bool) -> None:
        """Have one release assembled, compare it with its lock (or write that), and put it into its place."""
        folder = self.release_folder(name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with self.taken(name) as (target, built):
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
        """Have the wheels of a requirements file downloaded, hold them to its hashes, and put them into their place."""
        folder = self.wheels_folder(requirements)
        folder.parent.mkdir(parents=True, exist_ok=True)
        hashes = set(HASH.findall(requirements.read_text()))
        with self.taken(requirements.name) as (target, built):
            if strangers := sorted(name for name, entry in built.items() if entry["sha256"] not in hashes):
                raise BuildError(f"{requirements.name} has no such hashes: {', '.join(strangers)}")
            shutil.rmtree(folder, ignore_errors=True)
            target.rename(folder)
        print(f"{folder.name}: {len(built)} wheels", flush=True)

    @contextmanager
    def taken(self, name: str) -> Iterator[tuple[Path, dict[str, dict[str, object]]]]:
        """Stage something, and take it over into a folder of root's that is not served; gives that and its files."""
        # Beside what is served: it is renamed into its place.
        with tempfile.TemporaryDirectory(dir=self.out.parent) as temporary:
            target = Path(temporary) / "taken"
            try:
                built = take(self.stage(name), target)
            finally:
                shutil.rmtree(STAGE / name, ignore_errors=True)
            yield target, built


def stage(depot: Depot, name: str) -> None:
    """What runs confined: download and unpack one thing into the user's home."""
    home = Path(os.environ["HOME"])
    target = home / name
    if mirror := credential("pip.conf"):
        os.environ["PIP_CONFIG_FILE"] = str(mirror)
    if name in depot.specs():
        assemble(depot.specs()[name], target)
        return
    target.mkdir()
    pip_download(depot.source / "requirements" / name, target, "--only-binary", ":all:")


def main() -> None:
    """Build what is missing; see the module's description."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--rebuild", action="store_true")
    parser.add_argument("--update", nargs="+", metavar="NAME", default=[])
    parser.add_argument("--stage", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()

    os.umask(0o022)
    depot = Depot(arguments.source, arguments.out)
    if arguments.stage:
        stage(depot, arguments.stage)
        return
    releases, wheels = depot.missing() if not arguments.update else (arguments.update, [])
    if arguments.rebuild:
        releases, wheels = list(depot.specs()), depot.requirements()
    if arguments.missing:
        print("\n".join([*releases, *(path.name for path in wheels)]))
        return
    try:
        for name in releases:
            depot.build_release(name, update=bool(arguments.update))
        for requirements in wheels:
            depot.build_wheels(requirements)
    finally:
        shutil.rmtree(STAGE, ignore_errors=True)


if __name__ == "__main__":
    try:
        main()
    except BuildError as error:
        sys.exit(str(error))
