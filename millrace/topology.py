"""The topology: which hosts exist and what runs on each, read from ``topologies/<name>.yml`` and checked.

Every entry point (Vagrant, the inventory, ``make``) loads the topology here, so that a wrong one is refused before
anything is made, with one message per fault.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
TOPOLOGIES = ROOT / "topologies"
CATALOGUE = ROOT / "inventories" / "group_vars" / "all" / "services.yml"

HOST_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
HOST_KEYS = {"index", "size", "rack", "ids", "services"}
# Clusters that know a member by a number, and the numbers they allow.
IDS = {"zookeeper": range(1, 256), "kafka": range(1000)}
LAST_INDEX = 254


class TopologyError(Exception):
    """A topology that can't be built: its message holds one line per fault."""


@dataclass(frozen=True)
class Host:
    """One host: ``index`` is its permanent number in the subnet, ``ids`` its permanent id per cluster."""

    name: str
    index: int
    size: str
    rack: str
    services: tuple[str, ...]
    ids: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Catalogue:
    """The services that exist with their budgets and ports, what every host has, and the size classes (MiB, cores)."""

    services: dict[str, dict[str, Any]]
    host_ports: dict[str, dict[str, Any]]
    sizes: dict[str, dict[str, int]]
    reserve_mb: int

    @classmethod
    def load(cls, path: Path = CATALOGUE) -> Catalogue:
        """Read the catalogue from the group variables that the roles read too."""
        data = load_yaml(path)
        return cls(data["services"], data["host_ports"], data["host_sizes"], data["host_reserve_mb"])

    def openings(
        self, host: str, hosts: Mapping[str, Mapping[str, Any]], operator_cidrs: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Who may reach which port of a host, as the port table says.

        `hosts` gives every host's `address` and `services` by name. Each opening has a `name` (service/port), the `first`
        and `last` port, and `sources`: the networks that it is open to. A host reaches itself without one. Raises
        TopologyError for operator_cidrs that are not networks.
        """
        operators = _networks(operator_cidrs)
        tables = {"host": self.host_ports} | {
            name: self.services[name]["ports"] for name in hosts[host]["services"]
        }
        found = []
        for owner, ports in tables.items():
            for label, port in ports.items():
                asked = set(port["from"])
                sources = [
                    f"{other['address']}/32"
                    for name, other in sorted(hosts.items())
                    if name != host and ("all" in asked or asked & set(other["services"]))
                ]
                sources += operators if "operator" in asked else []
                if port["bind"] == "host" and sources:
                    last = port.get("last", port["port"])
                    found.append(
                        {"name": f"{owner}/{label}", "first": port["port"], "last": last, "sources": sources}
                    )
        return found


def _networks(operator_cidrs: Sequence[str]) -> list[str]:
    """Return the operators' networks; raises TopologyError naming one that is none."""
    if isinstance(operator_cidrs, str):
        raise TopologyError(f"operator_cidrs is a list of networks: write ['{operator_cidrs}']")
    for cidr in operator_cidrs:
        try:
            network = ipaddress.ip_network(cidr, strict=False)
        except ValueError:
            raise TopologyError(f"operator_cidrs: {cidr!r} is not a network such as 203.0.113.0/24") from None
        if ipaddress.ip_interface(cidr).ip != network.network_address:
            raise TopologyError(
                f"operator_cidrs: {cidr!r} is an address and a prefix; its network is {network},"
                f" it alone {cidr.split('/')[0]}/{network.max_prefixlen}"
            )
    return [str(ipaddress.ip_network(cidr)) for cidr in operator_cidrs]


@dataclass(frozen=True)
class Topology:
    """A checked topology."""

    name: str
    hosts: tuple[Host, ...]
    replication_factor: int | None = None

    def members(self, service: str) -> list[str]:
        """Names of the hosts that run a service, in the file's order."""
        return [host.name for host in self.hosts if service in host.services]

    def replication(self, service: str) -> int:
        """Copies of each row or message: as declared, else three or as many as there are members."""
        return self.replication_factor or min(3, len(self.members(service)))


class _StrictLoader(yaml.SafeLoader):
    """A loader that refuses a key written twice, where YAML's own silently keeps the last."""


def _mapping(loader: _StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"{key!r} is written twice", key_node.start_mark
            )
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_StrictLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_yaml(path: Path) -> Any:
    """Read a YAML file; a fault in its form is a `TopologyError` that names line and column."""
    try:
        return yaml.load(path.read_text(), Loader=_StrictLoader)  # noqa: S506 - derived from SafeLoader
    except yaml.YAMLError as error:
        raise TopologyError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error


def path_of(name: str) -> Path:
    """The file that a topology's name means: of ``topologies/``, or the path that it is."""
    return ROOT / name if "/" in name else TOPOLOGIES / f"{name}.yml"


def load(name: str, *, machine_memory_mb: int | None = None, last_index: int = LAST_INDEX) -> Topology:
    """Read and check ``topologies/<name>.yml``, or the file that ``name`` is the path of.

    A path is relative to the repository. ``machine_memory_mb`` is the memory in MiB that all hosts share, where one
    machine carries them; ``last_index`` the number of hosts' addresses, where they come from a subnet's slice.
    Raises `TopologyError` with one line per fault.
    """
    path = path_of(name)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in TOPOLOGIES.glob("*.yml")))
        raise TopologyError(f"topology {name!r} does not exist: {path} is missing; there are: {known}")
    data = load_yaml(path)
    catalogue = Catalogue.load()
    faults = _faults_of_form(data)
    if not faults:
        hosts = tuple(_host(key, value) for key, value in data["hosts"].items())
        faults = _faults(hosts, catalogue, machine_memory_mb, last_index)
        faults += _faults_of_replication(hosts, data.get("replication_factor"))
        if data["name"] != path.stem:
            faults.append(f"name: says {data['name']!r}, the file is called {path.name}; make them equal")
    if faults:
        raise TopologyError("\n".join(f"{path.name}: {fault}" for fault in faults))
    return Topology(path.stem, hosts, data.get("replication_factor"))


