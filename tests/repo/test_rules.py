"""Rules of the repository that no linter knows."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())


@cache
def tracked() -> list[Path]:
    """Every file of the repository that git knows, and that is there."""
    names = subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True
    ).splitlines()
    return [ROOT / name for name in names if (ROOT / name).is_file() and not (ROOT / name).is_symlink()]


@cache
def text_of(path: Path) -> str:
    return path.read_text(errors="replace")


def yaml_of(path: Path) -> Any:
    return yaml.safe_load(text_of(path)) if path.exists() else None


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_roles_defaults_are_its_argument_spec(role: Path) -> None:
    """Each default is documented with the same value, and each documented default exists."""
    specs = yaml_of(role / "meta" / "argument_specs.yml")["argument_specs"]
    documented: dict[str, Any] = {}
    for entry in specs.values():
        for name, option in entry["options"].items():
            assert name.startswith(f"{role.name}_"), f"{name} lacks the role's prefix"
            assert option.get("description"), f"{name} has no description"
            assert not (option.get("required") and "default" in option), (
                f"{name}: required and with a default"
            )
            if "default" in option:
                assert documented.get(name, option["default"]) == option["default"], f"{name}: two defaults"
                documented[name] = option["default"]
            else:
                assert option.get("required"), f"{name}: neither required nor with a default"
    defaults = yaml_of(role / "defaults" / "main.yml") or {}
    assert defaults == documented


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_has_a_scenario(role: Path) -> None:
    """`molecule test` in the role's folder, on one of the topologies of tests/molecule."""
    environment = yaml_of(role / "molecule" / "default" / "molecule.yml")["ansible"]["env"]
    assert environment["MILLRACE_ENV"].startswith("m-")
    assert (ROOT / environment["MILLRACE_TOPOLOGY"]).is_file()


def test_import_role_names_its_tasks_without_yml() -> None:
    """With the ending, Ansible silently skips the argument spec."""
    wrong = [
        path
        for path in tracked()
        if path.suffix == ".yml" and re.search(r"tasks_from:\s*\S+\.yml", text_of(path))
    ]
    assert wrong == []


def test_a_tag_is_one_of_site_yml() -> None:
    """It refuses any other."""
    tags = re.compile(r"^ *tags: \[?([^\]\n]+)", re.MULTILINE)

    def used(path: Path) -> set[str]:
        return {tag for listed in tags.findall(text_of(path)) for tag in listed.split(", ")}

    site = ROOT / "site.yml"
    wrong = [path for path in (ROOT / "roles").glob("*/tasks/*.yml") if used(path) - used(site)]
    assert wrong == []


def test_nothing_ignores_errors() -> None:
    wrong = [
        path
        for path in tracked()
        if path.suffix == ".yml" and re.search(r"^\s*ignore_errors:", text_of(path), re.MULTILINE)
    ]
    assert wrong == []


def test_modules_make_files_for_others() -> None:
    """Root's own umask may be 077 on a host, and services run as other users."""
    wrong = [
        path.name
        for path in (ROOT / "ansible/plugins/modules").glob("*.py")
        if re.search(r"mkdir\(|write_text\(|os\.open\(", text_of(path))
        and "os.umask(0o022)" not in text_of(path)
    ]
    assert wrong == []


def test_rsync_takes_the_way_of_the_other_tasks() -> None:
    """Without these it reads a person's own settings of ssh, and takes any host's key."""
    for path in tracked():
        if path.suffix == ".yml":
            text = text_of(path)
            calls = len(re.findall(r"^ *ansible\.posix\.synchronize:$", text, re.MULTILINE))
            for setting in ("use_ssh_args: true", "verify_host: true"):
                assert text.count(setting) == calls, f"{path.relative_to(ROOT)}: {setting}"


def test_hosts_are_reached_directly() -> None:
    """By default HTTP clients go to the proxy that a host's environment names: ours are made in one place."""
    tasks = re.compile(r"^ *ansible\.builtin\.(?:uri|get_url):\n(?: *\S.*\n)*", re.MULTILINE)
    clients = re.compile(
        r"\brequests\.(?:Session|get|post|put|patch|delete|head|request)\(|\burllib\.request\b|\bhttpx\b"
    )
    wrong = [
        f"{path.relative_to(ROOT)}: {call}"
        for path in tracked()
        if path.suffix == ".yml"
        for call in tasks.findall(text_of(path))
        if "use_proxy: false" not in call
    ]
    wrong += [
        f"{path.relative_to(ROOT)}: {call}"
        for path in tracked()
        if path.suffix == ".py"
        and not path.is_relative_to(ROOT / "tests")
        and path != ROOT / "millrace/http.py"
        for call in clients.findall(text_of(path))
    ]
    assert wrong == []


def test_no_group_vars_beside_playbooks() -> None:
    """They would win over the inventory's."""
    assert not (ROOT / "group_vars").exists()
    assert not (ROOT / "ansible" / "group_vars").exists()


def test_roles_know_nothing_of_the_inventory() -> None:
    """A role reads its own variables only: never groups, hostvars, secrets or the topology."""
    forbidden = re.compile(
        r"\{\{[^}]*\b(groups|hostvars|secrets|services|topology_name|host_services)\b[\[.]"
    )
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in tracked()
        if path.is_relative_to(ROOT / "roles") and path.suffix in (".yml", ".j2")
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if forbidden.search(line)
    ]
    assert wrong == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_no_result_is_called_as_a_variable(role: Path) -> None:
    """What a task registers would win over the role's variable of the same name, from there on."""
    variables = {
        name for path in (role / "defaults/main.yml", role / "vars/main.yml") for name in yaml_of(path) or {}
    }
    registered = {
        name
        for path in (role / "tasks").glob("*.yml")
        for name in re.findall(r"^ *register: (\w+)$", text_of(path), re.MULTILINE)
    }
    assert variables & registered == set()


