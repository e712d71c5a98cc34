"""Writes into a folder what hosts get of this machine's apt, and prints a line for each thing that they don't get of it.

    apt_settings.py FOLDER

Hosts reach Debian's packages as this machine does: by its mirrors and proxies, with the keys, logins and certificates for them, in
the files where apt looks for them. Third parties' repositories, hooks and pins are for this machine alone, and nothing on its
loopback or its discs can be reached from a host. Runs as root: logins are root's to read.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SUITE = re.compile(r"bookworm(-(updates|security|backports|proposed-updates))?/?")
COMPONENTS = {"main", "contrib", "non-free", "non-free-firmware"}
REMOTE = re.compile(r"(mirror\+)?https?://|mirror\+file:")
LOOPBACK = re.compile(r"://([^/\s@]*@)?(localhost|127\.|\[::1\])")
# Of apt's settings those that say how archives are reached.
WAY = re.compile(r"Acquire::(https?::|Retries|ForceIPv|Check-|Max-ValidTime|Allow)")
CERTIFICATES = Path("/usr/local/share/ca-certificates")
# What the options of a source are called where it has several lines.
FIELDS = {"arch": "architectures", "lang": "languages", "target": "targets"}

# A source of packages, by its fields in small letters.
Source = dict[str, str]


def in_one_line(text: str) -> Iterator[Source]:
    """The sources of a .list file."""
    line = re.compile(
        r"^[ \t]*(deb|deb-src)[ \t]+(?:\[(.*?)\][ \t]*)?(\S+)[ \t]+(\S+)([^#\n]*)", re.MULTILINE
    )
    for kind, options, uri, suite, components in line.findall(text):
        fields = {
            name.lower(): value.replace(",", " ") for name, value in re.findall(r"([\w-]+)=(\S+)", options)
        }
        more = {FIELDS.get(name, name): value for name, value in fields.items()}
        yield {"types": kind, "uris": uri, "suites": suite, "components": components} | more


def in_several(text: str) -> Iterator[Source]:
    """The sources of a .sources file."""
    for stanza in re.split(r"\n\s*\n", re.sub(r"^#.*\n?", "", text, flags=re.MULTILINE)):
        # A field may be a whole key, line by line.
        fields = re.findall(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE)
        if fields:
            yield {name.lower(): value.rstrip() for name, value in fields}


def for_hosts(source: Source) -> Source | None:
    """What of a source is Debian's, and can be reached from a host."""
    wanted = {
        "types": lambda kind: kind == "deb",
        "uris": lambda uri: REMOTE.match(uri) and not LOOPBACK.search(uri),
        "suites": SUITE.fullmatch,
        "components": lambda component: component in COMPONENTS,
    }
    kept = {name: " ".join(filter(test, source.get(name, "").split())) for name, test in wanted.items()}
    return source | kept if all(kept.values()) else None


def logins(text: str, archives: str) -> str:
    """The logins of an auth.conf that are for one of the archives."""
    servers = set(re.findall(r"://(?:[^/\s@]*@)?([^/\s:\"]+)", archives))
    entries = re.split(r"(?:^|\s)machine\s+", re.sub(r"^\s*#.*", "", text, flags=re.MULTILINE))[1:]
    # The name of a server may have a scheme before it, a port and a path behind it.
    return "".join(
        f"machine {entry.strip()}\n"
        for entry in entries
        if re.sub(r"^\w+://", "", entry.split()[0]).partition("/")[0].partition(":")[0] in servers
    )


class Apt:
    """The settings and files of this machine's apt."""

    def __init__(self) -> None:
        dump = subprocess.check_output(["apt-config", "dump"], text=True)
        self.settings: list[tuple[str, str]] = re.findall(r'^(\S+) "(.*)";$', dump, re.MULTILINE)
        self.places = dict(self.settings)

    def files(self, file: str, folder: str, *suffixes: str) -> list[Path]:
        """A file of apt's, and those beside it in the folder of its kind."""
        etc = Path(self.places["Dir"], self.places["Dir::Etc"])
        parts = (etc / self.places[f"Dir::Etc::{folder}"]).glob("*")
        found = [
            etc / self.places[f"Dir::Etc::{file}"],
            *(path for path in sorted(parts) if path.suffix in suffixes),
        ]
        return [path for path in found if path.is_file()]

    def sources(self) -> list[Source]:
        """Where packages come from."""
        found: list[Source] = []
        for path in self.files("sourcelist", "sourceparts", ".list", ".sources"):
            found += (in_several if path.suffix == ".sources" else in_one_line)(
                path.read_text(errors="replace")
            )
        off = ("no", "false", "without", "off", "disable", "0")
        return [source for source in found if source.get("enabled", "").lower() not in off]


def mode_of(text: str) -> int:
    """The mode of a file that has this text: root's alone where a login is in it."""
    return 0o600 if re.search(r"://[^/\s]*@", text) else 0o644


def leave_out(what: str) -> None:
    """Say so, without a login."""
    print(re.sub(r"://[^/\s@]*@", "://", " ".join(what.split())))


def main() -> None:
    """Write the files, print what is left out."""
    os.umask(0o022)
    folder = Path(sys.argv[1])
    folder.mkdir()

    def write(path: str | Path, content: bytes, mode: int = 0o644) -> None:
        target = folder / Path(path).relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode)

    apt = Apt()
    sources = []
    for source in apt.sources():
        if kept := for_hosts(source):
            sources.append(kept)
        elif "deb" in source.get("types", "").split():
            leave_out(f"source {source.get('uris')} {source.get('suites')}")
    way = []
    for name, value in apt.settings:
        if not WAY.match(name) or value in ("", "0"):
            continue
        # A host has not the program that would find one.
        if re.search("proxy-?auto-?detect", name, re.IGNORECASE) or LOOPBACK.search(value):
            leave_out(f"{name} {value}")
        else:
            way.append((name, value))

    text = "\n".join("".join(f"{name}: {value}\n" for name, value in source.items()) for source in sources)
    named = re.findall(r"mirror\+file:(?://)?(/\S+)", text)
    lists = "".join(Path(path).read_text() for path in named if Path(path).is_file())
    archives = "\n".join([text, lists, *(value for _, value in way)])
    if sources:
        write("/etc/apt/sources.list.d/debian.sources", text.encode(), mode_of(text))
    if way:
        lines = "".join(f'{name} "{value}";\n' for name, value in way)
        write("/etc/apt/apt.conf.d/90archives", lines.encode(), mode_of(lines))
    for source in sources:
        named += [word for word in source.get("signed-by", "").split() if word.startswith("/")]
    named += [value for name, value in way if name.startswith("Acquire::https::") and value.startswith("/")]
    for path in named:
        if Path(path).is_file():
            write(path, Path(path).read_bytes(), Path(path).stat().st_mode & 0o777)
    if not all(source.get("signed-by") for source in sources):
        for key in apt.files("trusted", "trustedparts", ".gpg", ".asc"):
            write(Path("/etc/apt/trusted.gpg.d", key.name), key.read_bytes())
    login = "".join(logins(path.read_text(), archives) for path in apt.files("netrc", "netrcparts", ".conf"))
    if login:
        write("/etc/apt/auth.conf.d/debian.conf", login.encode(), 0o600)
    for certificate in sorted(CERTIFICATES.rglob("*.crt")):
        write(CERTIFICATES / certificate.name, certificate.read_bytes())


main()