def _host(name: str, value: dict[str, Any]) -> Host:
    return Host(
        name, value["index"], value["size"], value["rack"], tuple(value["services"]), value.get("ids", {})
    )


def _faults_of_form(data: Any) -> list[str]:
    if not isinstance(data, dict) or set(data) - {"replication_factor"} != {"name", "hosts"}:
        return ["the file must hold the keys name and hosts, may hold replication_factor, and no other"]
    if not isinstance(data["hosts"], dict) or not data["hosts"]:
        return ["hosts: must map at least one host name to its description"]
    faults = []
    for name, host in data["hosts"].items():
        if not isinstance(name, str) or not HOST_NAME.fullmatch(name):
            faults.append(
                f"host {name!r}: a name is a letter, then letters, digits and hyphens, all lower case"
            )
        if not isinstance(host, dict):
            faults.append(f"host {name}: must be a mapping with {', '.join(sorted(HOST_KEYS))}")
            continue
        faults += [f"host {name}: unknown key {key!r}" for key in host if key not in HOST_KEYS]
        faults += [f"host {name}: {key} is missing" for key in sorted(HOST_KEYS - {"ids"} - set(host))]
        expected = {"index": int, "size": str, "rack": str, "ids": dict, "services": list}
        faults += [
            f"host {name}: {key} must be of type {kind.__name__}, is {host[key]!r}"
            for key, kind in expected.items()
            if key in host and (not isinstance(host[key], kind) or isinstance(host[key], bool))
        ]
    return faults


def _faults(
    hosts: tuple[Host, ...], catalogue: Catalogue, machine_memory_mb: int | None, last_index: int
) -> list[str]:
    faults = [fault for host in hosts for fault in _faults_of_host(host, catalogue, last_index)]
    faults += _doubles({f"host {host.name}": host.index for host in hosts}, "index")
    for cluster in IDS:
        faults += _doubles(
            {f"host {host.name}": host.ids[cluster] for host in hosts if cluster in host.ids}, f"{cluster} id"
        )
    if not faults:
        faults += _faults_of_services(hosts, catalogue)
        faults += _faults_of_memory(hosts, catalogue, machine_memory_mb)
    return faults


