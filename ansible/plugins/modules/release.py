"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import shutil
from pathlib import Path
from urllib.parse import quote, urlsplit

from ansible.module_utils import installations
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: release
short_description: Install a release from the depot
description:
  - Fetches every file that the manifest lists, holds each to its SHA-256, adds the commands, and moves the folder into
    place in one step. A changed byte stops the installation and names the file.
  - The folder's name carries a hash of all that went into it, so an installed release is never fetched again, and
    I(root)/current always points to a whole one. The release before it is kept, older ones are removed.
options:
  name: {description: Name of the release in the depot., type: str, required: true}
  version: {description: Its version., type: str, required: true}
  root: {description: Folder that holds the releases., type: path, required: true}
  manifest: {description: "Relative path -> sha256, size, program (bool).", type: dict, required: true}
  commands: {description: Name in bin/ -> Java main class., type: dict, default: {}}
  jvm_options: {description: Options of the JVM for the service and its commands., type: list, elements: str, default: []}
  java: {description: The java program that commands start., type: path, default: /usr/bin/java}
  texts: {description: Further small files with their content., type: dict, default: {}}
  depot:
    description: Where the depot is, and the login to it.
    type: dict
    required: true
    options:
      url: {description: Base URL., type: str, required: true}
      username: {description: Login., type: str, required: true}
      password: {description: Its password., type: str, required: true}
"""

COMMAND = """#!/bin/sh
# JVM_OPTS adds options; the log goes to the standard error, warnings and worse unless LOG_LEVEL says otherwise.
home=$(dirname "$(dirname "$(readlink -f "$0")")")
# Native libraries (compression, JNA) are unpacked and run there, which hardened images forbid in /tmp. It is root's.
tmp=/var/cache/millrace
[ -w "$tmp" ] || tmp=${{TMPDIR:-/tmp}}
exec {java} -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 "@$home/jvm.options" -Dlog.level="${{LOG_LEVEL:-WARN}}" \\
  -Djava.io.tmpdir="$tmp" $JVM_OPTS -cp "$home/conf:$home/lib/*" {main} "$@"
"""


class Depot:
    """One connection to the depot."""

    def __init__(self, url: str, username: str, password: str) -> None:
        parts = urlsplit(url)
        self.base = parts.path.rstrip("/")
        self.where = url
        self.connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=60)
        token = base64.b64encode(f"{username}:{password}".encode()).decode()
        self.headers = {"Authorization": f"Basic {token}"}

    def fetch(self, path: str) -> bytes:
        """Return one file; raises OSError with the address and the status."""
        address = f"{self.base}/{quote(path)}"
        try:
            self.connection.request("GET", address, headers=self.headers)
            response = self.connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise OSError(f"depot {self.where}: {path}: {error!r}") from error
        if response.status != 200:
            raise OSError(f"depot {self.where}: {path}: HTTP {response.status} {response.reason}")
        return body


def identity(params: dict) -> str:
    """Hash of everything that shapes the installed folder."""
    parts = {key: params[key] for key in ("manifest", "commands", "jvm_options", "java", "texts")}
    return hashlib.sha256(json.dumps([parts, COMMAND], sort_keys=True).encode()).hexdigest()[:10]


def write(path: Path, content: bytes, *, program: bool) -> None:
    """Write one file of the release, readable by everybody."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o755 if program else 0o644)


def install(params: dict, target: Path) -> None:
    """Fetch, check and place the release."""
    depot = Depot(**params["depot"])
    staging = target.with_name(f".{target.name}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o755, parents=True)
    for path, entry in params["manifest"].items():
        content = depot.fetch(f"releases/{params['name']}-{params['version']}/{path}")
        digest = hashlib.sha256(content).hexdigest()
        if digest != entry["sha256"]:
            raise ValueError(
                f"{params['name']} {params['version']}: {path} is not the locked file: its sha256 is {digest}, the lock"
                f" says {entry['sha256']}. Rebuild the depot: make depot-rebuild"
            )
        write(staging / path, content, program=entry.get("program", False))
    write(staging / "jvm.options", "\n".join([*params["jvm_options"], ""]).encode(), program=False)
    for path, text in params["texts"].items():
        write(staging / path, text.encode(), program=False)
    for name, main in params["commands"].items():
        script = COMMAND.format(java=params["java"], main=main)
        write(staging / "bin" / name, script.encode(), program=True)
    staging.rename(target)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "root": {"type": "path", "required": True},
            "manifest": {"type": "dict", "required": True},
            "commands": {"type": "dict", "default": {}},
            "jvm_options": {"type": "list", "elements": "str", "default": []},
            "java": {"type": "path", "default": "/usr/bin/java"},
            "texts": {"type": "dict", "default": {}},
            "depot": installations.DEPOT,
        },
        supports_check_mode=True,
    )
    os.umask(0o022)
    root = Path(module.params["root"])
    target = root / f"{module.params['version']}-{identity(module.params)}"
    changed = installations.current(root) != target.name or not target.is_dir()
    if changed and not module.check_mode:
        try:
            if not target.is_dir():
                install(module.params, target)
            installations.make_current(root, target)
        except (OSError, ValueError) as error:
            module.fail_json(msg=str(error))
    module.exit_json(changed=changed, path=str(target))


if __name__ == "__main__":
    main()
