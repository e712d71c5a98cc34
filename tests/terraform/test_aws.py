"""The aws environment, applied for real against a stand-in: made, grown, kept, destroyed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from millrace.topology import Catalogue
from tests.person import ROOT, Run, person

from .conftest import MIRROR, Platform, Terraform, account, ec2_of, inventory, provider_mirror

ENVIRONMENT = {
    "name": "test",
    "id": "00000000-0000-4000-8000-000000000001",
    "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG1pbGxyYWNlIHRlc3RzLCBvcGVucyBub3RoaW5nIGF0 test",
}
COMPACT = ROOT / "topologies" / "compact.yml"


def larger(folder: Path, more: int) -> Path:
    """The compact topology with more data hosts, in racks around."""
    topology = yaml.safe_load(COMPACT.read_text())
    for number in range(4, 4 + more):
        topology["hosts"][f"data{number}"] = {
            "index": 100 + number,
            "size": "medium",
            "rack": f"rack{number}",
            "ids": {"kafka": number},
            "services": ["kafka", "cassandra", "spark_worker"],
        }
    path = folder / f"larger{more}.yml"
    path.write_text(yaml.safe_dump({**topology, "name": path.stem}, sort_keys=False))
    return path


def platform_of(terraform: Callable[..., Terraform], aws: str, folder: Path) -> Platform:
    environment = terraform("environments/aws", TF_VAR_environment=json.dumps(ENVIRONMENT), **account(aws))
    state = folder / "terraform.tfstate"
    environment.init("-lockfile=readonly", f"-backend-config=path={state}")
    return Platform(environment, state, ec2_of(aws))


@pytest.fixture(scope="module")
def platform(
    terraform: Callable[..., Terraform], aws: str, tmp_path_factory: pytest.TempPathFactory
) -> Platform:
    """The compact topology, applied. The tests below are its life, in their order."""
    platform = platform_of(terraform, aws, tmp_path_factory.mktemp("platform"))
    platform.terraform.run("apply", "-auto-approve", "-no-color")
    return platform


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The option that names the same topology with a host more."""
    return f"-var=topology={larger(tmp_path_factory.mktemp('grown'), 1)}"


def test_a_second_plan_is_empty(platform: Platform) -> None:
    assert platform.plan() == Counter()


def test_security_groups_agree_with_the_hosts_own_firewalls(platform: Platform) -> None:
    """Both are made from the port table."""
    hosts = yaml.safe_load(COMPACT.read_text())["hosts"]
    group = {name: "+".join(sorted(host["services"])) for name, host in hosts.items()}
    # Names in place of addresses: what is open to which host.
    view = {name: {"address": name, "services": host["services"]} for name, host in hosts.items()}
    wanted = {
        f"{opening['name']} on {group[name]} from {group.get(source.removesuffix('/32'), source)}"
        for name in hosts
        for opening in Catalogue.load().openings(name, view, ["203.0.113.7/32"])
        for source in opening["sources"]
        if opening["name"] != "host/ssh"
    }
    kind = "aws_vpc_security_group_ingress_rule.service["
    made = {address.removeprefix(kind)[:-1] for address in platform.resources() if address.startswith(kind)}
    assert made == wanted


def test_the_output_is_what_ansible_needs(platform: Platform) -> None:
    hosts = json.loads(platform.terraform.run("output", "-json", "hosts").stdout)
    topology = yaml.safe_load(COMPACT.read_text())["hosts"]
    assert list(hosts) == sorted(f"test-{name}" for name in topology)
    for name, expected in topology.items():
        host = hosts[f"test-{name}"]
        assert {key: host[key] for key in ("size", "rack", "services")} == {
            key: expected[key] for key in ("size", "rack", "services")
        }
        assert host["ids"] == expected.get("ids", {})
        assert host["user"] == "ansible"
    addresses = [host[kind] for host in hosts.values() for kind in ("address", "operator_address")]
    assert len(set(addresses)) == 2 * len(topology)


