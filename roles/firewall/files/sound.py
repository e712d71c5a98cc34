"""Refuse rules that nft can't load, and rules that would shut out whoever installs them: RULES SSH_PORT NETWORK..."""

import ipaddress
import os
import subprocess
import sys
from pathlib import Path


def connection():
    """Return what ssh says of the connection that this runs by: client, its port, server, its port; None without one."""
    process = os.getpid()
    while process > 1:
        # sudo takes the variable away, not the process above it.
        for entry in Path(f"/proc/{process}/environ").read_bytes().split(b"\0"):
            if entry.startswith(b"SSH_CONNECTION="):
                return entry.split(b"=", 1)[1].decode().split()
        process = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return None


rules, port, *networks = sys.argv[1:]
checked = subprocess.run(
    ["/usr/sbin/nft", "--check", "--file", rules], capture_output=True, text=True, check=False
)
if checked.returncode:
    sys.exit(checked.stderr)
found = connection()
if found:
    client, _, server, server_port = (part.split("%")[0].removeprefix("::ffff:") for part in found)
    address = ipaddress.ip_address(client)
    admitted = any(address in ipaddress.ip_network(network) for network in networks)
    if not (address.is_loopback or client == server) and not (admitted and server_port == port):
        sys.exit(
            f"they would shut out the connection that installs them, from {client} to port {server_port}: ssh is open to"
            f" {', '.join(networks)} on port {port}. Name the network of {client} in operator_cidrs"
        )
