"""Prints what this machine's firewalls close to LXC's hosts: read from `nft list ruleset` on standard input.

A packet passes when each base chain of its hook lets it pass: what LXC accepts in a table of its own opens no other table's chain.
A chain that drops or rejects what nothing in it accepts is taken for closed where nothing that it leads to names the hosts' bridge
or network. Prints two lines of the first one, or nothing: which chain it is, and the commands that open it.
"""

from __future__ import annotations

import re
import sys

BRIDGE = "lxcbr0"
HOSTS = re.compile(r'"lxcbr0"|"lxc(br)?\*"|\b10\.0\.(3\.|0\.0/(8|16))')
TABLE = re.compile(r"^table (?:ip|inet) \S+ {\n.*?^}", re.MULTILINE | re.DOTALL)
CHAIN = re.compile(r"^\tchain (\S+) {\n(.*?)^\t}", re.MULTILINE | re.DOTALL)
CLOSED = re.compile(r"policy drop;|^\s*(?:counter packets \d+ bytes \d+ )?(?:drop$|reject\b)", re.MULTILINE)
JUMP = re.compile(r"\b(?:jump|goto) ([^\s,}]+)")
# What hosts need of a hook, and the commands of who made a chain of that name in the table.
HOOKS = {
    "forward": (
        "the way out",
        {
            "DOCKER-USER": f"iptables -I DOCKER-USER -i {BRIDGE} -j ACCEPT && iptables -I DOCKER-USER -o {BRIDGE} -j ACCEPT",
            "ufw-user-forward": f"ufw route allow in on {BRIDGE}",
        },
    ),
    "input": ("this machine's DNS", {"ufw-user-input": f"ufw allow in on {BRIDGE}"}),
}
FIREWALLD = f"firewall-cmd --permanent --zone=trusted --add-interface={BRIDGE} && firewall-cmd --reload"


def reached(chains: dict[str, str], name: str) -> str:
    """The rules of a chain and of all that it leads to."""
    seen, waiting = {name}, [name]
    while waiting:
        further = set(JUMP.findall(chains[waiting.pop()])) & chains.keys() - seen
        seen |= further
        waiting += further
    return "".join(chains[chain] for chain in seen)


def main() -> None:
    """Print the first chain that is closed, and what opens it."""
    for table in TABLE.findall(sys.stdin.read()):
        _, family, name = table.split(maxsplit=3)[:3]
        chains = dict(CHAIN.findall(table))
        for chain, rules in chains.items():
            hook = re.match(r"\s*type filter hook (forward|input) ", rules)
            if not hook or not CLOSED.search(rules) or HOSTS.search(reached(chains, chain)):
                continue
            needed, commands = HOOKS[hook[1]]
            insert = f"nft insert rule {family} {name} {chain}"
            both = [f"{insert} iifname {BRIDGE} accept", f"{insert} oifname {BRIDGE} accept"]
            fix = " && ".join(both if hook[1] == "forward" else both[:1])
            if name == "firewalld":
                fix = FIREWALLD
            print(f"chain {chain} of nftables' table {family} {name} closes {needed} to LXC hosts")
            print(next((command for maker, command in commands.items() if maker in chains), fix))
            return


main()
