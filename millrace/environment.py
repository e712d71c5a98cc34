"""The environment: one set of hosts with its name, subnet, keys and secrets, beside others on the same machine.

Its state lies outside the clone, in ``$XDG_STATE_HOME/millrace/<name>/``:

    environment.yml   id, topology, provider, subnet, who makes its hosts and the clone that operates it
    ssh_key[.pub]     the key of its hosts; known_hosts: what they answered with; ssh_config: the way to them
    vault_key         encrypts secrets.yml; both are made once and never again
    terraform*        where Terraform makes its hosts: state and data
"""

from __future__ import annotations

import ipaddress
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import uuid
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import click
import yaml

from millrace import machine, secrets, terraform
from millrace import topology as topologies

DEFAULT_NAME = "mill"
DEFAULT_TOPOLOGY = "compact"
# Every environment owns a slice of the network that its provider offers by default: 30 hosts each.
NETWORKS = {
    "lxc": ipaddress.IPv4Network("10.0.3.0/24"),
    "virtualbox": ipaddress.IPv4Network("192.168.56.0/24"),
    "libvirt": ipaddress.IPv4Network("192.168.56.0/24"),
}
# What a host sees of those who operate it from this machine: its own address there, and that of the way by which
# Vagrant comes.
OPERATORS = {
    "lxc": ["10.0.3.1/32"],
    "virtualbox": ["192.168.56.1/32", "10.0.2.2/32"],
    "libvirt": ["192.168.56.1/32", "192.168.121.1/32"],
}
SLICE_PREFIX = 27
LAST_INDEX = 2 ** (32 - SLICE_PREFIX) - 2
# Who makes hosts: the one that made an environment's hosts goes on making them.
MAKERS = {
    "vagrant": "use `vagrant`, and the inventory inventories/vagrant",
    "terraform": "use `terraform` and the inventory inventories/terraform, or `make` with HOSTS=terraform",
}
SSH_CONFIG = """\
# Written by Millrace; ssh reads no other file beside it.
IdentityFile {key}
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {known_hosts}
GlobalKnownHostsFile /dev/null
StrictHostKeyChecking accept-new
PreferredAuthentications publickey
"""
SSH_JUMP = re.compile(r"[\w\[][\w.@:/\[\]-]*")


class EnvironmentFault(Exception):
    """An environment that can't be used, with the cause and the fix."""


@dataclass(frozen=True)
class Environment:
    """What an environment is: ``id`` is carried by its hosts, ``clone`` is the tree that operates it."""

    name: str
    id: str
    clone: str
    topology: str
    provider: str
    subnet: str
    made_by: str = "vagrant"

    @property
    def directory(self) -> Path:
        """Where its state lies."""
        return state_directory() / self.name

    def load_topology(self) -> topologies.Topology:
        """Its topology, checked against the memory of this machine and its slice of the network where those matter."""
        if not self.subnet:
            return topologies.load(self.topology)
        return topologies.load(self.topology, machine_memory_mb=machine_memory_mb(), last_index=LAST_INDEX)

    def require_maker(self, maker: str | None) -> None:
        """Refuse a tool that would make or look for hosts that another one makes."""
        if maker and maker != self.made_by:
            raise EnvironmentFault(
                f"the hosts of environment {self.name!r} are made by {self.made_by}: {MAKERS[self.made_by]};"
                " or choose another name: MILLRACE_ENV=other"
            )

    def host_name(self, host: str) -> str:
        """The name a host has everywhere: in Vagrant, in the inventory and on itself."""
        return f"{self.name}-{host}"

    def hosts(self) -> list[dict[str, Any]]:
        """Name, memory (MiB), cores and topology entry of every host; on this machine its addresses and user as well."""
        sizes = topologies.Catalogue.load().sizes
        return [
            {
                **asdict(host),
                "short_name": host.name,
                "name": self.host_name(host.name),
                **sizes[host.size],
                **(self._addresses(host.index) if self.subnet else {}),
            }
            for host in self.load_topology().hosts
        ]

    def located_hosts(self) -> list[dict[str, Any]]:
        """The hosts with their addresses and users, from whoever made them."""
        if self.made_by == "terraform":
            return terraform.provisioned(self.hosts(), terraform.folder(self.provider), self.directory)
        return self.hosts()

    def operator_cidrs(self) -> list[str]:
        """The networks from which its hosts are operated: this machine's side, or what Terraform was told."""
        if self.provider in OPERATORS:
            return OPERATORS[self.provider]
        return terraform.operator_cidrs(terraform.folder(self.provider), self.directory)

    def _addresses(self, index: int) -> dict[str, str]:
        address = ipaddress.ip_network(self.subnet)[index]
        return {
            "address": str(address),
            "operator_address": str(address),
            # Derived from the address, so that a restarted host is reachable at once.
            "mac": "00:16:3e:" + ":".join(f"{octet:02x}" for octet in address.packed[1:]),
            "user": "vagrant",
        }

    def ssh_config(self) -> Path:
        """The file for ``ssh -F`` that leads to its hosts, and to nothing that a person's or the machine's own one says."""
        path = self.directory / "ssh_config"
        text = SSH_CONFIG.format(
            key=_ssh_word(self.directory / "ssh_key"), known_hosts=_ssh_word(self.directory / "known_hosts")
        )
        if not self.subnet and (jump := os.environ.get("MILLRACE_SSH_JUMP")):
            if not SSH_JUMP.fullmatch(jump):
                raise EnvironmentFault(
                    f"MILLRACE_SSH_JUMP={jump!r} is not a host as ssh takes it: [user@]host, or ssh://[user@]host[:port]"
                )
            # An ssh of its own: the way to the jump host is what the operator's configuration says.
            text += f"ProxyCommand ssh -W [%h]:%p -- {jump}\n"
        if not path.exists() or path.read_text() != text:
            _replace(path, text)
        return path

    @property
    def netmask(self) -> int:
        """Prefix length of the network that the hosts share with other environments."""
        return NETWORKS[self.provider].prefixlen

    @property
    def gateway(self) -> str:
        """The machine's own address in that network."""
        return str(NETWORKS[self.provider][1])


