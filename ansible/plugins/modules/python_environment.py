"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit

from ansible.module_utils import installations
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: python_environment
short_description: Install a locked Python environment from the depot
description:
  - Makes a virtual environment from the wheels of one requirements file, every one held to its hash. Its folder is named
    by a hash of that file, I(root)/current points to it, the one before is kept.
  - Installs the project's own wheel into it, and records both in I(root)/current/.wheel, which is in the fingerprint of
    the services that run from it.
options:
  root: {description: Folder that holds the environments., type: path, required: true}
  requirements: {description: Text of the requirements file with hashes., type: str, required: true}
  requirements_name: {description: Name of that file without its ending., type: str, required: true}
  wheel: {description: File name of the project's own wheel in the depot., type: str, required: true}
  wheel_sha256: {description: Its SHA-256., type: str, required: true}
  depot:
    description: Where the depot is, and the login to it.
    type: dict
    required: true
    options:
      url: {description: Base URL., type: str, required: true}
      username: {description: Login., type: str, required: true}
      password: {description: Its password., type: str, required: true}
"""

# Written last: an environment without it was cut off.
MARKER = ".complete"
# Names the environment and the hash of the project's own wheel in it.
WHEEL = ".wheel"


def contents(target: Path, wheel_sha256: str) -> str:
    """Return what services run from: another lock is another folder, another wheel another hash."""
    return f"{target.name} {wheel_sha256}\n"


def uv_lock(requirements: str) -> str:
    """Return the lines that lock uv itself, which installs the rest many times faster than pip."""
    lines: list[str] = []
    for line in requirements.splitlines():
        if line.startswith("uv=="):
            lines = [line]
        elif lines and line.startswith(" "):
            lines.append(line)
        elif lines:
            break
    return "\n".join(lines) + "\n"


class Installer:
    """Runs pip and uv against the depot alone."""

    def __init__(self, params: dict, target: Path) -> None:
        depot = params["depot"]
        parts = urlsplit(depot["url"])
        login = f"{quote(depot['username'])}:{quote(depot['password'])}"
        self.base = f"{parts.scheme}://{login}@{parts.netloc}{parts.path}"
        self.password = depot["password"]
        self.params = params
        self.target = target
        digest = hashlib.sha256(params["requirements"].encode()).hexdigest()[:10]
        wheels = f"{self.base}/wheels/{params['requirements_name']}-{digest}/"
        # The address goes through the environment: arguments can be read by everybody on the host. What the host's says of
        # other places to install from, and of proxies on the way, stays out.
        self.settings = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("PIP_", "UV_")) and not name.lower().endswith("_proxy")
            },
            "PIP_FIND_LINKS": wheels,
            "PIP_NO_INDEX": "1",
            # Every file is held to its hash.
            "PIP_TRUSTED_HOST": parts.netloc,
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_CACHE_DIR": "1",
            "UV_FIND_LINKS": wheels,
            "UV_NO_CONFIG": "1",
            "UV_NO_CACHE": "1",
            "UV_LINK_MODE": "copy",
            # Compiled once here: services may not write into it.
            "UV_COMPILE_BYTECODE": "1",
            "VIRTUAL_ENV": str(target),
        }

    def run(self, *command: str) -> None:
        """Run a program; raises RuntimeError with what it said."""
        result = subprocess.run(command, env=self.settings, text=True, capture_output=True, check=False)
        if result.returncode:
            said = (result.stdout + result.stderr).replace(self.password, "********")
            raise RuntimeError(f"{' '.join(command)} failed:\n{said[-3000:]}")

    def install_locked(self, requirements: str, *, with_pip: bool = False, again: bool = False) -> None:
        """Install packages by their hashes."""
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as lock:  # mode 0600
            lock.write(requirements)
            lock.flush()
            if with_pip:
                self.run(f"{self.target}/bin/pip", "install", "-q", "--require-hashes", "-r", lock.name)
            else:
                self.run(
                    f"{self.target}/bin/uv", "pip", "install", "-q", "--no-index", "--no-deps", "--require-hashes",
                    *(["--reinstall"] if again else []), "-r", lock.name,
                )  # fmt: skip

    def environment(self) -> None:
        """Make the environment from its lock."""
        shutil.rmtree(self.target, ignore_errors=True)
        self.run("/usr/bin/python3", "-m", "venv", str(self.target))
        self.install_locked(uv_lock(self.params["requirements"]), with_pip=True)
        self.install_locked(self.params["requirements"])
        (self.target / MARKER).touch()

    def own_wheel(self) -> None:
        """Install the project's own wheel; its version stays the same while it is worked on."""
        address = f"{self.base}/own/{self.params['wheel']}"
        self.install_locked(f"millrace @ {address} --hash=sha256:{self.params['wheel_sha256']}\n", again=True)
        (self.target / WHEEL).write_text(contents(self.target, self.params["wheel_sha256"]))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "requirements": {"type": "str", "required": True},
            "requirements_name": {"type": "str", "required": True},
            "wheel": {"type": "str", "required": True},
            "wheel_sha256": {"type": "str", "required": True},
            "depot": installations.DEPOT,
        },
        supports_check_mode=True,
    )
    params = module.params
    os.umask(0o022)
    root = Path(params["root"])
    target = root / hashlib.sha256(params["requirements"].encode()).hexdigest()[:10]
    complete = (target / MARKER).exists()
    wheel = (target / WHEEL).read_text() if complete and (target / WHEEL).exists() else None
    wanted = contents(target, params["wheel_sha256"])
    changed = installations.current(root) != target.name or not complete or wheel != wanted
    if changed and not module.check_mode:
        try:
            root.mkdir(mode=0o755, parents=True, exist_ok=True)
            installer = Installer(params, target)
            if not complete:
                installer.environment()
            if wheel != wanted:
                installer.own_wheel()
            installations.make_current(root, target)
        except (OSError, RuntimeError) as error:
            module.fail_json(msg=str(error))
    module.exit_json(changed=changed, path=str(target))


if __name__ == "__main__":
    main()
