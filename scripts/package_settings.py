"""Prints a shell's exports: the way to the package registries that pip and uv are set to here, and nothing else of their settings.

A person's files and variables may also say where packages go and which are taken (user, target, system, constraints). That is not
for the environments that are made here, so pip and uv read these exports alone. A mirror, proxy or certificate that only one of the
two knows serves both.
"""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

PIP = [
    "index-url",
    "extra-index-url",
    "find-links",
    "no-index",
    "trusted-host",
    "cert",
    "client-cert",
    "proxy",
    "keyring-provider",
    "timeout",
    "retries",
    "cache-dir",
]
PROXIES = {"http_proxy", "https_proxy", "all_proxy"}


def pip_settings() -> dict[str, str]:
    """What pip's files and variables say, by the name of the option; variables last."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    found: dict[str, dict[str, str]] = {}
    for line in subprocess.check_output(command, text=True).splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if words := ast.literal_eval(value).split():
            found.setdefault(section, {})[option] = " ".join(words)
    return {**found.get("global", {}), **found.get("install", {}), **found.get(":env:", {})}


def uv_settings() -> dict[str, str]:
    """What uv's files say, as the variables that say the same."""
    folders = [*os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")[::-1], "/etc"]
    folders += [os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")]
    files = [Path(folder, "uv/uv.toml") for folder in folders]
    if named := os.environ.get("UV_CONFIG_FILE"):
        files = [Path(named)]
    said: dict[str, object] = {}
    for file in files:
        if file.is_file() and not os.environ.get("UV_NO_CONFIG"):
            content = tomllib.loads(file.read_text())
            said |= content | content.get("pip", {})
    indexes = said.get("index", [])
    default = next((index["url"] for index in indexes if index.get("default")), said.get("index-url"))
    others = [
        f"{index['name']}={index['url']}" if "name" in index else index["url"]
        for index in indexes
        if not index.get("default")
    ]
    variables = {
        "UV_DEFAULT_INDEX": default,
        "UV_INDEX": [*others, *said.get("extra-index-url", [])],
        "UV_FIND_LINKS": ",".join(said.get("find-links", [])),
        "UV_INSECURE_HOST": said.get("allow-insecure-host"),
    }
    for name in ("no-index", "native-tls", "system-certs", "keyring-provider", "index-strategy", "cache-dir"):
        variables[f"UV_{name.upper().replace('-', '_')}"] = said.get(name)
    return {name: text(value) for name, value in variables.items() if value}


def text(value: object) -> str:
    """A setting as a variable says it."""
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, list) else str(value)


def main() -> None:
    """Print the exports."""
    pip = {name: value for name, value in pip_settings().items() if name in PIP and value}
    own = {name: value for name, value in os.environ.items() if name.startswith(("UV_", "SSL_C")) and value}
    uv = uv_settings() | own
    # uv has no list of packages in folders that goes without saying where else they are.
    offline = pip.get("no-index", "").lower() in ("1", "true", "yes", "on")
    known = {"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_NO_INDEX", "UV_FIND_LINKS"} & set(uv)
    if not known:
        uv |= {
            "UV_DEFAULT_INDEX": pip.get("index-url", ""),
            "UV_INDEX": pip.get("extra-index-url", ""),
            "UV_INSECURE_HOST": uv.get("UV_INSECURE_HOST") or pip.get("trusted-host", ""),
            "UV_NO_INDEX": "true" if offline else "",
            "UV_FIND_LINKS": pip.get("find-links", "").replace(" ", ",") if offline else "",
        }
    # uv has no setting for a proxy: it knows the variables alone.
    if (proxy := pip.get("proxy")) and not PROXIES & {
        name.lower() for name, value in os.environ.items() if value
    }:
        uv |= {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy}
    authorities = uv.get("SSL_CERT_FILE") or pip.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE", "")
    uv.setdefault("SSL_CERT_FILE", authorities)
    pip.setdefault("cert", authorities)
    login = uv.get("SSL_CLIENT_CERT") or pip.get("client-cert", "")
    uv.setdefault("SSL_CLIENT_CERT", login)
    pip.setdefault("client-cert", login)
    if "UV_DEFAULT_INDEX" in uv:
        pip.setdefault("index-url", uv["UV_DEFAULT_INDEX"])
    pip_variables = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in pip.items()}
    exports = {**uv, **pip_variables, "PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "true"}
    exports.pop("UV_CONFIG_FILE", None)
    for name, value in exports.items():
        if value:
            print(f"export {name}={shlex.quote(value)}")
    print("unset UV_CONFIG_FILE")


main()