def _ssh_word(path: Path) -> str:
    """A path as ssh_config takes it, whatever it holds."""
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def state_directory() -> Path:
    """Where all environments of this person lie."""
    return _base("XDG_STATE_HOME", ".local/state") / "millrace"


def cache_directory() -> Path:
    """Where boxes and artifacts are kept between environments."""
    return _base("XDG_CACHE_HOME", ".cache") / "millrace"


def _base(variable: str, default: str) -> Path:
    """Where a person keeps files of a kind. A relative path would be another one in each folder, and counts as none."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else Path.home() / default


def machine_memory_mb() -> int:
    """Memory of this machine in MiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def name_from_environment() -> str:
    """The environment that is meant: MILLRACE_ENV, else the default one."""
    name = os.environ.get("MILLRACE_ENV") or DEFAULT_NAME
    if not topologies.HOST_NAME.fullmatch(name) or len(name) > 12:
        raise EnvironmentFault(
            f"MILLRACE_ENV={name!r}: a name is a letter, then letters, digits and hyphens, 12 at most"
        )
    return name


def load(name: str) -> Environment | None:
    """The environment of that name, or None where there is none yet."""
    path = state_directory() / name / "environment.yml"
    if not path.exists():
        return None
    # An environment of a newer clone may say more.
    known = {field.name for field in fields(Environment)}
    try:
        return Environment(
            **{key: value for key, value in topologies.load_yaml(path).items() if key in known}
        )
    except (AttributeError, TypeError):
        raise EnvironmentFault(
            f"{path} does not say what the environment is: bring it back from a copy, or remove {path.parent};"
            " `make down` then removes its hosts"
        ) from None


def current(*, create: bool = False) -> Environment:
    """The environment that MILLRACE_ENV names, operated from this clone; made now if asked.

    Raises `EnvironmentFault` when it belongs to another clone, or has another topology than the one asked for.
    """
    name = name_from_environment()
    wanted = os.environ.get("MILLRACE_TOPOLOGY")
    environment = load(name)
    if environment is None:
        if not create:
            raise EnvironmentFault(
                f"environment {name!r} does not exist yet in {state_directory()};"
                f" {_elsewhere(name) or '`make up` (or `vagrant up`) makes it'}"
            )
        return _create(name, wanted or DEFAULT_TOPOLOGY)
    environment.require_maker(os.environ.get("MILLRACE_HOSTS"))
    if environment.clone != str(topologies.ROOT):
        if Path(environment.clone, "site.yml").exists():
            raise EnvironmentFault(
                f"environment {name!r} is operated from the clone {environment.clone}; go on there, run `make down`"
                " there first, or choose another name: MILLRACE_ENV=other"
            )
        # Its clone is gone, its hosts and secrets are not: this one takes over.
        environment = Environment(**{**asdict(environment), "clone": str(topologies.ROOT)})
        _write(environment)
    if wanted and wanted != environment.topology:
        raise EnvironmentFault(
            f"environment {name!r} was made with topology {environment.topology}, not {wanted};"
            " `make down` first, or choose another name: MILLRACE_ENV=other"
        )
    if create:
        secrets.ensure(environment.directory)
    return environment


