"""Faults, each with its undo.

A fault is a function without arguments that does harm and returns what mends it (None where nothing is left to mend:
systemd brings a killed process back). Mending twice does no harm. `heal` mends whatever a run that was cut off has left.

Steps of the wall clock are not here: containers share the clock of their machine, and may not set it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from testinfra.host import Host

from millrace.topology import Catalogue
from tests.faults.flow import begin, wait_for
from tests.faults.remote import control, now, script
from tests.faults.targets import EXECUTOR, Target, Unit, addresses, postgresql
from tests.platform.conftest import host_named, hosts, members
from tests.remote import boot

log = logging.getLogger(__name__)

Undo = Callable[[], object]
# What it returns that is no function is nothing to undo.
Fault = Callable[[], object]

TABLE = "millrace_faults"
# Where a small disk is made, and by its name the folder that it stands in for.
DISKS = "/var/lib/millrace-faults-disks"
DEVICE = "eth0"


def kill(target: Target, whom: str = "all") -> Fault:
    """kill -9, of all processes of a unit or of its `main` one."""

    def inject() -> None:
        for unit in target():
            unit.host.check_output(f"systemctl kill --signal=KILL --kill-whom={whom} {unit.name}")

    return inject


def kill_executors() -> None:
    """kill -9 of one executor of the streaming job."""
    for name in members("spark_worker"):
        if host_named(name).run(f"pkill -9 -f '{EXECUTOR}'").rc == 0:
            return
    raise AssertionError("the streaming job has no executor: `millrace health users_stream`")


def stop(target: Target) -> Fault:
    """An orderly stop, until it is undone."""

    def inject() -> Undo:
        units = target()
        _at_once(lambda unit: unit.host.check_output(f"systemctl stop {unit.name}"), units)
        return lambda: _at_once(lambda unit: unit.host.check_output(f"systemctl start {unit.name}"), units)

    return inject


def down(target: Target) -> Fault:
    """Dead at once, and not started again until it is undone."""

    def inject() -> Undo:
        units = target()
        # Killed, and before systemd starts it again, stopped.
        _at_once(
            lambda unit: unit.host.check_output(
                f"systemctl kill --signal=KILL {unit.name}; systemctl stop {unit.name}"
            ),
            units,
        )
        return lambda: _at_once(lambda unit: unit.host.check_output(f"systemctl start {unit.name}"), units)

    return inject


def restart(target: Target) -> Fault:
    """An orderly restart."""

    def inject() -> None:
        for unit in target():
            unit.host.check_output(f"systemctl restart {unit.name}")

    return inject


def pause(target: Target) -> Fault:
    """SIGSTOP: it is there, holds its connections, and does nothing."""

    def inject() -> Undo:
        units = target()

        def signal(name: str) -> None:
            for unit in units:
                unit.host.check_output(f"systemctl kill --signal={name} {unit.name}")

        signal("STOP")
        return lambda: signal("CONT")

    return inject


def reboot(*services: str) -> Fault:
    """A hard reboot of the first host of each of these services (all hosts where none is given): nothing ends in order."""

    def inject() -> None:
        names = [members(service)[0] for service in services] or list(hosts())
        booted = {name: boot(name) for name in names}
        for name in names:
            # The connection ends with the host.
            host_named(name).run(
                "systemd-run -q --on-active=1 --timer-property=AccuracySec=100ms systemctl reboot --force --force"
            )
        for name in names:
            wait_for(
                lambda name=name: boot(name) not in ("", booted[name]),
                120,
                f"{name} is not back",
            )
        begin()

    return inject


def partition(target: Target, *, into: bool = True, out: bool = True) -> Fault:
    """Cut a broker off from all other hosts and from every ZooKeeper: what comes in, what goes out, or both.

    Also from the ZooKeeper of its own host, which a broken network would cut off with it: as long as that keeps its session
    alive, a broker leads however few can reach it.
    """

    def inject() -> Undo:
        [unit] = target()
        peers = ", ".join(addresses([name for name in hosts() if name != unit.host_name]))
        services = Catalogue.load().services
        broker, client = (services["kafka"]["ports"][name]["port"] for name in ("broker", "client"))
        zookeeper = services["zookeeper"]["ports"]["client"]["port"]
        rules = []
        if into:
            rules += [
                f"add rule inet {TABLE} input {packets} drop"
                # To it, and back to it from whom it asked.
                for packets in (
                    f"ip saddr {{ {peers} }} tcp dport {{ {broker}, {client} }}",
                    f"ip saddr {{ {peers} }} tcp sport {broker}",
                    f"tcp sport {zookeeper}",
                )
            ]
        if out:
            rules += [
                f"add rule inet {TABLE} output {packets} drop"
                for packets in (
                    f"ip daddr {{ {peers} }} tcp sport {{ {broker}, {client} }}",
                    f"ip daddr {{ {peers} }} tcp dport {broker}",
                    f"tcp dport {zookeeper}",
                )
            ]
        return _filter([unit.host_name], lambda _: rules)

    return inject


def loss(service: str, percent: int) -> Fault:
    """Lose this share of the packets between the hosts of a service."""

    def inject() -> Undo:
        names = members(service)

        def rules(name: str) -> list[str]:
            peers = ", ".join(addresses([peer for peer in names if peer != name]))
            return [
                f"add rule inet {TABLE} input ip saddr {{ {peers} }} numgen random mod 100 < {percent} drop"
            ]

        return _filter(names, rules)

    return inject


def slow_link(target: Target, rate: str) -> Fault:
    """Let a host send no faster than `rate` (as tc writes it)."""

    def inject() -> Undo:
        names = sorted({unit.host_name for unit in target()})
        for name in names:
            _require(name, "tc", "iproute2")
            host_named(name).check_output(
                f"tc qdisc replace dev {DEVICE} root tbf rate {rate} burst 32kbit latency 400ms"
            )
        return lambda: [_no_slow_link(host_named(name)) for name in names]

    return inject


def small_disk(target: Target, free_mb: int) -> Fault:
    """Have a service go on with a file system for its data that has this much room. Its rows are carried over, and back."""

    def inject() -> Undo:
        [unit] = target()
        data = f"/var/lib/{unit.name}"
        unit.host.check_output(f"systemctl stop {unit.name}")
        unit.host.check_output(
            f"mkdir -p {DISKS}/{unit.name} && size=$(du -sm {data} | cut -f1) && "
            f"mount -t tmpfs -o size=$((size + {free_mb}))m,mode=0755 tmpfs {DISKS}/{unit.name} && "
            f"cp -a {data}/. {DISKS}/{unit.name}/ && chown --reference={data} {DISKS}/{unit.name} && "
            f"chmod --reference={data} {DISKS}/{unit.name} && mount --bind {DISKS}/{unit.name} {data} && "
            f"systemctl start {unit.name}"
        )
        return lambda: _no_small_disk(unit.host, unit.name)

    return inject


def full_disk(target: Target) -> Fault:
    """Fill the small disk to its last byte; undone, there is room again. The unit must have died of it."""

    def inject() -> Undo:
        [unit] = target()
        ballast = f"{DISKS}/{unit.name}/ballast"
        unit.host.run(f"dd if=/dev/zero of={ballast} bs=64k status=none")
        free = unit.host.check_output(f"df --output=avail {DISKS}/{unit.name} | tail -1")
        assert int(free) == 0, f"{free} KiB are free"
        restarts = f"systemctl show -p NRestarts --value {unit.name}"
        before = int(unit.host.check_output(restarts))

        def ends() -> None:
            unit.host.check_output(f"rm -f {ballast}")
            assert int(unit.host.check_output(restarts)) > before, f"{unit.name} did not need the room"

        return ends

    return inject


def flush(target: Target) -> Fault:
    """Have a node of Cassandra write its memtables to disk, which it would only do after hours of such a small flow."""

    def inject() -> None:
        for unit in target():
            # It may die of it.
            unit.host.run("nodetool flush")

    return inject


def lose_checkpoint() -> Undo | None:
    """The streaming job and its log of offsets are gone; it is started with none."""
    control().check_output(
        "systemctl kill --signal=KILL users_stream; systemctl stop users_stream; "
        "rm -r /var/lib/users_stream/checkpoint; systemctl start --no-block users_stream"
    )
    return None


def kill_relay_between_ack_and_delete() -> None:
    """kill -9 of the relay with every acknowledgement in and no outbox row deleted."""
    log.info("%s", script("relay_at_delete"))


def kill_driver_between_write_and_commit() -> None:
    """kill -9 of the streaming job with a batch in both tables and not committed."""
    log.info("%s", script("driver_at_commit"))


def kill_postmaster_in_ingest() -> None:
    """kill -9 of PostgreSQL's postmaster with a batch copied and not committed."""
    [unit] = postgresql()
    log.info("%s", script("postmaster_at_ingest", unit.name))


