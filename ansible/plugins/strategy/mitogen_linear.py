"""Ansible's linear order of tasks, with one Python on each host that is kept between them instead of one for each task."""

from __future__ import annotations

import mitogen.ssh
from ansible_mitogen.plugins.strategy.mitogen_linear import StrategyModule

# Stands here so that the configuration need not know where Python keeps its packages.
__all__ = ["StrategyModule"]

_ENFORCED = ["-o", "StrictHostKeyChecking yes"]
_boot_command = mitogen.ssh.Connection.get_boot_command


def _as_configured(connection: mitogen.ssh.Connection) -> list[str]:
    """The command of ssh, less mitogen's own word on the keys of hosts: it would refuse every new one, whatever ssh is set to."""
    words: list[str] = _boot_command(connection)
    at = next(at for at in range(len(words)) if words[at : at + 2] == _ENFORCED)
    return words[:at] + words[at + 2 :]


mitogen.ssh.Connection.get_boot_command = _as_configured
