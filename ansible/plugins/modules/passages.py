"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: passages
short_description: Show that other hosts let this one in where they should, and nowhere else
description:
  - Begins a TCP connection to each port. An answer, also the one that nobody listens there, has come through the other
    host's firewall; silence has not.
  - A host that does not answer a ping either is away, or something before it keeps everything out; that is a warning.
options:
  passages:
    description: What to try.
    type: list
    elements: dict
    required: true
    options:
      host: {description: Name of the other host., type: str, required: true}
      address: {description: Its address., type: str, required: true}
      name: {description: What listens there., type: str, required: true}
      port: {description: TCP port., type: int, required: true}
      open: {description: Whether this host is to be let in., type: bool, required: true}
  neighbours: {description: Hosts that are held to what they keep out., type: list, elements: str, default: []}
"""

# Seconds. An answer to a first packet that got lost comes after one.
PATIENCE = {True: 5.0, False: 0.5}


def answers(passage: dict) -> bool:
    """Whether the other host says anything."""
    try:
        with socket.create_connection((passage["address"], passage["port"]), PATIENCE[passage["open"]]):
            return True
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


def fault(passage: dict, module: AnsibleModule) -> str | None:
    """What is wrong with a passage, None where it is as it should be."""
    if answers(passage) == passage["open"]:
        return None
    where = f"{passage['host']}, port {passage['port']} ({passage['name']})"
    if not passage["open"]:
        return f"{where} answers, and is not open to this host"
    ping = ["ping", "-c", "1", "-W", "2", passage["address"]]
    if subprocess.run(ping, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode:
        module.warn(f"{passage['host']} answers nothing, so nothing is known of its firewall")
        return None
    return f"{where} does not let this host in, though it answers a ping"


def main() -> None:
    """Run the module."""
    passage = {
        "host": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "port": {"type": "int", "required": True},
        "open": {"type": "bool", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "passages": {"type": "list", "elements": "dict", "required": True, "options": passage},
            "neighbours": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    neighbours = module.params["neighbours"]
    tried = [item for item in module.params["passages"] if item["open"] or item["host"] in neighbours]
    with ThreadPoolExecutor(max(1, min(64, len(tried)))) as pool:
        faults = [said for said in pool.map(lambda item: fault(item, module), tried) if said]
    if faults:
        module.fail_json(
            msg="\n".join(faults) + "\nEither the firewall there has not the rules of this topology:"
            " run `ansible-playbook site.yml --tags firewall`, without --limit. Or a second one keeps this host out, on the way or"
            " there (ufw, firewalld): in `nft list ruleset` each chain with `policy drop` or `reject` has to let in what table"
            " inet millrace does."
        )
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
