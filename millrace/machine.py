"""What is on this machine already, whoever made it: LXC containers, addresses that are in use, and everyone's environments.

All who work on a machine share its networks and the names of its containers. What is really there decides who has an address
or a name; between the choice of an address and a host that has it, and to tell whose a host is, an environment has a claim:

    /var/lib/millrace/<name>.json   a `Claim`; root's, to be read by all

A claim lasts as long as the state of its environment or a host of it, and `release` ends it.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from millrace import topology as topologies

CLAIMS = Path("/var/lib/millrace")
CONTAINERS = Path("/var/lib/lxc")
LEASES = Path("/var/lib/misc")
# Where a container's /etc/millrace/environment lies: a clone's own layer, or a root file system.
ROOTS = ("overlay/delta", "rootfs")
STATIC_ADDRESS = re.compile(
    r"^\s*lxc\.net(?:work)?\.(?:\d+\.)?ipv4(?:\.address)?\s*=\s*([\d.]+)", re.MULTILINE
)
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Seconds within which a host on a bridge of this machine answers to ARP.
ANSWER = 1.0
# The exit code of a fault that was told (scripts/lib.sh).
TOLD = 70
Found = TypeVar("Found")


class NotRoot(Exception):
    """There are no root's rights to look with; the person has been told."""


@dataclass(frozen=True)
class Container:
    """An LXC container, its addresses as configured, and the id of the environment that it carries."""

    name: str
    addresses: list[str]
    environment: str | None


@dataclass(frozen=True)
class Claim:
    """An environment that has, or is about to have, hosts here; `directory` holds its state."""

    name: str
    id: str
    hosts: list[str]
    subnet: str
    user: str
    directory: str
    clone: str

    def __str__(self) -> str:
        """Whose it is, for a person."""
        return f"environment {self.name!r} of {self.user}, its state in {self.directory}, operated from {self.clone}"


@dataclass(frozen=True)
class Machine:
    """The containers and the claims that count."""

    containers: list[Container]
    claims: list[Claim]

    def owner(self, container: Container) -> str | None:
        """The id of the environment that a container belongs to: what it carries, before it carries one what its name says."""
        claimed = (claim.id for claim in self.claims if container.name in claim.hosts)
        return container.environment or next(claimed, None)

    def holder(self, container: Container) -> str:
        """Whose a container is, for a person."""
        owner = self.owner(container)
        for claim in self.claims:
            if claim.id == owner:
                return f"{container.name} of {claim}"
        return f"the LXC container {container.name}" + (f" of environment {owner}" if owner else "")

    def in_use(self, network: ipaddress.IPv4Network, environment: str = "") -> str | None:
        """Who has an address in a network, other than the environment of that id; None if nobody is known to."""
        for claim in self.claims:
            if claim.id != environment and ipaddress.IPv4Network(claim.subnet).overlaps(network):
                return str(claim)
        for container in self.containers:
            if self.owner(container) != environment:
                for address in container.addresses:
                    if ipaddress.ip_address(address) in network:
                        return f"{self.holder(container)}, at {address}"
        for address, name in _leases().items():
            if ipaddress.ip_address(address) in network:
                return f"{name}, which has a lease of {address}"
        return None


def look() -> Machine:
    """What is there now. Asks for root's rights if there is anything to look at."""
    if not _anything(CONTAINERS) and not _anything(CLAIMS):
        return Machine([], [])
    found = _as_root(_look)
    return Machine(
        [Container(**container) for container in found["containers"]],
        [Claim(**claim) for claim in found["claims"]],
    )


def claim_of(name: str) -> Claim | None:
    """The claim of that name as it is written, whether it still counts or not."""
    with suppress(FileNotFoundError):
        return _read(CLAIMS / f"{name}.json")
    return None


def claim(wanted: Claim) -> None:
    """Write a claim; whoever had it before."""
    _as_root(_write, asdict(wanted))


def release(name: str, directory: Path) -> None:
    """End the claim of that name if it is the one of that state directory."""
    if (written := claim_of(name)) and written.directory == str(directory):
        _as_root(_remove, name)


