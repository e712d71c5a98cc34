"""Environments beside each other, and secrets that are made once."""

from __future__ import annotations

import ipaddress
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from millrace import environment as environments
from millrace import machine, secrets

ANY_FOLDER = 'it\'s a "folder" of Jörg, 100%d \\ {{ here }}'


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "lxc")
    monkeypatch.setenv("MILLRACE_TOPOLOGY", "tests/molecule/kafka.yml")
    # A machine of its own, in whose network there is nobody.
    for name in ("CLAIMS", "CONTAINERS", "LEASES"):
        monkeypatch.setattr(machine, name, tmp_path / "machine" / name.lower())
        if name != "CLAIMS":
            (tmp_path / "machine" / name.lower()).mkdir(parents=True)
    monkeypatch.setitem(environments.NETWORKS, "lxc", ipaddress.IPv4Network("198.51.100.0/24"))
    return tmp_path / "millrace"


def current(name: str, monkeypatch: pytest.MonkeyPatch, *, create: bool = True) -> environments.Environment:
    monkeypatch.setenv("MILLRACE_ENV", name)
    return environments.current(create=create)


def test_environments_share_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [current(f"e{number}", monkeypatch) for number in range(7)]
    addresses = [host["address"] for environment in made for host in environment.hosts()]
    assert len(set(addresses)) == len(addresses)
    with pytest.raises(environments.EnvironmentFault, match="all slices"):
        current("e8", monkeypatch)


