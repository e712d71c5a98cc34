"""What a person asks first: do the units run, and how far has the flow come."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

from millrace import topics
from millrace.connections import Connections
from millrace.errors import NotWhole
from millrace.postgresql import postgresql_session
from millrace.schemas import TOPIC

# What the firewall's unit has loaded, as the kernel told it then.
LOADED = Path("/run/millrace-firewall/loaded")
_TABLE = ("list", "table", "inet", "millrace")
# Written by the deployment once a unit was seen to serve.
UNITS = Path("/var/lib/millrace/fingerprints")
_SHOWN = ("Id", "ActiveState", "SubState", "NRestarts", "MemoryCurrent", "ActiveEnterTimestamp")


def units() -> list[str]:
    """One line per unit of the platform on this host: state, memory in MiB, restarts by systemd, since when; a sum."""
    lines = []
    total = 0
    for shown in _units():
        memory = int(shown["MemoryCurrent"]) >> 20 if shown["MemoryCurrent"].isdigit() else 0
        total += memory
        lines.append(
            f"{shown['Id'].removesuffix('.service'):<24} {_state(shown):<18} {memory:>5} MiB  restarts {shown['NRestarts']:<3} "
            f"since {shown['ActiveEnterTimestamp']}"
        )
    if LOADED.exists():
        lines.append(f"{'firewall':<24} {_dropped()} packets dropped")
    return [*lines, f"{'all':<24} {'':<18} {total:>5} MiB"]


def units_active(_: Connections) -> str:
    """Every unit of the platform on this host runs, and its firewall is in force."""
    shown = _units()
    if idle := [f"{unit['Id']} is {_state(unit)}" for unit in shown if unit["ActiveState"] != "active"]:
        raise NotWhole(f"Units of {socket.gethostname()}: {', '.join(idle)}; see `journalctl -u` of each")
    if LOADED.exists() and _nft("--stateless", "--terse") != LOADED.read_text():
        raise NotWhole(
            f"Firewall of {socket.gethostname()}: its rules are not those that were loaded, somebody has flushed or changed"
            " them; `systemctl reload millrace-firewall` loads them again"
        )
    return f"Units: {len(shown)} run on {socket.gethostname()}"


def _nft(*options: str) -> str:
    """Return the firewall's table as the kernel has it, nothing where it has none."""
    command = ["/usr/sbin/nft", *options, *_TABLE]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _dropped() -> int:
    """Return how many packets the firewall has dropped since its rules were loaded."""
    found = re.search(r'counter packets (\d+) bytes \d+ comment "dropped"', _nft())
    return int(found[1]) if found else 0


def _units() -> list[dict[str, str]]:
    """Return what systemd shows of each unit that was once seen to serve on this host."""
    names = sorted(path.name for path in UNITS.iterdir()) if UNITS.exists() else []
    if not names:
        return []
    command = ["systemctl", "show", "-p", ",".join(_SHOWN), *names]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [dict(line.split("=", 1) for line in unit.splitlines()) for unit in output.strip().split("\n\n")]


def _state(shown: dict[str, str]) -> str:
    return f"{shown['ActiveState']} ({shown['SubState']})"


def counts(connections: Connections) -> list[str]:
    """How many users are at each station, what waits to be published, and what needs a person."""
    with (
        postgresql_session(connections.postgresql, application_name="status") as session,
        session.cursor() as cursor,
    ):
        cursor.execute("SELECT count(*), max(created_at) FROM millrace.users")
        users, newest = cursor.fetchone() or (0, None)
        cursor.execute("SELECT count(*), min(enqueued_at) FROM millrace.users_outbox")
        waiting, oldest = cursor.fetchone() or (0, None)
        cursor.execute("SELECT count(*) FROM millrace.users_quarantine")
        (quarantined,) = cursor.fetchone() or (0,)
    with topics.consumer(connections.kafka) as client:
        records = sum(topics.end_offsets(client).values())
        unresolved = [letter for letter in topics.dead_letters(client) if not letter.resolved]
    return [
        f"PostgreSQL   {users} users, the newest of {newest or 'never'}",
        f"outbox       {waiting} wait for the relay" + (f", the oldest since {oldest}" if oldest else ""),
        f"quarantine   {quarantined} can't be encoded"
        + (": see table millrace.users_quarantine" if quarantined else ""),
        f"topic        {records} records of {TOPIC} so far",
        f"dead letters {len(unresolved)} unresolved" + (": millrace dead-letters list" if unresolved else ""),
    ]
