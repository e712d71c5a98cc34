"""The service's side of systemd's notification protocol; does nothing where systemd did not start it."""

import os
import socket


def notify(*assignments: str) -> None:
    """Send assignments, for instance "READY=1" or "STATUS=idle", in one datagram."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as datagram:
        datagram.sendto("\n".join(assignments).encode(), address)