def claimed(
    person: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> environments.Environment:
    """What a person's environment is once its hosts may be made."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / person))
    environments.claim(current(name, monkeypatch))
    return current(name, monkeypatch, create=False)


def container(name: str, address: str = "", environment: environments.Environment | None = None) -> None:
    """An LXC container as its files are on a machine."""
    identity = machine.CONTAINERS / name / "rootfs" / "etc" / "millrace"
    identity.mkdir(parents=True)
    network = f"lxc.net.0.type = veth\nlxc.net.0.ipv4.address = {address}/24\n" if address else ""
    (machine.CONTAINERS / name / "config").write_text(network)
    if environment:
        (identity / "environment").write_text(environment.id + "\n")


def test_another_person_has_other_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = claimed("me", "one", tmp_path, monkeypatch)
    other = claimed("other", "two", tmp_path, monkeypatch)
    assert mine.subnet != other.subnet
    # Where the claim was made before its hosts, they alone tell.
    container("old-host", other.hosts()[0]["address"])
    machine.release("two", other.directory)
    assert claimed("third", "three", tmp_path, monkeypatch).subnet not in (mine.subnet, other.subnet)


def test_a_name_that_another_person_has_is_refused_with_its_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = claimed("me", "one", tmp_path, monkeypatch).directory
    with pytest.raises(environments.EnvironmentFault, match=f"'one' is taken .* state in {holder}"):
        claimed("other", "one", tmp_path, monkeypatch)
    with pytest.raises(environments.EnvironmentFault, match=f"does not exist yet .* state in {holder}"):
        current("one", monkeypatch, create=False)
    assert not (tmp_path / "other" / "millrace" / "one").exists()
    # A host of somebody else's has the name that one of ours would get.
    container("two-host")
    with pytest.raises(
        environments.EnvironmentFault, match="taken on this machine: the LXC container two-host"
    ):
        claimed("other", "two", tmp_path, monkeypatch)


def test_two_who_begin_at_once_share_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = []
    for person, name in (("me", "one"), ("other", "two")):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / person))
        chosen.append(current(name, monkeypatch).subnet)
    assert chosen[0] == chosen[1], "neither could see the other yet"
    mine = claimed("me", "one", tmp_path, monkeypatch)
    other = claimed("other", "two", tmp_path, monkeypatch)
    assert mine.subnet == chosen[0] != other.subnet
    assert claimed("other", "two", tmp_path, monkeypatch) == other, "it stays where its hosts are made"


def test_addresses_in_use_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container("web", "198.51.100.40")
    (machine.LEASES / "dnsmasq.lxcbr0.leases").write_text(
        f"{2**33} 00:16:3e:aa:bb:cc 198.51.100.70 db *\n1 00:16:3e:aa:bb:dd 198.51.100.100 expired *\n"
    )
    assert claimed("me", "one", tmp_path, monkeypatch).subnet == "198.51.100.96/27"
    assert machine.answering(ipaddress.IPv4Network("127.0.0.0/30")) == "this machine itself, at 127.0.0.1"


def test_an_address_that_is_no_longer_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = claimed("me", "one", tmp_path, monkeypatch)
    container("web", mine.hosts()[0]["address"])
    with pytest.raises(environments.EnvironmentFault, match="and so has the LXC container web"):
        environments.claim(mine)


def test_an_environment_whose_state_and_hosts_are_gone_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = claimed("me", "one", tmp_path, monkeypatch)
    shutil.rmtree(mine.directory)
    other = claimed("other", "one", tmp_path, monkeypatch)
    assert other.subnet == mine.subnet
    environments.main(["forget"], standalone_mode=False)
    assert machine.claim_of("one") is None


def test_hosts_are_removed_by_what_they_carry_not_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mine() -> list[str]:
        environments.main(["containers"], standalone_mode=False)
        return capsys.readouterr().out.split()

    longer = claimed("me", "one-two", tmp_path, monkeypatch)
    container("one-two-host", environment=longer)
    environment = claimed("me", "one", tmp_path, monkeypatch)
    # Cut off before it carried anything; then a host that is no longer in the topology.
    container("one-host")
    assert mine() == ["one-host"]
    container("one-former", environment=environment)
    assert mine() == ["one-former", "one-host"]
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    with pytest.raises(
        environments.EnvironmentFault, match=r"no environment 'one' .* one-former of environment 'one'"
    ):
        mine()
    # Its state is lost, its hosts are not.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "me"))
    shutil.rmtree(environment.directory)
    assert mine() == ["one-former", "one-host"]
    with pytest.raises(environments.EnvironmentFault, match="make down"):
        current("one", monkeypatch)


def test_the_second_look_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current("one", monkeypatch) == current("one", monkeypatch, create=False)


def test_an_environment_that_is_not_there_says_how_to_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(environments.EnvironmentFault, match="make up"):
        current("none", monkeypatch, create=False)


def test_one_that_is_half_made_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state / "one").mkdir(parents=True)
    with pytest.raises(environments.EnvironmentFault, match="make down"):
        current("one", monkeypatch)
    environments.main(["forget"], standalone_mode=False)
    assert current("one", monkeypatch).name == "one"


def test_one_that_cannot_be_kept_or_read_is_refused(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current("one", monkeypatch)
    (state / "one" / "environment.yml").write_text("")
    with pytest.raises(environments.EnvironmentFault, match=r"one/environment\.yml does not say"):
        current("one", monkeypatch)
    (state / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(state / "file"))
    with pytest.raises(environments.EnvironmentFault, match="set XDG_STATE_HOME"):
        current("two", monkeypatch)


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_terraform_by_hand_is_in_this_environment_alone(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the shell had for other work with it."""
    environment = current("one", monkeypatch)
    said = CliRunner().invoke(environments.main, ["terraform"], catch_exceptions=False).output
    monkeypatch.setenv("TF_WORKSPACE", "dev")
    monkeypatch.setenv("TF_CLI_ARGS", "-no-color")
    monkeypatch.setenv("TF_CLI_ARGS_apply", "-target=nothing")
    seen = subprocess.check_output([shell, "-euc", f"{said}\nenv"], text=True)
    assert f"TF_DATA_DIR={environment.directory}" in seen
    assert "TF_WORKSPACE" not in seen
    assert "TF_CLI_ARGS" not in seen


def test_another_clones_environment_is_refused_by_name(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current("one", monkeypatch)
    other = tmp_path / "other"
    other.mkdir()
    (other / "site.yml").touch()
    file = state / "one" / "environment.yml"
    file.write_text(file.read_text().replace(str(environments.topologies.ROOT), str(other)))
    with pytest.raises(environments.EnvironmentFault, match=f"operated from the clone {other}"):
        current("one", monkeypatch)
    (other / "site.yml").unlink()
    assert current("one", monkeypatch).clone == str(environments.topologies.ROOT), (
        "a clone that is gone is followed"
    )


def test_another_topology_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    current("one", monkeypatch)
    monkeypatch.setenv("MILLRACE_TOPOLOGY", "single")
    with pytest.raises(environments.EnvironmentFault, match="was made with topology"):
        current("one", monkeypatch)


@pytest.mark.parametrize("name", ["Upper", "with space", "much-too-long-a-name", "1st"])
def test_names_that_make_no_host_names_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(environments.EnvironmentFault, match="a name is a letter"):
        current(name, monkeypatch)


def test_secrets_are_made_once_and_encrypted(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current("one", monkeypatch)
    known = secrets.read(state / "one")
    assert set(known) == set(secrets.SECRETS)
    assert len(set(known.values())) == len(known)
    current("one", monkeypatch)
    assert secrets.read(state / "one") == known
    raw = (state / "one" / "secrets.yml").read_bytes()
    assert raw.startswith(b"$ANSIBLE_VAULT")
    for name in ("vault_key", "secrets.yml", "ssh_key"):
        assert stat.S_IMODE((state / "one" / name).stat().st_mode) == 0o600, name


def test_a_new_secret_leaves_the_old_ones(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current("one", monkeypatch)
    known = secrets.read(state / "one")
    monkeypatch.setitem(secrets.SECRETS, "brand_new", lambda: "new")
    current("one", monkeypatch)
    assert secrets.read(state / "one") == {**known, "brand_new": "new"}


@pytest.mark.parametrize("lost", ["vault_key", "secrets.yml"])
def test_lost_secrets_are_not_made_anew(lost: str, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    current("one", monkeypatch)
    (state / "one" / lost).unlink()
    with pytest.raises(secrets.SecretsFault, match=f"{lost} is gone"):
        current("one", monkeypatch)


def ssh_settings(file: Path) -> dict[str, str]:
    """What ssh makes of a file, by setting."""
    return parsed(subprocess.check_output(["ssh", "-F", file, "-G", "10.0.3.33"], text=True))


def parsed(said: str) -> dict[str, str]:
    """What `ssh -G` prints, by setting."""
    return dict(line.split(" ", 1) for line in said.splitlines() if " " in line)


def test_ssh_finds_key_and_known_hosts_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ANY_FOLDER))
    monkeypatch.setenv("MILLRACE_SSH_JUMP", "for-hosts-elsewhere")
    environment = current("one", monkeypatch)
    settings = ssh_settings(environment.ssh_config())
    # ssh prints the one before and the other after %% has become %.
    assert settings["identityfile"].replace("%%", "%") == str(environment.directory / "ssh_key")
    assert settings["userknownhostsfile"] == str(environment.directory / "known_hosts")
    assert settings["identitiesonly"] == "yes"
    assert "proxycommand" not in settings, "hosts of one's own bridge are not reached by a detour"


@pytest.mark.parametrize("strategy", ["mitogen_linear", "linear"])
def test_ansible_gives_ssh_that_file_and_nothing_of_a_person(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / ANY_FOLDER))
    environment = current("one", monkeypatch)
    for name in ("REMOTE_PORT", "REMOTE_USER"):
        monkeypatch.setenv(f"ANSIBLE_{name}", "1")
    for kind in ("", "COMMON_", "EXTRA_"):
        monkeypatch.setenv(f"ANSIBLE_SSH_{kind}ARGS", "-o Port=1")
    monkeypatch.setenv("ANSIBLE_STRATEGY", strategy)
    # It says what ssh would do, and goes nowhere.
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\nssh -G "$@" >{tmp_path}/settings\nexit 255\n')
    ssh.chmod(0o755)
    words = ["all", "-i", "inventories/vagrant", "-m", "ping", "-e", f"ansible_ssh_executable={ssh}"]
    subprocess.run(
        [Path(sys.executable).with_name("ansible"), *words],
        cwd=environments.topologies.ROOT,
        capture_output=True,
        check=False,
    )
    settings = parsed((tmp_path / "settings").read_text())
    assert (settings["port"], settings["user"]) == ("22", "vagrant")
    assert settings["identityfile"].replace("%%", "%") == str(environment.directory / "ssh_key")
    assert settings["userknownhostsfile"] == str(environment.directory / "known_hosts")
    assert settings["identitiesonly"] == "yes"


def test_a_jump_host_is_set_on_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_HOSTS", "terraform")
    monkeypatch.setenv("MILLRACE_TERRAFORM", "aws")
    environment = current("cloud", monkeypatch)
    assert "proxycommand" not in ssh_settings(environment.ssh_config())
    monkeypatch.setenv("MILLRACE_SSH_JUMP", "me@jump.example")
    assert ssh_settings(environment.ssh_config())["proxycommand"] == "ssh -W [%h]:%p -- me@jump.example"
    for wrong in ("-oProxyCommand=sh", "jump; sh", "jump\nUser root", "$(sh)"):
        monkeypatch.setenv("MILLRACE_SSH_JUMP", wrong)
        with pytest.raises(environments.EnvironmentFault, match="MILLRACE_SSH_JUMP"):
            environment.ssh_config()
