"""Who reaches which port of a host: a stranger none, an operator and the other hosts those of the port table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from testinfra.host import Host

from millrace import environment as environments
from millrace.topology import Catalogue
from tests.platform.conftest import description, host_named, hosts
from tests.platform.stranger import PROBE, Stranger, Target, answered, stranger

CATALOGUE = Catalogue.load()
SOUND = Path(__file__).resolve().parents[2] / "roles/firewall/files/sound.py"
# Connects to ssh; sends each line that it is given, if there is something in it, and tells whether the server answers.
TALK = """
import socket, sys
server = socket.create_connection((sys.argv[1], 22), 5)
server.settimeout(3)
for line in sys.stdin:
    try:
        server.sendall(line.strip().encode() and line.encode())
        print("answered" if server.recv(1000) else "closed", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""
# A network of examples, which nobody is in.
NOBODY = "192.0.2.0/24"


@cache
def targets() -> list[Target]:
    """Every port of the table on every host, whether something is to listen there or not, and whatever does listen."""
    known = {port["port"] for service in CATALOGUE.services.values() for port in service["ports"].values()}
    known |= {port["port"] for port in CATALOGUE.host_ports.values()}
    found = []
    for name, host in hosts().items():
        lines = host_named(name).check_output("ss -Htln").splitlines()
        listening = {int(line.split()[3].rsplit(":", 1)[1]) for line in lines}
        found += [(host["address"], port) for port in sorted(known | listening)]
    return found


def admitted(source: str) -> set[Target]:
    """Which of them the port table opens to this network."""
    cidrs = environments.current().operator_cidrs()
    openings = {hosts()[name]["address"]: CATALOGUE.openings(name, hosts(), cidrs) for name in hosts()}
    return {
        (address, port)
        for address, port in targets()
        for opening in openings[address]
        if source in opening["sources"] and opening["first"] <= port <= opening["last"]
    }


def dropped(host: Host) -> int:
    table = host.check_output("nft list chain inet millrace input")
    return int(re.search(r'packets (\d+) bytes \d+ comment "dropped"', table)[1])  # type: ignore[index]


@pytest.fixture(scope="module")
def foreign() -> Iterator[Stranger]:
    with stranger() as found:
        yield found


def test_a_stranger_reaches_nothing(foreign: Stranger) -> None:
    """As a host of another environment, on the same bridge. What it sends is counted."""
    before = {name: dropped(host_named(name)) for name in hosts()}
    assert foreign.answers(targets()) == set()
    addresses = {host["address"] for host in hosts().values()}
    assert foreign.neighbours() >= addresses, "it was on their network"
    for name, host in hosts().items():
        sent = sum(address == host["address"] for address, _ in targets())
        assert dropped(host_named(name)) - before[name] >= sent


def test_an_operator_reaches_what_is_his() -> None:
    """From this machine: the pages and ssh."""
    result = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(targets())], capture_output=True, text=True, check=True
    )
    [machine] = environments.current().operator_cidrs()
    assert answered(result.stdout) == admitted(machine)


def test_hosts_reach_each_other_as_the_table_says(host: Host) -> None:
    own = description(host)["address"]
    others = [target for target in targets() if target[0] != own]
    said = host.check_output("python3 -c %s %s", PROBE, json.dumps(others))
    assert answered(said) == admitted(f"{own}/32")


def test_who_is_taken_out_of_the_table_is_cut_off(foreign: Stranger, host: Host) -> None:
    """A connection that is open is one that its next packet has to be let in for."""
    address = description(host)["address"]
    host.check_output(f"nft insert rule inet millrace input ip saddr {foreign.address} tcp dport 22 accept")
    try:
        with foreign.start(sys.executable, "-c", TALK, address) as talk:
            said = []
            # Its greeting, and its answer to ours.
            for line in ("", "SSH-2.0-somebody"):
                if line:
                    host.check_output("systemctl reload millrace-firewall")
                print(line, file=talk.stdin, flush=True)
                said.append(talk.stdout.readline().strip())  # type: ignore[union-attr]
            talk.stdin.close()  # type: ignore[union-attr]
    finally:
        host.check_output("systemctl reload millrace-firewall")
    assert said == ["answered", "TimeoutError"]


def test_the_tables_of_others_stay(host: Host) -> None:
    host.check_output("nft add table inet of_others")
    try:
        host.check_output("systemctl reload millrace-firewall")
        tables = host.check_output("nft list tables").splitlines()
        assert {"table inet of_others", "table inet millrace"} <= set(tables)
    finally:
        host.check_output("nft delete table inet of_others")


def test_a_firewall_that_was_flushed_is_no_healthy_host(host: Host) -> None:
    host.check_output("nft flush chain inet millrace input && nft add rule inet millrace input accept")
    try:
        answer = host.run("millrace health units")
        assert answer.rc != 0
        assert "systemctl reload millrace-firewall" in answer.stderr
    finally:
        host.check_output("systemctl reload millrace-firewall")
    host.check_output("millrace health units")


def test_rules_that_would_shut_out_who_installs_them_are_refused(host: Host) -> None:
    """The address that this very connection comes from must be let in."""
    cidrs = environments.current().operator_cidrs()
    check = "python3 -c %s /etc/millrace/firewall.nft"
    host.check_output(f"{check} 22 {' '.join(cidrs)}", SOUND.read_text())
    for wrong in (f"22 {NOBODY}", f"2222 {' '.join(cidrs)}"):
        answer = host.run(f"{check} {wrong}", SOUND.read_text())
        assert answer.rc != 0
        assert "would shut out the connection that installs them" in answer.stderr
