"""What modules share that hold a service to a declared state, with the project's own clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# The file with the module's login, as an option.
CONNECTIONS = {"type": "path", "required": True}


def run(options: dict[str, Any], reach: Callable[[AnsibleModule], tuple[list[str], dict[str, Any]]]) -> None:
    """Run a module: `reach` brings the state about (or only looks, in check mode) and returns what changed, and results.

    It imports its clients itself.
    """
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    try:
        changes, results = reach(module)
    except ImportError as error:
        module.fail_json(msg=f"{error}: run this with the interpreter /opt/millrace/current/bin/python")
    module.exit_json(
        changed=bool(changes),
        changes=changes,
        diff={"prepared": "".join(f"{change}\n" for change in changes)},
        **results,
    )
