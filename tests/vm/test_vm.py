"""What Terraform gives a host of AWS, run for real: first boot, installation, reboot, a new instance on the old volume.

The tests below are the life of one host, in their order.
"""

from __future__ import annotations

import json
import re
import uuid

from testinfra.host import Host

from tests.platform import test_hosts as contract
from tests.platform.conftest import host_named, hosts
from tests.vm.conftest import HOST, Account, install, stage
from tests.vm.machine import Machine

SERVICES = ("kafka", "zookeeper")


def check_boot(machine: Machine, account: Account) -> None:
    """What holds after each boot, the first one included."""
    status = machine.run("cloud-init status --wait").stdout
    result = json.loads(machine.output("cat /run/cloud-init/result.json"))["v1"]
    assert result["errors"] == []
    assert status.endswith("status: done\n")
    assert "NoCloud" in result["datasource"]
    assert machine.output("hostname; cat /etc/hostname") == "vm-host\nvm-host"
    assert machine.output("cat /etc/millrace/environment") == account.environment.id
    assert machine.output("id -un; sudo -n id -un") == f"{machine.user}\nroot"
    assert f" {machine.instance.address}/" in machine.output("ip -4 -brief address")
    disk = device(machine)
    assert machine.output("findmnt -rno SOURCE,FSTYPE /srv/data") == f"{disk} ext4"
    for service in SERVICES:
        assert machine.output(f"findmnt -rno SOURCE /var/lib/{service}") == f"{disk}[/{service}]"


def check_services(account: Account) -> None:
    """The host is one like any other, and a record crosses its broker."""
    host = host_named(next(iter(hosts())))
    contract.test_no_unit_failed(host)
    contract.test_every_declared_service_is_enabled_and_runs(host)
    contract.test_sockets_are_those_of_the_port_table(host)
    for folder in ("/etc", "/opt", "/usr/local", "/var/lib/millrace"):
        contract.test_no_secret_is_readable_by_everybody(host, folder)
    text = f"record {uuid.uuid4()}"
    send(host, text)
    assert text in records(host)


def device(machine: Machine) -> str:
    """The disk whose serial number is the volume's id."""
    serial = machine.instance.volume_id.replace("-", "")
    disks = machine.output("lsblk -dnpo NAME,SERIAL").splitlines()
    return next(disk.split()[0] for disk in disks if disk.split()[1:] == [serial])


def send(host: Host, text: str) -> None:
    """Write a record to the topic of the health checks."""
    produced = host.run(f"echo '{text}' | kafka-console-producer --topic millrace.probe")
    assert produced.rc == 0, produced.stderr


def records(host: Host) -> list[str]:
    """All records of that topic; health checks write bytes that are no text."""
    consumed = host.run(
        "timeout 300 kafka-console-consumer --topic millrace.probe --from-beginning --timeout-ms 120000"
    )
    return [line.decode(errors="replace") for line in consumed.stdout_bytes.splitlines()]


def test_first_boot(machine: Machine, account: Account) -> None:
    check_boot(machine, account)
    assert machine.output("sudo ls -A /srv/data") == "kafka\nlost+found\nzookeeper"
    assert (
        machine.output("sudo stat -c %U:%a /home/ansible/.ssh /etc/sudoers.d/ansible")
        == "ansible:700\nroot:440"
    )


def test_installation(machine: Machine, account: Account) -> None:
    with stage("site.yml"):
        install(machine)
    check_services(account)


def test_second_installation_changes_nothing(machine: Machine) -> None:
    with stage("site.yml, second run"):
        output = install(machine)
    recap = re.findall(r"^(\S+) +: ok=\d+ +changed=(\d+)", output, re.MULTILINE)
    assert recap == [("vm-host", "0")], output


def test_reboot(machine: Machine, account: Account) -> None:
    host = host_named(next(iter(hosts())))
    text = f"record {uuid.uuid4()}"
    send(host, text)
    with stage("reboot"):
        machine.reboot()
        host.check_output(
            "timeout 300 sh -c 'until millrace health zookeeper && millrace health kafka; do sleep 5; done'"
        )
    check_boot(machine, account)
    check_services(account)
    assert text in records(host)


def test_a_new_instance_takes_the_volume_over(machine: Machine, account: Account) -> None:
    text = f"record {uuid.uuid4()}"
    send(host_named(next(iter(hosts()))), text)
    label = f"sudo blkid -s UUID -o value {device(machine)}"
    numbers = "stat -c %u /var/lib/kafka /var/lib/zookeeper"
    before = machine.output(f"{label}; {numbers}").splitlines()
    with stage("new instance on the old volume"):
        machine.power_off()
        # The account protects an instance, too.
        account.apply(TF_VAR_protected="false")
        replace = f"-replace='module.hosts.aws_instance.host[\"{HOST}\"]'"
        account.apply(TF_VAR_protected="false", TF_CLI_ARGS_apply=replace)
        successor = account.start()
    assert successor.instance.id != machine.instance.id
    assert successor.volume == machine.volume
    check_boot(successor, account)
    assert successor.output(f"sudo blkid -s UUID -o value {device(successor)}") == before[0]
    # Users of services get numbers in the order of their installation: here, other ones than before.
    successor.output("sudo useradd --system earlier")
    with stage("site.yml on it"):
        install(successor)
    after = successor.output(numbers).splitlines()
    assert all(new != old for new, old in zip(after, before[1:], strict=True))
    for service in SERVICES:
        assert successor.output(f"sudo find /var/lib/{service}/ ! -user {service} ! -user root") == ""
    check_services(account)
    assert text in records(host_named(next(iter(hosts()))))
