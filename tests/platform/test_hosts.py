"""Every host by itself: its units, its ports, its secrets."""

from __future__ import annotations

import json
import re
import shlex
import subprocess

import pytest
from testinfra.host import Host

from millrace import environment as environments
from millrace.topology import Catalogue
from tests.platform.conftest import description, members, secrets

CATALOGUE = Catalogue.load().services
# What a host listens on beside the services: ssh, and with a cloud's image systemd's resolver (LLMNR, DNS for itself).
SYSTEM_PORTS = {port["port"] for port in Catalogue.load().host_ports.values()} | {5355}
RESOLVER = {(53, "127.0.0.53"), (53, "127.0.0.54")}
# The way in: what it may do, who logs in may do.
SSH_UNITS = {"ssh.service", "ssh-host-keys.service"}
# Section of root's logins -> the secret in it.
ADMIN_SECRETS = {
    "zookeeper": "zookeeper_super",
    "kafka": "kafka_admin",
    "registry": "schema_registry_admin",
    "postgresql": "postgresql_millrace",
    "cassandra": "cassandra_admin",
    "source": "offline_source_control",
    "spark_cluster": "spark_ui",
    "airflow": "airflow_admin",
}
# Where the Python of a Spark driver and its JVM find each other, each time by another port and by a token.
OWN_CONVERSATIONS = ("127.0.0.1", range(32768, 65536))


def own_units(host: Host) -> list[str]:
    """The units that were seen to serve, whose files are the platform's, and that have a process: a firewall's has ended."""
    units = host.check_output("ls /var/lib/millrace/fingerprints").split()
    return [
        unit
        for unit in units
        if host.file(f"/etc/systemd/system/{unit}").exists and unit != "millrace-firewall.service"
    ]


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


def test_every_unit_of_the_platform_is_sandboxed(host: Host) -> None:
    """By systemd's own measure, of 0 to 10: every unit that was installed or changed here, also one that a timer starts."""
    files = host.check_output("find /etc/systemd/system -type f -path '*.service*'").splitlines()
    named = [re.search(r"([^/]+[.]service)([.]d/|$)", path) for path in files]
    units = {found[1] for found in named if found} - SSH_UNITS
    assert units, "no unit of the platform is on this host"
    for unit in units:
        measured = host.run("systemd-analyze security --no-pager --threshold=20 %s", unit)
        assert measured.rc == 0, measured.stdout.splitlines()[-1:] or measured.stderr
        pid = host.check_output("systemctl show -p MainPID --value %s", unit)
        # What runs may have been started before the unit was changed.
        assert pid == "0" or host.check_output(f"stat -c %U /proc/{pid}") != "root", f"{unit} runs as root"


def test_services_run_programs_from_their_temporary_folders(host: Host) -> None:
    """JVMs unpack their native libraries there. On the host itself nothing runs from there, as on hardened images."""
    attempt = "for folder in /tmp /var/tmp; do cp /bin/true $folder/test-program && $folder/test-program && echo ran; done"
    assert host.run(attempt).stdout == ""
    for unit in own_units(host):
        pid = host.check_output("systemctl show -p MainPID --value %s", unit)
        inside = host.check_output(f"nsenter --mount --target {pid} sh -c %s", attempt)
        assert inside.split() == ["ran", "ran"], unit


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


def test_root_has_the_logins_that_are_needed_on_its_host_and_no_other(host: Host) -> None:
    """And its commands say where those are that it has not."""
    needed = {
        section
        for service in description(host)["services"]
        for section in CATALOGUE[service].get("logins", [])
    }
    document = json.loads(host.file("/etc/millrace/connections/admin.json").content_string)
    elsewhere = document.pop("elsewhere")
    assert document.keys() == needed
    assert elsewhere.keys().isdisjoint(needed)
    for section, names in elsewhere.items():
        holders = {
            name
            for service, entry in CATALOGUE.items()
            if section in entry.get("logins", [])
            for name in members(service)
        }
        assert set(names) == holders, section
    others = "\n".join(secrets()[name] for section, name in ADMIN_SECRETS.items() if section not in needed)
    found = host.run("printf %s %s | grep -rlF -f - /etc/millrace", "%s\\n", others).stdout if others else ""
    assert found == ""
    if names := elsewhere.get("postgresql"):
        refused = host.run("millrace migrate postgresql")
        assert refused.rc != 0
        assert f"run it on {' or '.join(names)}" in refused.stderr


def test_logins_are_by_key_alone(host: Host) -> None:
    """As sshd says, and as a client without the key finds."""
    effective = host.check_output("sshd -T").splitlines()
    for setting in ("passwordauthentication no", "kbdinteractiveauthentication no", "x11forwarding no"):
        assert setting in effective
    assert "permitrootlogin without-password" in effective or "permitrootlogin no" in effective
    mine = description(host)
    config = environments.current().ssh_config()
    refused = subprocess.run(
        [
            "ssh",
            "-F",
            config,
            "-o",
            "PubkeyAuthentication=no",
            f"{mine['user']}@{mine['operator_address']}",
            "true",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert "Permission denied (publickey)" in refused.stderr