@contextmanager
def locked() -> Iterator[None]:
    """Let nobody else on this machine choose or claim meanwhile."""
    if not CLAIMS.is_dir():
        _as_root(_prepare)
    descriptor = os.open(CLAIMS, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def answering(network: ipaddress.IPv4Network) -> str | None:
    """Who answers to an address of a network that this machine is in itself; None if nobody does."""
    hosts = [str(address) for address in network.hosts()]
    asked = False
    for address in hosts:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packet, suppress(OSError):
            packet.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
            packet.connect((address, 9))
            if packet.getsockname()[0] == address:
                return f"this machine itself, at {address}"
            packet.send(b"")
            asked = True
    if not asked:
        return None
    time.sleep(ANSWER)
    for line in Path("/proc/net/arp").read_text().splitlines()[1:]:
        address, _, flags, mac, _, device = line.split()
        if address in hosts and int(flags, 16) & 2 and mac in _present(device, mac):
            return f"a host that answers at {address} ({mac})"
    return None


def _present(device: str, mac: str) -> set[str]:
    """The hardware addresses behind a bridge, which forgets at once who was unplugged; of another device we know that one."""
    try:
        table = Path(f"/sys/class/net/{device}/brforward").read_bytes()
    except OSError:
        return {mac}
    return {table[at : at + 6].hex(":") for at in range(0, len(table), 16)}


def _read(path: Path) -> Claim:
    # One of a newer clone may say more.
    known = {field.name for field in fields(Claim)}
    return Claim(**{key: value for key, value in json.loads(path.read_text()).items() if key in known})


def _leases() -> dict[str, str]:
    """Address => host name or hardware address, of what the DHCP servers of LXC and others have leased."""
    found = {}
    for path in LEASES.glob("dnsmasq*.leases"):
        for line in path.read_text().splitlines():
            words = line.split()
            # Expiry (0: never), hardware address, address, name; other lines are of IPv6.
            if (
                len(words) == 5
                and words[2].count(".") == 3
                and (words[0] == "0" or int(words[0]) > time.time())
            ):
                found[words[2]] = words[1] if words[3] == "*" else words[3]
    return found


def _anything(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except FileNotFoundError:
        return False
    except PermissionError:
        return True


# What follows runs as root.


def _look() -> dict[str, Any]:
    containers = _each(_container, CONTAINERS.glob("*/config"))
    claims = _each(_read, CLAIMS.glob("*.json"))
    return {
        "containers": [asdict(container) for container in containers],
        "claims": [asdict(claim) for claim in claims if _has_state(claim) or _has_host(claim, containers)],
    }


def _each(read: Callable[[Path], Found], paths: Iterable[Path]) -> list[Found]:
    found = []
    for path in sorted(paths):
        # Others remove theirs meanwhile.
        with suppress(FileNotFoundError):
            found.append(read(path))
    return found


def _container(file: Path) -> Container:
    folder, environment = file.parent, None
    for root in ROOTS:
        with suppress(OSError, UnicodeDecodeError):
            text = (folder / root / "etc/millrace/environment").read_text().strip()
            environment = environment or (text if ID.fullmatch(text) else None)
    return Container(folder.name, STATIC_ADDRESS.findall(file.read_text(errors="replace")), environment)


def _has_host(claim: Claim, containers: list[Container]) -> bool:
    return any(
        container.environment == claim.id or (not container.environment and container.name in claim.hosts)
        for container in containers
    )


def _has_state(claim: Claim) -> bool:
    try:
        return claim.id in Path(claim.directory, "environment.yml").read_text()
    except OSError:
        return False


def _prepare() -> None:
    CLAIMS.mkdir(exist_ok=True)
    CLAIMS.chmod(0o755)


def _write(wanted: dict[str, Any]) -> None:
    new = CLAIMS / f".{wanted['name']}.new"
    new.write_text(json.dumps(wanted, indent=1) + "\n")
    new.chmod(0o644)
    new.replace(CLAIMS / f"{wanted['name']}.json")


def _remove(name: str) -> None:
    (CLAIMS / f"{name}.json").unlink(missing_ok=True)


def _as_root(function: Callable[..., Any], *arguments: Any) -> Any:
    if os.access(CLAIMS if CLAIMS.exists() else CLAIMS.parent, os.W_OK):
        return function(*arguments)
    command = [str(topologies.ROOT / "scripts/as-root"), sys.executable, "-B", "-m", "millrace.machine"]
    result = subprocess.run(
        [*command, function.__name__, json.dumps(arguments)],
        cwd=topologies.ROOT,
        stdout=subprocess.PIPE,
        check=False,
    )
    if result.returncode == TOLD:
        raise NotRoot
    result.check_returncode()
    return json.loads(result.stdout)


if __name__ == "__main__":
    print(
        json.dumps(
            {f.__name__: f for f in (_look, _prepare, _write, _remove)}[sys.argv[1]](*json.loads(sys.argv[2]))
        )
    )
