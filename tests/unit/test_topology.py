"""The topology's validator: what is refused, with which words, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from millrace import topology as topologies

CORPUS = sorted((topologies.ROOT / "tests" / "topologies").glob("*.yml"))
SHIPPED = sorted(path.stem for path in topologies.TOPOLOGIES.glob("*.yml"))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_each_fault_is_refused_with_one_message(path: Path) -> None:
    expected = path.read_text().splitlines()[1].removeprefix("# refused: ")
    with pytest.raises(topologies.TopologyError) as refusal:
        topologies.load(str(path.relative_to(topologies.ROOT)))
    lines = str(refusal.value).splitlines()
    assert [line for line in lines if expected in line], str(refusal.value)
    assert len(lines) == 1, "one fault gives one message"


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_topologies_are_sound(name: str) -> None:
    topology = topologies.load(name)
    assert topology.members("depot")


def test_a_machine_that_is_too_small_is_refused() -> None:
    with pytest.raises(topologies.TopologyError, match=r"the hosts need \d+ MiB, this machine has 1024 MiB"):
        topologies.load("compact", machine_memory_mb=1024)


def test_a_subnet_that_is_too_small_is_refused() -> None:
    with pytest.raises(topologies.TopologyError, match="host control: index 10 is outside 1 to 9"):
        topologies.load("compact", last_index=9)


def test_replication_follows_the_members() -> None:
    assert topologies.load("compact").replication("cassandra") == 3
    assert topologies.load("single").replication("kafka") == 1


def test_an_unknown_topology_names_those_that_exist() -> None:
    with pytest.raises(topologies.TopologyError, match="there are: compact"):
        topologies.load("nope")


def test_a_port_is_open_to_the_hosts_of_its_from_and_to_operators() -> None:
    catalogue = topologies.Catalogue(
        services={
            "server": {"ports": {
                "data": {"port": 7100, "last": 7109, "bind": "host", "from": ["client"]},
                "page": {"port": 8080, "bind": "host", "from": ["operator"]},
                "peers": {"port": 7000, "bind": "host", "from": ["server"]},
                "inner": {"port": 9000, "bind": "loopback", "from": ["all"]},
            }},
            "client": {"ports": {}},
            "other": {"ports": {}},
        },
        host_ports={"ssh": {"port": 22, "bind": "host", "from": ["operator"]}},
        sizes={},
        reserve_mb=0,
    )  # fmt: skip
    hosts = {
        name: {"address": f"10.0.0.{number}", "services": [name]}
        for number, name in enumerate(catalogue.services, 1)
    }
    assert catalogue.openings("server", hosts, ["192.0.2.0/24"]) == [
        {"name": "host/ssh", "first": 22, "last": 22, "sources": ["192.0.2.0/24"]},
        {"name": "server/data", "first": 7100, "last": 7109, "sources": ["10.0.0.2/32"]},
        {"name": "server/page", "first": 8080, "last": 8080, "sources": ["192.0.2.0/24"]},
    ]


@pytest.mark.parametrize(
    ("cidrs", "reason"),
    [
        ("192.0.2.0/24", "a list of networks"),
        (["192.0.2.7/24"], r"its network is 192\.0\.2\.0/24, it alone 192\.0\.2\.7/32"),
        (["2001:db8::7/64"], "its network is 2001:db8::/64"),
        (["here"], "'here' is not a network"),
        ([""], "'' is not a network"),
    ],
)
def test_operators_are_networks(cidrs: list[str], reason: str) -> None:
    with pytest.raises(topologies.TopologyError, match=reason):
        topologies.Catalogue.load().openings("host", {"host": {"address": "10.0.0.1", "services": []}}, cidrs)