def second_relay() -> Undo:
    """Another relay beside the first, with the same login. It must have taken its share."""
    began = now()
    control().check_output(
        "systemd-run -q --collect --unit=faults-relay -p User=relay -p Restart=on-failure "
        "-E MILLRACE_CONNECTIONS=/etc/millrace/connections/relay.json /opt/millrace/current/bin/millrace relay"
    )

    def ends() -> None:
        control().run("systemctl stop faults-relay")
        said = f"journalctl -u faults-relay --since @{began:.0f} -o cat | grep -q 'published [1-9]'"
        assert control().run(said).rc == 0, "the second relay published nothing"

    return ends


def heal() -> None:
    """Mend everything that faults of this module may have left."""

    def mend(host: Host) -> None:
        host.run(f"nft delete table inet {TABLE}")
        _no_slow_link(host)
        for name in host.run(f"ls {DISKS}").stdout.split():
            _no_small_disk(host, name)
        units = host.check_output("ls /var/lib/millrace/fingerprints").split()
        host.run(f"systemctl kill --signal=CONT {' '.join(units)}")
        host.run(f"systemctl start --no-block {' '.join(units)}")

    control().run("systemctl stop faults-relay")
    control().run("millrace source well")
    control().run("millrace dead-letters list | cut -d' ' -f1 | xargs -rn1 millrace dead-letters resolve")
    _at_once(lambda name: mend(host_named(name)), list(hosts()))


