"""Inventory of an environment: its hosts, grouped by the services that its topology gives them."""

from __future__ import annotations

import shlex
from typing import Any

from ansible.errors import AnsibleParserError

from ansible import constants
from ansible.plugins.inventory import BaseInventoryPlugin
from millrace import environment as environments
from millrace import secrets, terraform
from millrace import topology as topologies

DOCUMENTATION = """
name: millrace
short_description: Hosts of a Millrace environment
description:
  - Reads the topology of the environment that MILLRACE_ENV names, checks it, and gives its hosts,
    one group per service, the environment's secrets and what each host is to its clusters.
options:
  plugin:
    description: Marks the file as this plugin's.
    required: true
    choices: [millrace]
  hosts:
    description: Who makes the hosts. Terraform tells their addresses itself, Vagrant takes those of the environment.
    choices: [vagrant, terraform]
    default: vagrant
"""
# One connection for a host's tasks, which ends when the host no longer answers.
SSH_CONNECTION = "-o ControlMaster=auto -o ControlPersist=120s -o ServerAliveInterval=15"


class InventoryModule(BaseInventoryPlugin):  # type: ignore[misc]
    """The plugin; see DOCUMENTATION."""

    NAME = "millrace"

    def verify_file(self, path: str) -> bool:
        """Take files that are named for the plugin."""
        return bool(super().verify_file(path)) and path.endswith(".millrace.yml")

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory from the environment."""
        super().parse(inventory, loader, path, cache)
        here = inventory.get_host("localhost")
        # Tasks on this machine need no more than those on hosts; .venv's own Python, which Ansible would take here, may lie at a
        # path that one of its strategies takes for words of a shell.
        here.set_variable(
            "ansible_python_interpreter", constants.config.get_config_value("INTERPRETER_PYTHON")
        )
        # They run as who runs Ansible: sudo would not hand on which environment is meant, and a removal would be of another.
        here.set_variable("ansible_become", False)
        self._read_config_data(path)
        try:
            environment = environments.current()
            environment.require_maker(self.get_option("hosts"))
            topology = environment.load_topology()
            hosts = environment.located_hosts()
            ssh_config = environment.ssh_config()
            operator_cidrs = environment.operator_cidrs()
        except (environments.EnvironmentFault, terraform.TerraformFault, topologies.TopologyError) as error:
            raise AnsibleParserError(str(error)) from error

        directory = environment.directory
        for name, value in {
            "environment_name": environment.name,
            "environment_id": environment.id,
            "environment_directory": str(directory),
            "environment_provider": environment.provider,
            "topology_name": topology.name,
            "operator_cidrs": operator_cidrs,
            "cache_directory": str(environments.cache_directory()),
            "replication_factors": {name: topology.replication(name) for name in ("kafka", "cassandra")},
            "ansible_become": True,
            "mitogen_ssh_compression": False,
            # All that ssh, sftp and rsync are given, whatever a person has set for other hosts.
            "ansible_port": 22,
            "ansible_ssh_args": f"-F {shlex.quote(str(ssh_config))} {SSH_CONNECTION}",
            "ansible_ssh_common_args": "",
            "ansible_ssh_extra_args": "",
            "secrets": secrets.read(directory),
        }.items():
            inventory.set_variable("all", name, value)

        for service in topologies.Catalogue.load().services:
            inventory.add_group(service)
        for host in hosts:
            inventory.add_host(host["name"])
            for service in host["services"]:
                inventory.add_host(host["name"], group=service)
            for name, value in {
                "ansible_host": host["operator_address"],
                "ansible_user": host["user"],
                "host_address": host["address"],
                "host_rack": host["rack"],
                "host_services": host["services"],
                "host_ids": host["ids"],
                "host_memory_mb": host["memory_mb"],
                "host_cpus": host["cpus"],
            }.items():
                inventory.set_variable(host["name"], name, value)