def test_a_release_has_its_version_in_one_place() -> None:
    """Versions stand in artifacts/releases.yml and in the locks, nowhere else."""
    releases = yaml_of(ROOT / "artifacts" / "releases.yml")
    allowed = {ROOT / "artifacts" / "releases.yml", ROOT / "README.md"}
    wrong = []
    for name, release in releases.items():
        version = re.compile(rf"(?<![\d.]){re.escape(str(release['version']))}(?![\d.])")
        wrong += [
            f"{name} {release['version']}: {path.relative_to(ROOT)}"
            for path in tracked()
            if path not in allowed
            and not path.is_relative_to(ROOT / "artifacts" / "locks")
            and not path.is_relative_to(ROOT / "requirements")
            and version.search(text_of(path))
        ]
    assert wrong == []


def test_ports_stand_in_the_table_alone() -> None:
    """Wiring and plays take ports from the table; only a role's own defaults repeat the usual ones."""
    services = yaml_of(ROOT / "inventories/group_vars/all/services.yml")["services"]
    ports = {str(port["port"]) for service in services.values() for port in service["ports"].values()}
    pattern = re.compile(rf"(?<![\d.])({'|'.join(sorted(ports))})(?![\d.])")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in tracked()
        if path.suffix in (".yml", ".j2", "")
        and path.name != "services.yml"
        and (
            path.is_relative_to(ROOT / "roles")
            or path.is_relative_to(ROOT / "inventories")
            or path.name == "site.yml"
        )
        and path.parent.name not in ("defaults", "meta")
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if pattern.search(line.split("#")[0])
    ]
    assert wrong == []


def test_who_has_a_login_may_reach_its_service() -> None:
    """The catalogue's two columns of who asks whom: root's logins, and the ports' clients."""
    services = yaml_of(ROOT / "inventories/group_vars/all/services.yml")["services"]
    behind = yaml_of(ROOT / "inventories/group_vars/all/connections.yml")["connection_services"]
    behind = {**behind, "source": "offline_source"}
    wrong = [
        f"{service} has a login to {section} and may not connect to {behind[section]}"
        for service, entry in services.items()
        for section in entry.get("logins", [])
        if service != behind[section]
        and not any(service in port["from"] for port in services[behind[section]]["ports"].values())
    ]
    assert wrong == []


def test_an_operators_port_is_a_page() -> None:
    """A browser elsewhere; all else is done in a shell on a host."""
    services = yaml_of(ROOT / "inventories/group_vars/all/services.yml")["services"]
    for service, entry in services.items():
        for name, port in entry["ports"].items():
            assert ("operator" in port["from"]) == ("page" in port), f"{service}/{name}"


def test_data_lies_where_the_catalogue_says() -> None:
    """A cloud keeps those folders on volumes of their own; anywhere else, data would share the system's fate."""
    services = yaml_of(ROOT / "inventories/group_vars/all/services.yml")["services"]
    for name, service in services.items():
        if "data" in service:
            data = yaml_of(ROOT / "roles" / name / "defaults" / "main.yml")[f"{name}_data_dir"]
            assert data == service["data"] or data.startswith(f"{service['data']}/")


def test_services_are_installed_in_the_catalogues_order() -> None:
    """Restarts go by the catalogue, and they follow the installation."""
    services = yaml_of(ROOT / "inventories/group_vars/all/services.yml")["services"]
    plays = [
        role["role"] if isinstance(role, dict) else role
        for play in yaml_of(ROOT / "site.yml")
        for role in play.get("roles", [])
    ]
    assert [role for role in plays if role in services] == list(services)


def test_every_service_can_be_restarted() -> None:
    services = yaml_of(ROOT / "inventories/group_vars/all/services.yml")["services"]
    assert [name for name in services if not (ROOT / "roles" / name / "tasks" / "run.yml").exists()] == []


def test_every_lock_belongs_to_a_release() -> None:
    releases = yaml_of(ROOT / "artifacts" / "releases.yml")
    locks = {path.stem for path in (ROOT / "artifacts" / "locks").glob("*.json")}
    assert locks == set(releases)


def test_a_playbook_begins_by_looking_for_its_hosts() -> None:
    """Ansible calls it a success when there are none."""
    playbooks = [ROOT / "site.yml", *sorted((ROOT / "ansible").glob("*.yml"))]
    first = {path: yaml_of(path)[0].get("ansible.builtin.import_playbook", "") for path in playbooks}
    assert [
        path.name for path in first if path.name != "hosts.yml" and not first[path].endswith("hosts.yml")
    ] == []


def test_scripts_take_nothing_over_from_a_shell() -> None:
    """Bash with -p leaves functions, options and startup files behind, and lib.sh the variables."""
    scripts = [path for path in (ROOT / "scripts").iterdir() if os.access(path, os.X_OK)]
    # It runs on a host that is being made.
    scripts.remove(ROOT / "scripts" / "host-identity")
    wrong = [
        path.name
        for path in scripts
        if not re.search(r"\A#!/bin/bash -p\n(#.*\n)+\. \"\$\(dirname \"\$0\"\)/lib\.sh\"\n", text_of(path))
    ]
    assert wrong == []


def test_locks_name_no_registry() -> None:
    """Where packages come from is a setting of the machine."""
    wrong = [path for path in tracked() if path.parent.name == "requirements" and "://" in text_of(path)]
    assert wrong == []