def _filter(names: list[str], rules: Callable[[str], list[str]]) -> Undo:
    """Add packet filter rules to each host, in a table of their own."""
    for name in names:
        _require(name, "nft", "nftables")
        lines = [
            f"add table inet {TABLE}",
            *(
                f"add chain inet {TABLE} {hook} {{ type filter hook {hook} priority -10; }}"
                for hook in ("input", "output")
            ),
            *rules(name),
        ]
        host_named(name).check_output("printf %s %s | nft -f -", "%s\n", "\n".join(lines))
    return lambda: [host_named(name).run(f"nft delete table inet {TABLE}") for name in names]


def _require(host_name: str, program: str, package: str) -> None:
    host = host_named(host_name)
    if host.run(f"command -v {program}").rc:
        host.check_output(
            f"apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y {package}"
        )


def _no_slow_link(host: Host) -> None:
    host.run(f"tc qdisc del dev {DEVICE} root")


def _no_small_disk(host: Host, name: str) -> None:
    """Carry the data back to where it was; a disk that a reboot took has left the old data in place."""
    data = f"/var/lib/{name}"
    if host.run(f"mountpoint -q {data}").rc == 0:
        host.check_output(
            f"systemctl stop {name}; rm -f {data}/ballast; umount {data} && "
            f"find {data} -mindepth 1 -delete && cp -a {DISKS}/{name}/. {data}/ && "
            f"umount {DISKS}/{name} && systemctl start {name}"
        )
    host.check_output(f"rmdir {DISKS}/{name}")


def _at_once(act: Callable[[Unit], object] | Callable[[str], object], items: list) -> None:  # type: ignore[type-arg]
    with ThreadPoolExecutor(len(items)) as pool:
        list(pool.map(act, items))
