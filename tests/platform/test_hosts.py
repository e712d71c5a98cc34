"""Every host by itself: its units, its ports, its secrets."""

from __future__ import annotations

import re
import shlex

import pytest
from testinfra.host import Host

from millrace.topology import Catalogue
from tests.platform.conftest import description, secrets

CATALOGUE = Catalogue.load().services
# What a host listens on beside the platform: ssh, and with a cloud's image systemd's resolver (LLMNR, DNS for itself).
SYSTEM_PORTS = {22, 5355}
RESOLVER = {(53, "127.0.0.53"), (53, "127.0.0.54")}
# Where the Python of a Spark driver and its JVM find each other, each time by another port and by a token.
OWN_CONVERSATIONS = ("127.0.0.1", range(32768, 65536))


def test_no_unit_failed(host: Host) -> None:
    failed = host.check_output("systemctl list-units --state=failed --plain --no-legend")
    assert failed == ""


def test_sockets_are_those_of_the_port_table(host: Host) -> None:
    """Nothing listens that the table doesn't know, and nothing listens wider than it says."""
    mine = description(host)
    address = mine["address"]
    allowed = RESOLVER | {
        (number, "127.0.0.1" if port["bind"] == "loopback" else address)
        for service in mine["services"]
        for port in CATALOGUE[service]["ports"].values()
        for number in range(port["port"], port.get("last", port["port"]) + 1)
    }
    strangers = []
    for line in host.check_output("ss -Htlnp").splitlines():
        local = line.split()[3]
        bound, port = local.rsplit(":", 1)
        bound = re.sub(r"[\[\]]|::ffff:", "", bound).split("%")[0]
        if int(port) in SYSTEM_PORTS or (int(port), bound) in allowed:
            continue
        if (int(port), "127.0.0.1") in allowed and bound == "::1":
            continue
        if bound == OWN_CONVERSATIONS[0] and int(port) in OWN_CONVERSATIONS[1]:
            continue
        strangers.append(line)
    assert strangers == []


def test_every_declared_service_is_enabled_and_runs(host: Host) -> None:
    units = host.check_output("ls /var/lib/millrace/fingerprints").split()
    assert units, "no unit was ever seen to serve on this host"
    for unit in units:
        assert host.check_output(f"systemctl is-active {unit}") == "active", unit


@pytest.mark.parametrize("folder", ["/etc", "/opt", "/usr/local", "/var/lib/millrace"])
def test_no_secret_is_readable_by_everybody(host: Host, folder: str) -> None:
    patterns = "\n".join(secrets().values())
    found = host.run(
        f"printf '%s\\n' '{patterns}' | grep -rlF -f - {folder} | xargs -r stat -c '%a %n'"
    ).stdout
    exposed = [line for line in found.splitlines() if int(line.split()[0], 8) & 0o007]
    assert exposed == []


# What tries, as the build of the depot would be run, to get out of its sandbox.
CONFINED = """
import shutil, sys
sys.dont_write_bytecode = True
sys.path.insert(0, "/srv/depot/source/artifacts")
import build
from pathlib import Path
depot = build.Depot(Path("/srv/depot/source"), Path("/srv/depot/served"))
print(depot.confined("sh", "-c", sys.stdin.read()))
shutil.rmtree(build.STAGE)
"""
ESCAPES = """
id -u
for place in /srv/depot /srv/depot/source /srv/depot/served /etc /root /usr/local/bin /opt /var/lib/millrace /run; do
  touch $place/escaped 2>/dev/null && echo wrote $place
done
ls -A /srv/depot
cat /etc/millrace/connections/* /etc/shadow 2>/dev/null
ls /root 2>/dev/null
touch $HOME/built && echo built
sleep 1000 >/dev/null 2>&1 &
"""


def test_the_depots_build_has_no_rights(host: Host) -> None:
    """Code that it downloads runs as nobody, sees nothing but its source, writes nowhere else, and leaves nothing running."""
    if not host.file("/srv/depot/source").exists:
        return  # another host has the depot
    program = f"python3 -c {shlex.quote(CONFINED)} <<'END'{ESCAPES}END"
    user, *rest = host.check_output(program).split()
    assert int(user) > 60_000, "a user that exists for this alone"
    assert rest == ["source", "built"]
    assert host.run("pgrep -f '[s]leep 1000'").stdout == ""