def _faults_of_host(host: Host, catalogue: Catalogue, last_index: int) -> list[str]:
    prefix = f"host {host.name}"
    faults = []
    if not 1 <= host.index <= last_index:
        faults.append(f"{prefix}: index {host.index} is outside 1 to {last_index}")
    if host.size not in catalogue.sizes:
        faults.append(
            f"{prefix}: unknown size {host.size!r}; there are: {', '.join(sorted(catalogue.sizes))}"
        )
    for service in dict.fromkeys(host.services):
        if service not in catalogue.services:
            known = ", ".join(sorted(catalogue.services))
            faults.append(f"{prefix}: unknown service {service!r}; there are: {known}")
        if host.services.count(service) > 1:
            faults.append(f"{prefix}: service {service!r} is listed {host.services.count(service)} times")
    for cluster, numbers in IDS.items():
        if cluster in host.services and cluster not in host.ids:
            faults.append(f"{prefix}: runs {cluster} and has no id for it; add ids: {{{cluster}: <number>}}")
        if cluster in host.ids and host.ids[cluster] not in numbers:
            faults.append(
                f"{prefix}: {cluster} id {host.ids[cluster]!r} is outside {numbers.start} to {numbers.stop - 1}"
            )
    faults += [f"{prefix}: an id for {c!r}, which has no ids" for c in host.ids if c not in IDS]
    return faults


def _faults_of_services(hosts: tuple[Host, ...], catalogue: Catalogue) -> list[str]:
    count = {name: sum(name in host.services for host in hosts) for name in catalogue.services}
    faults = []
    for name, service in catalogue.services.items():
        if service["members"] == "one" and count[name] > 1:
            faults.append(f"service {name}: stands on {count[name]} hosts; exactly one is supported")
        if service["members"] == "odd" and count[name] and count[name] % 2 == 0:
            faults.append(
                f"service {name}: {count[name]} members; a quorum has an odd number, an even one survives no more"
            )
        faults += [
            f"service {name}: needs {need}, which no host runs"
            for need in service.get("needs", [])
            if count[name] and not count[need]
        ]
    if not count["depot"]:
        faults.append("service depot: no host runs it; every host installs from it")
    for host in hosts:
        taken: dict[tuple[str, int], str] = {}
        for name in host.services:
            for label, port in catalogue.services[name]["ports"].items():
                for number in range(port["port"], port.get("last", port["port"]) + 1):
                    owner = taken.setdefault((port["bind"], number), f"{name}/{label}")
                    if owner != f"{name}/{label}":
                        faults.append(
                            f"host {host.name}: port {number} is claimed by {owner} and {name}/{label}"
                        )
    return faults


def _faults_of_replication(hosts: tuple[Host, ...], factor: Any) -> list[str]:
    if factor is None:
        return []
    if not isinstance(factor, int) or isinstance(factor, bool) or factor < 1:
        return [f"replication_factor: must be a whole number above 0, is {factor!r}"]
    sizes = {name: sum(name in host.services for host in hosts) for name in ("kafka", "cassandra")}
    return [
        f"replication_factor: {factor} copies can't lie on the {size} host(s) of {name}"
        for name, size in sizes.items()
        if 0 < size < factor
    ]


def _faults_of_memory(
    hosts: tuple[Host, ...], catalogue: Catalogue, machine_memory_mb: int | None
) -> list[str]:
    faults = []
    for host in hosts:
        size = catalogue.sizes[host.size]["memory_mb"]
        need = catalogue.reserve_mb + sum(catalogue.services[name]["memory_mb"] for name in host.services)
        if need > size:
            faults.append(
                f"host {host.name}: its services need {need} MiB, size {host.size} has {size} MiB;"
                " choose a larger size or move a service"
            )
    total = sum(catalogue.sizes[host.size]["memory_mb"] for host in hosts)
    if machine_memory_mb is not None and total > machine_memory_mb:
        faults.append(
            f"the hosts need {total} MiB, this machine has {machine_memory_mb} MiB;"
            " choose a smaller topology (single) or a larger machine"
        )
    return faults


def _doubles(numbers: dict[str, int], what: str) -> list[str]:
    owners: dict[int, list[str]] = {}
    for owner, number in numbers.items():
        owners.setdefault(number, []).append(owner)
    return [
        f"{what} {number!r} is used by {' and '.join(names)}; each needs its own"
        for number, names in owners.items()
        if len(names) > 1
    ]