def test_user_data_is_what_was_rendered(platform: Platform) -> None:
    """The account's own copy: whole (the state keeps its SHA-1), a sound script, of this host and its volume."""
    resources = platform.resources()
    for host, script in platform.user_data().items():
        rendered = resources[f"aws_instance.host[{host}]"]["user_data"]
        assert hashlib.sha1(script.encode()).hexdigest() == rendered  # noqa: S324 - Terraform's own
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        volume = resources[f"aws_ebs_volume.data[{host}]"]["id"]
        assert f'== "{volume.replace("-", "")}"' in script
        assert f"HOST_NAME='test-{host}' ENVIRONMENT_ID='{ENVIRONMENT['id']}'" in script
        assert ENVIRONMENT["public_key"] in script
        assert (ROOT / "scripts" / "host-identity").read_text() in script
        assert len(script) < 16384, "what EC2 takes"
        assert ("/var/lib/cassandra" in script) == host.startswith("data")
        assert ("/var/lib/postgresql" in script) == (host == "control")


def test_user_data_passes_shellcheck(platform: Platform) -> None:
    for script in platform.user_data().values():
        checked = subprocess.run(
            [Path(sys.executable).parent / "shellcheck", "-s", "bash", "-"],
            input=script,
            text=True,
            capture_output=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stdout


def test_no_secret_is_in_the_state(platform: Platform) -> None:
    state = platform.state.read_text()
    assert "PRIVATE KEY" not in state
    assert not [word for word in ("password", "secret", "token") if f'"{word}":' in state.lower()]


def test_nothing_is_open_to_the_world(platform: Platform) -> None:
    """As the account has it, the network's default group included, which no host is in."""
    groups = platform.ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["test *"]}])[
        "SecurityGroups"
    ]
    sources = {
        entry["CidrIp"] for group in groups for rule in group["IpPermissions"] for entry in rule["IpRanges"]
    }
    assert sources == {"203.0.113.7/32"}
    assert not [rule for group in groups for rule in group["IpPermissions"] if rule["Ipv6Ranges"]]


def test_a_host_line_only_adds(platform: Platform, grown: str) -> None:
    assert set(platform.plan(grown)) == {"create"}
    before = platform.resources()
    platform.terraform.run("apply", "-auto-approve", "-no-color", grown)
    after = platform.resources()
    assert {address: after[address]["id"] for address in before} == {
        address: attributes["id"] for address, attributes in before.items()
    }
    assert "aws_instance.host[data4]" in after
    assert platform.plan(grown) == Counter()


def test_a_host_line_that_goes_is_refused_with_its_data(platform: Platform) -> None:
    """The topology without the host of the test before."""
    before = platform.resources()
    faults = platform.terraform.faults("apply", "-auto-approve")
    assert any("the data of test-data4 is protected" in fault for fault in faults), faults
    assert set(platform.resources()) == set(before)


def test_a_move_to_another_zone_is_refused_with_its_data(platform: Platform, tmp_path: Path) -> None:
    """A volume can't follow its host's rack: it would be replaced by an empty one."""
    topology = yaml.safe_load(COMPACT.read_text())
    topology["hosts"]["control"]["rack"] = "rack2"
    path = tmp_path / "compact.yml"
    path.write_text(yaml.safe_dump(topology))
    before = platform.resources()
    faults = platform.terraform.faults("apply", "-auto-approve", f"-var=topology={path}")
    assert any("the data of test-control is protected" in fault for fault in faults), faults
    assert set(platform.resources()) == set(before)


def test_destroy_is_refused_and_changes_nothing(platform: Platform) -> None:
    before = platform.resources()
    faults = platform.terraform.faults("destroy", "-auto-approve")
    assert any("is protected; apply with protected=false first" in fault for fault in faults), faults
    assert platform.resources() == before


def test_the_account_refuses_it_too(platform: Platform) -> None:
    instance = platform.resources()["aws_instance.host[data1]"]["id"]
    with pytest.raises(platform.ec2.exceptions.ClientError, match="disableApiTermination"):
        platform.ec2.terminate_instances(InstanceIds=[instance])


