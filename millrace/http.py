"""HTTP sessions that go where their connection says, whatever the environment of the process says of proxies."""

from __future__ import annotations

from typing import Final

import requests

# Debian's store, with the certificates that the hosts were given. The list that comes with requests knows no corporate one.
SYSTEM_CERTIFICATES: Final = "/etc/ssl/certs/ca-certificates.crt"


def session(*, ca_file: str | None = None, proxy: str | None = None) -> requests.Session:
    """Return a session that reaches its hosts directly, or all of them through `proxy` (http://[user:password@]host:port).

    It asks nothing of the environment: no proxy variables, which rarely except the platform's own hosts, no ~/.netrc, which
    would win over the login of a connection, and no CA bundle. Servers are held to `ca_file`, else to the system's store.
    """
    made = requests.Session()
    made.trust_env = False
    made.verify = ca_file or SYSTEM_CERTIFICATES
    if proxy is not None:
        made.proxies = {"http": proxy, "https": proxy}
    return made