def _create(name: str, topology: str) -> Environment:
    maker = os.environ.get("MILLRACE_HOSTS") or "vagrant"
    if maker not in MAKERS:
        raise EnvironmentFault(f"MILLRACE_HOSTS={maker!r} is not one of {', '.join(MAKERS)}")
    provider = detect_provider() if maker == "vagrant" else terraform.provider_from_environment()
    environment = Environment(name, str(uuid.uuid4()), str(topologies.ROOT), topology, provider, "", maker)
    if provider in NETWORKS:
        here = machine.look()
        _require_names(environment, here)
        environment = replace(environment, subnet=_free_subnet(environment, here))
    environment.load_topology()
    try:
        environment.directory.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        raise EnvironmentFault(
            f"{environment.directory} holds no environment yet: where another command is making it, run this again;"
            " where one was cut off while it did, run `make down` first"
        ) from None
    except OSError as error:
        raise EnvironmentFault(
            f"{environment.directory} can't be made: {error.strerror}; set XDG_STATE_HOME to a folder of your own"
        ) from error
    subprocess.run(
        [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            f"millrace {name}",
            "-f",
            environment.directory / "ssh_key",
        ],
        check=True,
    )
    _write(environment)
    secrets.ensure(environment.directory)
    return environment


def _write(environment: Environment) -> None:
    _replace(environment.directory / "environment.yml", yaml.safe_dump(asdict(environment), sort_keys=False))


def _replace(path: Path, text: str) -> None:
    """Write a file in one step: others may be reading it, and a disk may be full."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text)
    new.replace(path)


def _elsewhere(name: str) -> str:
    """Where an environment of that name is that is not this person's, or not in this state directory."""
    claim = machine.claim_of(name)
    return f"on this machine there is {claim}: go on there, or choose another name" if claim else ""


def _require_names(environment: Environment, here: machine.Machine) -> None:
    """Refuse names that others' hosts have, and the name of an environment that another state directory has."""
    names = {host["name"] for host in environment.hosts()}
    for claim in here.claims:
        if claim.name == environment.name and claim.id != environment.id:
            if claim.directory == str(environment.directory.resolve()):
                raise EnvironmentFault(
                    f"hosts of an earlier environment {claim.name!r} are there, and its state in"
                    f" {claim.directory} is not; `make down` removes them"
                )
            raise EnvironmentFault(_taken(environment.name, str(claim)))
    for container in here.containers:
        if container.name in names and here.owner(container) != environment.id:
            raise EnvironmentFault(_taken(container.name, here.holder(container)))


def _taken(name: str, holder: str) -> str:
    return (
        f"the name {name!r} is taken on this machine: {holder};"
        " go on there, remove it there, or choose another name: MILLRACE_ENV=other"
    )


def _free_subnet(environment: Environment, here: machine.Machine) -> str:
    """Return the first slice of its provider's network in which there is nobody else."""
    network = NETWORKS[environment.provider]
    taken = {
        found.subnet: f"environment {found.name!r}"
        for path in state_directory().glob("*/environment.yml")
        if (found := load(path.parent.name)) and found.name != environment.name
    }
    # The first slice holds the machine's own address and the provider's defaults.
    for subnet in list(network.subnets(new_prefix=SLICE_PREFIX))[1:]:
        if str(subnet) not in taken:
            there = here.in_use(subnet, environment.id) or machine.answering(subnet)
            if there is None:
                return str(subnet)
            taken[str(subnet)] = there
    raise EnvironmentFault(
        f"all slices of {network} are taken; remove an environment that is no longer needed:"
        + "".join(f"\n  {subnet}: {there}" for subnet, there in sorted(taken.items()))
    )