def test_a_host_made_anew_has_its_volume_again(platform: Platform, grown: str) -> None:
    """Its protection is lifted first: the account keeps the instance as well."""
    before = platform.resources()
    apply = ("apply", "-auto-approve", "-no-color", "-var=protected=false", grown)
    platform.terraform.run(*apply)
    platform.terraform.run(*apply, '-replace=module.hosts.aws_instance.host["data1"]')
    after = platform.resources()
    changed = {address for address in before if before[address]["id"] != after[address]["id"]}
    assert changed == {"aws_instance.host[data1]", "aws_volume_attachment.data[data1]"}
    assert (
        after["aws_volume_attachment.data[data1]"]["volume_id"] == before["aws_ebs_volume.data[data1]"]["id"]
    )


def test_destroy_leaves_nothing_but_snapshots(platform: Platform, grown: str) -> None:
    volumes = {
        attributes["id"]
        for address, attributes in platform.resources().items()
        if address.startswith("aws_ebs_volume.")
    }
    platform.terraform.run("destroy", "-auto-approve", "-no-color", "-var=protected=false", grown)
    assert platform.resources() == {}
    ec2 = platform.ec2
    states = {
        instance["State"]["Name"]
        for reservation in ec2.describe_instances()["Reservations"]
        for instance in reservation["Instances"]
    }
    assert states <= {"terminated"}
    ours = [{"Name": "tag:millrace", "Values": ["test"]}]
    assert ec2.describe_vpcs(Filters=ours)["Vpcs"] == []
    assert ec2.describe_security_groups(Filters=ours)["SecurityGroups"] == []
    assert not [volume for volume in ec2.describe_volumes()["Volumes"] if volume["VolumeId"] in volumes]
    snapshots = {snapshot["VolumeId"] for snapshot in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    assert volumes <= snapshots


@pytest.fixture
def run(aws: str) -> Iterator[Run]:
    """Run a command in an environment whose hosts are to be made in the stand-in's account."""
    mirror = provider_mirror()
    command = person(
        MILLRACE_ENV="aws-test",
        MILLRACE_TOPOLOGY="single",
        MILLRACE_HOSTS="terraform",
        MILLRACE_TERRAFORM="aws",
        **({MIRROR: str(mirror)} if mirror else {}),
        **account(aws),
    )
    # The account of a run that was cut off is gone with it.
    forget = (sys.executable, "-m", "millrace.environment", "forget")
    command(*forget)
    yield command
    command(*forget)


def test_the_way_of_a_person(run: Run) -> None:
    """By the scripts that `make up` and `make down` call: the inventory follows, and data is kept until it is said."""
    run("scripts/terraform-hosts", "make")
    topology = yaml.safe_load((ROOT / "topologies" / "single.yml").read_text())
    listed = inventory(run, "terraform")
    for service in topology["hosts"]["single"]["services"]:
        assert listed[service]["hosts"] == ["aws-test-single"]
    variables = listed["_meta"]["aws-test-single"]
    assert variables["ansible_user"] == "ansible"
    assert variables["ansible_host"] != variables["host_address"]
    # Said once: the hosts' own firewalls have them from Terraform.
    assert variables["operator_cidrs"] == ["203.0.113.7/32"]

    refused = run("scripts/down", check=False)
    assert refused.returncode != 0
    assert "the data of aws-test-single is protected" in refused.stdout + refused.stderr
    assert inventory(run, "terraform") == listed

    run("scripts/terraform-hosts", "make", TF_VAR_protected="false")
    run("scripts/down")
    gone = run("ansible-inventory", "-i", "inventories/terraform", "--list", check=False)
    assert "environment 'aws-test' does not exist yet" in gone.stderr


def test_sixty_hosts_plan(
    terraform: Callable[..., Terraform], aws: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform = platform_of(terraform, aws, tmp_path)
    seconds = {}
    for hosts in (15, 30, 60):
        started = time.monotonic()
        plan = platform.plan(f"-var=topology={larger(tmp_path, hosts - 4)}")
        seconds[hosts] = time.monotonic() - started
        assert set(plan) == {"create"}
        assert plan["create"] > 4 * hosts, "host, volume, attachment and protection"
    with capsys.disabled():
        figures = ", ".join(f"{hosts} hosts {figure:.1f} s" for hosts, figure in seconds.items())
        print(f"\nterraform plan: {figures}")
    assert seconds[60] < 8 * seconds[15], "plan time grows with the hosts, not with their square"
