"""Every template renders for every topology, on the hosts that have its role: Ansible fails on what is not defined."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TOPOLOGIES = sorted(path.stem for path in (ROOT / "topologies").glob("*.yml"))
# What the caller of a shared role, or of a template, gives it.
ROLE_VARIABLES: dict[str, dict[str, Any]] = {
    "systemd_service": {
        "systemd_service_name": "sample",
        "systemd_service_description": "Sample",
        "systemd_service_command": "/bin/true",
        "systemd_service_memory_mb": 64,
    },
    "login_proxy": {
        "login_proxy_name": "sample",
        "login_proxy_address": "127.0.0.1",
        "login_proxy_port": 8000,
        "login_proxy_users": {"admin": {"password": "of-the-tests"}},
        "login_proxy_backend": "http://127.0.0.1:8001",
    },
}
TEMPLATE_VARIABLES: dict[str, str] = {
    "kafka/templates/command.j2": "{'item': 'kafka-topics'}",
    "spark/templates/spark-defaults.conf.j2": "{'settings': __spark_defaults}",
    "systemd_service/templates/properties.j2": "{'properties': {'name': 'value'}}",
}
# A template that not every host of its role has.
TEMPLATE_CONDITIONS: dict[str, str] = {
    "connections/templates/kafka.properties.j2": "'kafka' in connections_sections",
    "connections/templates/zookeeper.jaas.j2": "'zookeeper' in connections_sections",
}


def hosts_of(role: str) -> str:
    """The hosts that site.yml gives a role; all for those that others call."""
    for play in yaml.safe_load((ROOT / "site.yml").read_text()):
        names = [entry if isinstance(entry, str) else entry["role"] for entry in play.get("roles", [])]
        if role in names:
            return str(play["hosts"])
    return "all"


def play(role: Path) -> dict[str, Any]:
    """A play that has the role's variables, runs nothing of it, and renders its templates."""
    return {
        "name": role.name,
        "hosts": hosts_of(role.name),
        "gather_facts": False,
        "become": False,
        "connection": "local",
        "vars": ROLE_VARIABLES.get(role.name, {}),
        "roles": [{"role": role.name, "when": False}],
        "post_tasks": [
            {
                "name": f"{role.name}/{template.name}",
                "when": TEMPLATE_CONDITIONS.get(str(template.relative_to(ROOT / "roles")), True),
                "ansible.builtin.assert": {
                    "quiet": True,
                    "that": f"lookup('ansible.builtin.template', '{template}', template_vars="
                    f"{TEMPLATE_VARIABLES.get(str(template.relative_to(ROOT / 'roles')), {})}) is string",
                },
            }
            for template in sorted((role / "templates").glob("*.j2"))
        ],
    }


def proxies() -> dict[str, Any]:
    """A play that looks which sources a proxy leads to."""
    own = "http://{{ groups.all | first }}/api/1.4/"
    return {
        "name": "Source",
        "hosts": "all[0]",
        "gather_facts": False,
        "become": False,
        "connection": "local",
        "vars": {"source_proxy": "http://proxy.test:3128"},
        "tasks": [
            {
                "name": url,
                "ansible.builtin.assert": {
                    "quiet": True,
                    "that": [
                        f"connections.{client}.source.proxy == {expected}" for client in ("admin", "ingest")
                    ],
                },
                "vars": {"source_url": url},
            }
            for url, expected in (("https://source.test/api/1.4/", "source_proxy"), (own, "none"))
        ],
    }


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_template_renders(topology: str, tmp_path: Path) -> None:
    roles = sorted(path.parent for path in (ROOT / "roles").glob("*/templates"))
    playbook = tmp_path / "render.yml"
    playbook.write_text(yaml.safe_dump([*map(play, roles), proxies()], sort_keys=False))
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")} | {
        "XDG_STATE_HOME": str(tmp_path),
        "MILLRACE_ENV": "templates",
        "MILLRACE_TOPOLOGY": topology,
        # Its network has no hosts here, and so it has room.
        "VAGRANT_DEFAULT_PROVIDER": "virtualbox",
    }

    def run(*command: str) -> str:
        result = subprocess.run(command, cwd=ROOT, env=variables, text=True, capture_output=True, check=False)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result.stdout

    run(sys.executable, "-m", "millrace.environment", "show", "--create")
    said = run(str(Path(sys.executable).with_name("ansible-playbook")), str(playbook))
    templates = sum(1 for _ in (ROOT / "roles").glob("*/templates/*.j2"))
    assert said.count("\nTASK [") >= templates, "a template was on no host"