def claim(environment: Environment) -> None:
    """Take the names and addresses of an environment on this machine, before its hosts are made; again, when they change.

    Where it never had them and others have by now, it moves to a free slice.
    Raises `EnvironmentFault` with the holder where it can't be had.
    """
    if not environment.subnet:
        return
    with machine.locked():
        here = machine.look()
        _require_names(environment, here)
        known = {here.owner(container) for container in here.containers} | {claim.id for claim in here.claims}
        settled = environment.id in known
        for host in environment.hosts():
            there = here.in_use(ipaddress.IPv4Network(host["address"]), environment.id)
            if there and settled:
                raise EnvironmentFault(
                    f"{host['name']} has the address {host['address']}, and so has {there}; remove one of them"
                )
            if there:
                environment = replace(environment, subnet=_free_subnet(environment, here))
                _write(environment)
                break
        machine.claim(
            machine.Claim(
                name=environment.name,
                id=environment.id,
                hosts=[host["name"] for host in environment.hosts()],
                subnet=environment.subnet,
                user=pwd.getpwuid(os.getuid()).pw_name,
                directory=str(environment.directory.resolve()),
                clone=environment.clone,
            )
        )


def detect_provider() -> str:
    """How hosts are made here: VAGRANT_DEFAULT_PROVIDER, else a usable hypervisor, else LXC."""
    asked = os.environ.get("VAGRANT_DEFAULT_PROVIDER")
    if asked:
        if asked not in NETWORKS:
            raise EnvironmentFault(f"VAGRANT_DEFAULT_PROVIDER={asked!r} is not one of {', '.join(NETWORKS)}")
        return asked
    if os.access("/dev/kvm", os.R_OK | os.W_OK) and shutil.which("virsh"):
        return "libvirt"
    if shutil.which("VBoxManage"):
        return "virtualbox"
    return "lxc"


@click.group(help=__doc__)
def main() -> None:
    """Entry point of ``python -m millrace.environment``."""


@main.command()
@click.option("--create", is_flag=True, help="Make the environment if there is none.")
def show(create: bool) -> None:
    """Print the current environment and its hosts as JSON."""
    environment = current(create=create)
    click.echo(
        json.dumps(
            {
                **asdict(environment),
                "directory": str(environment.directory),
                "cache": str(cache_directory()),
                **(
                    {"gateway": environment.gateway, "netmask": environment.netmask}
                    if environment.subnet
                    else {}
                ),
                "ssh_config": str(environment.ssh_config()),
                "public_key": (environment.directory / "ssh_key.pub").read_text().strip(),
                "hosts": environment.hosts(),
            },
            indent=1,
        )
    )


@main.command("claim")
@click.option("--create", is_flag=True, help="Make the environment if there is none.")
def claim_current(create: bool) -> None:
    """Take the current environment's names and addresses on this machine, or say who has them."""
    claim(current(create=create))


@main.command()
@click.argument("host", required=False)
def containers(host: str | None) -> None:
    """Print the LXC containers that are hosts of the environment: all, or the one of HOST.

    Others that have the name of one are told, and are a fault where there is no such environment.
    """
    name, here = name_from_environment(), machine.look()
    environment = load(name)
    directory = str((state_directory() / name).resolve())
    # What it carries is known even where its state is lost.
    mine = {claim.id for claim in here.claims if claim.directory == directory}
    if environment:
        mine.add(environment.id)
    claimed = {claim.id: claim.name for claim in here.claims}
    for container in here.containers:
        if host and container.name not in (host, f"{name}-{host}"):
            continue
        owner = here.owner(container)
        if owner in mine:
            click.echo(container.name)
        elif owner and container.name.startswith(f"{name}-") and claimed.get(owner, name) == name:
            there = f"on this machine there is {here.holder(container)}"
            if not environment:
                raise EnvironmentFault(f"there is no environment {name!r} in {state_directory()}; {there}")
            click.echo(f"{there}: left alone", err=True)


