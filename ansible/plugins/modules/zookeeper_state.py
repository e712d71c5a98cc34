"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

from typing import Any

from ansible.module_utils import declared_state
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: zookeeper_state
short_description: Give the znodes below ZooKeeper's root to their owners
description:
  - Makes each znode with an ACL for its one owner, and closes the root, so that nobody but super adds others.
  - Runs with the interpreter of the project's own Python environment.
options:
  connections: {description: "Connections file, its section zookeeper with the login of super.", type: path, required: true}
  owners: {description: User by the path of a znode., type: dict, default: {}}
"""


def reach(module: AnsibleModule) -> tuple[list[str], dict[str, Any]]:
    """Bring the declared state about; return what changed."""
    from kazoo.exceptions import KazooException
    from kazoo.handlers.threading import KazooTimeoutError
    from kazoo.security import READ_ACL_UNSAFE, make_acl

    from millrace import connections
    from millrace.errors import MillraceError

    changes: list[str] = []
    try:
        section = connections.load(module.params["connections"]).zookeeper
        client: Any = connections.zookeeper_client(section)
        try:
            client.start(timeout=15)
            closed = [make_acl("sasl", section.username, all=True), *READ_ACL_UNSAFE]
            wanted = {"/": closed} | {
                path: [make_acl("sasl", owner, all=True)] for path, owner in module.params["owners"].items()
            }
            for path, acl in wanted.items():
                exists = client.exists(path)
                if exists and set(client.get_acls(path)[0]) == set(acl):
                    continue
                changes.append(f"{path}: {', '.join(f'{entry.id.scheme}:{entry.id.id}' for entry in acl)}")
                if module.check_mode:
                    continue
                if exists:
                    client.set_acls(path, acl)
                else:
                    client.create(path, b"", acl=acl)
        finally:
            client.stop()
            client.close()
    except (KazooException, KazooTimeoutError, MillraceError) as error:
        module.fail_json(msg=f"ZooKeeper: {error!r}")
    return changes, {}


if __name__ == "__main__":
    options = {"connections": declared_state.CONNECTIONS, "owners": {"type": "dict", "default": {}}}
    declared_state.run(options, reach)
