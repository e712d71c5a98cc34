"""A virtual machine that starts as an instance of AWS does, in software emulation: QEMU needs no hypervisor for it."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

# Software emulation is six times slower than the machine, and the machine may be busy.
PATIENCE = 1800  # seconds, for a boot or a service's start
# Not 127.0.0.1, which Ansible takes for the controller itself whatever the port.
LOOPBACK = "127.0.0.2"


@dataclass(frozen=True)
class Instance:
    """What the account says of an instance."""

    id: str
    address: str  # its private one
    network: str  # that the address is of
    user_data: str
    memory_mb: int
    cpus: int
    volume_id: str
    volume_gb: int


class Machine:
    """A running instance. Its root disk is its own; the data volume lies beside it and outlives it.

    ``folder`` holds all of it, ``image`` is what scripts/vm-image built, ``state`` the environment's with its ssh key.
    """

    def __init__(self, instance: Instance, folder: Path, image: Path, state: Path, user: str) -> None:
        self.instance = instance
        self.own = folder / instance.id
        self.volume = folder / f"{instance.volume_id}.raw"
        self.image = image
        self.state = state
        self.user = user
        # A port of its own for each machine: its host key is another one.
        with socket.socket() as free:
            free.bind((LOOPBACK, 0))
            self.port: int = free.getsockname()[1]
        self._prepare()
        self._process = self._start()

    def _prepare(self) -> None:
        seed = self.own / "seed"
        seed.mkdir(parents=True)
        name = f"ip-{self.instance.address.replace('.', '-')}"
        key = (self.state / "ssh_key.pub").read_text().strip()
        metadata = {"instance-id": self.instance.id, "local-hostname": name, "public-keys": [key]}
        (seed / "meta-data").write_text(json.dumps(metadata))
        (seed / "user-data").write_text(self.instance.user_data)
        subprocess.run(
            [
                *("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", self.image / "disk.raw"),
                *(self.own / "root.qcow2", "30G"),
            ],
            check=True,
        )
        if not self.volume.exists():
            with self.volume.open("wb") as volume:
                volume.truncate(self.instance.volume_gb * 2**30)

    def _start(self) -> subprocess.Popen[str]:
        instance = self.instance
        network = f"net={instance.network},dhcpstart={instance.address},ipv6=off"
        forward = f"hostfwd=tcp:{LOOPBACK}:{self.port}-{instance.address}:22"
        disk = "if=none,cache=unsafe,discard=unmap"
        command = [
            # It ends with the tests, however they end.
            *("setpriv", "--pdeathsig", "KILL"),
            *("qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "max", "-nodefaults"),
            *("-smp", str(instance.cpus), "-m", str(instance.memory_mb)),
            *("-display", "none", "-serial", f"file:{self.own}/console.log", "-qmp", "stdio"),
            *("-kernel", str(self.image / "vmlinuz"), "-initrd", str(self.image / "initrd.img")),
            *("-append", "root=LABEL=root ro console=ttyS0"),
            *(
                "-netdev",
                f"user,id=network,{network},{forward}",
                "-device",
                "virtio-net-pci,netdev=network,romfile=",
            ),
            # Disks are NVMe ones, and a volume's serial number is its id, as an instance of AWS sees them.
            *("-drive", f"{disk},id=root,format=qcow2,file={self.own}/root.qcow2"),
            *("-device", "nvme,drive=root,serial=root"),
            *("-drive", f"{disk},id=volume,format=raw,file={self.volume}"),
            *("-device", "pcie-root-port,id=later"),
            # Where cloud-init's data source NoCloud finds user data and metadata.
            *("-blockdev", f"driver=vvfat,node-name=seed,dir={self.own}/seed,label=cidata,read-only=on"),
            *("-device", "virtio-blk-pci,drive=seed"),
        ]
        log = (self.own / "qemu.log").open("w")
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, text=True
        )

    def attach_volume(self) -> None:
        """Attach the data volume once the machine answers: on AWS, too, it comes after the start."""
        self._until(self._answers, "ssh answers")
        serial = self.instance.volume_id.replace("-", "")
        device = {"driver": "nvme", "drive": "volume", "serial": serial, "bus": "later"}
        assert self._process.stdin
        for command in (
            {"execute": "qmp_capabilities"},
            {"execute": "device_add", "arguments": {**device, "id": "data"}},
        ):
            print(json.dumps(command), file=self._process.stdin, flush=True)

    def wait_for_login(self) -> None:
        """Wait until the user of Ansible can log in, which the first boot's script allows at its end."""
        self._until(lambda: self.run("true").returncode == 0, f"{self.user} can log in")

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the machine as the user of Ansible."""
        options = ["UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "LogLevel=ERROR"]
        options += ["ConnectTimeout=20", "ServerAliveInterval=15", "IdentitiesOnly=yes", "BatchMode=yes"]
        return subprocess.run(
            ["ssh", "-F", "none", "-i", self.state / "ssh_key", "-p", str(self.port)]
            + [word for option in options for word in ("-o", option)]
            + [f"{self.user}@{LOOPBACK}", command],
            text=True,
            capture_output=True,
            check=False,
        )

    def output(self, command: str) -> str:
        """What a command prints, which must succeed."""
        result = self.run(command)
        assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
        return result.stdout.strip()

    def reboot(self) -> None:
        """Restart the system and wait for a login to the restarted one."""
        boot = "cat /proc/sys/kernel/random/boot_id"
        before = self.output(boot)
        self.run("sudo systemctl reboot")

        def restarted() -> bool:
            now = self.run(boot)
            return now.returncode == 0 and now.stdout.strip() != before

        self._until(restarted, "the restarted system can be logged in to")

    def power_off(self) -> None:
        """Shut the system down in order."""
        self.run("sudo systemctl poweroff")
        self._process.wait(PATIENCE)

    def remove(self) -> None:
        """Take it away as it stands."""
        self._process.kill()
        self._process.wait()

    def console(self, lines: int = 40) -> str:
        """The last lines of its console and what QEMU said."""
        texts = [
            (self.own / name).read_text(errors="replace")
            for name in ("qemu.log", "console.log")
            if (self.own / name).exists()
        ]
        return "\n".join("\n".join(texts).splitlines()[-lines:])

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((LOOPBACK, self.port), timeout=10) as connection:
            return connection.recv(4) == b"SSH-"
        return False

    def _until(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            if self._process.poll() is not None:
                pytest.fail(f"QEMU ended before {what}:\n{self.console()}", pytrace=False)
            if time.monotonic() > deadline:
                pytest.fail(f"not within {PATIENCE} s: {what}\n{self.console()}", pytrace=False)
            time.sleep(2)