@main.command("terraform")
def terraform_environment() -> None:
    """Print commands of a shell: what Terraform is to know of the environment, in the folder that makes its hosts."""
    environment = current()
    public_key = (environment.directory / "ssh_key.pub").read_text().strip()
    for name, value in {
        "TF_DATA_DIR": str(terraform.data_directory(environment.directory)),
        "TF_VAR_topology": str(topologies.path_of(environment.topology)),
        "TF_VAR_environment": json.dumps(
            {"name": environment.name, "id": environment.id, "public_key": public_key}
        ),
        **({"TF_VAR_subnet": environment.subnet} if environment.subnet else {}),
    }.items():
        click.echo(f"export {name}={shlex.quote(value)}")
    # They would lead to another state, or change what is done with this one.
    click.echo(r"unset TF_WORKSPACE $(env | sed -n 's/^\(TF_CLI_ARGS[^=]*\)=.*/\1/p')")


@main.command("terraform-folder")
def terraform_folder() -> None:
    """Print the folder of Terraform that makes this environment's hosts."""
    click.echo(terraform.folder(current().provider))


@main.command()
def name() -> None:
    """Print the name of the environment that is meant, whether it exists or not."""
    click.echo(name_from_environment())


@main.command()
def provider() -> None:
    """Print how hosts are made here."""
    environment = load(name_from_environment())
    click.echo(environment.provider if environment else detect_provider())


@main.command()
def summary() -> None:
    """Print the hosts with their services, the pages for a person, and how to go on."""
    environment = current()
    hosts = environment.located_hosts()
    services = topologies.Catalogue.load().services
    width = max(len(host["name"]) for host in hosts)
    click.echo(f"\nEnvironment {environment.name}, topology {environment.topology}\n")
    for host in hosts:
        click.echo(
            f"  {host['name']:<{width}}  {host['operator_address']:<15}  {', '.join(host['services'])}"
        )
    click.echo("\nPages and services (a login each; passwords: make secrets NAME=...)")
    for host in hosts:
        for service in host["services"]:
            for port in services[service]["ports"].values():
                if "page" in port:
                    where = f"http://{host['operator_address']}:{port['port']}"
                    click.echo(f"  {where:<30}  {port['page']}, login {port['login']} ({port['secret']})")
    last = hosts[-1]
    login, with_terraform = f"vagrant ssh {last['name']}", ""
    if environment.made_by == "terraform":
        where = f"{last['user']}@{last['operator_address']}"
        login = shlex.join(["ssh", "-F", str(environment.ssh_config()), where])
        with_terraform = " HOSTS=terraform"
    click.echo(
        f"\nNext: make status{with_terraform}, make verify{with_terraform}; ssh: {login}; "
        "on a host as root: kafka-topics --list, nodetool status, cqlsh, psql"
    )


@main.command()
def maker() -> None:
    """Print who makes the hosts."""
    environment = load(name_from_environment())
    click.echo(environment.made_by if environment else os.environ.get("MILLRACE_HOSTS") or "vagrant")


@main.command()
def directory() -> None:
    """Print where the environment's state lies, whether it exists or not."""
    click.echo(state_directory() / name_from_environment())


@main.command()
@click.argument("name", required=False)
def secret(name: str | None) -> None:
    """Print one secret by NAME; without it, where the secrets are and what they are called."""
    environment = current()
    known = secrets.read(environment.directory)
    if name is None:
        click.echo(
            f"{environment.directory}/secrets.yml, encrypted with the key in vault_key beside it, holds:"
        )
        click.echo("\n".join(f"  {known_name}" for known_name in known))
        click.echo("Read one: make secrets NAME=airflow_admin")
    elif name in known:
        click.echo(known[name])
    else:
        raise EnvironmentFault(f"there is no secret {name!r}; there are: {', '.join(known)}")


@main.command()
def forget() -> None:
    """Remove the environment's state and its claim on this machine, once its hosts are gone."""
    directory = state_directory() / name_from_environment()
    machine.release(directory.name, directory.resolve())
    # A half-made one as well.
    if directory.exists():
        shutil.rmtree(directory)


def run() -> None:
    """Run the command line; a fault ends with its message alone."""
    try:
        main(standalone_mode=False)
    except machine.NotRoot:
        sys.exit(machine.TOLD)
    except (
        EnvironmentFault,
        secrets.SecretsFault,
        terraform.TerraformFault,
        topologies.TopologyError,
    ) as error:
        click.echo(f"\nerror: {error}", err=True)
        sys.exit(machine.TOLD)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    run()
