"""Ansible module: see DOCUMENTATION."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote, urlsplit

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: python_environment
short_description: Install a locked Python environment from the depot
description:
  - Makes a virtual environment from the wheels of one requirements file, every one held to its hash, and the project's
    own wheel. Its folder is named by a hash of both, I(root)/current points to it, the one before is kept.
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


def install(params: dict, target: Path) -> None:
    """Make the environment; raises RuntimeError with what the failed program said."""
    depot = params["depot"]
    parts = urlsplit(depot["url"])
    base = f"{parts.scheme}://{quote(depot['username'])}:{quote(depot['password'])}@{parts.netloc}{parts.path}"
    digest = hashlib.sha256(params["requirements"].encode()).hexdigest()[:10]
    wheels = f"{base}/wheels/{params['requirements_name']}-{digest}/"
    # The address goes through the environment: arguments can be read by everybody on the host.
    settings = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))},
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
        "VIRTUAL_ENV": str(target),
    }

    def run(*command: str) -> None:
        result = subprocess.run(command, env=settings, text=True, capture_output=True, check=False)
        if result.returncode:
            said = (result.stdout + result.stderr).replace(depot["password"], "********")
            raise RuntimeError(f"{' '.join(command)} failed:\n{said[-3000:]}")

    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        lock, own_uv, own = (Path(temporary, name) for name in ("lock.txt", "uv.txt", "own.txt"))
        lock.write_text(params["requirements"])
        own_uv.write_text(uv_lock(params["requirements"]))
        own.write_text(f"millrace @ {base}/own/{params['wheel']} --hash=sha256:{params['wheel_sha256']}\n")
        own.chmod(0o600)
        run("/usr/bin/python3", "-m", "venv", str(target))
        run(f"{target}/bin/pip", "install", "-q", "--require-hashes", "-r", str(own_uv))
        uv = f"{target}/bin/uv"
        run(uv, "pip", "install", "-q", "--no-index", "--require-hashes", "-r", str(lock))
        run(uv, "pip", "install", "-q", "--no-index", "--no-deps", "--require-hashes", "-r", str(own))
        # Compiled once here: services may not write into it.
        run(f"{target}/bin/python", "-m", "compileall", "-q", "-j", "0", str(target / "lib"))
    (target / MARKER).touch()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "requirements": {"type": "str", "required": True},
            "requirements_name": {"type": "str", "required": True},
            "wheel": {"type": "str", "required": True},
            "wheel_sha256": {"type": "str", "required": True},
            "depot": {
                "type": "dict",
                "required": True,
                "options": {
                    "url": {"type": "str", "required": True},
                    "username": {"type": "str", "required": True},
                    "password": {"type": "str", "required": True, "no_log": True},
                },
            },
        },
        supports_check_mode=True,
    )
    params = module.params
    os.umask(0o022)
    root = Path(params["root"])
    current = root / "current"
    identity = hashlib.sha256((params["requirements"] + params["wheel_sha256"]).encode()).hexdigest()[:10]
    target = root / identity
    previous = os.readlink(current) if current.is_symlink() else None
    changed = previous != target.name or not (target / MARKER).exists()
    if changed and not module.check_mode:
        try:
            root.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not (target / MARKER).exists():
                install(params, target)
            new = root / ".current.new"
            new.unlink(missing_ok=True)
            new.symlink_to(target.name)
            new.replace(current)
        except (OSError, RuntimeError) as error:
            module.fail_json(msg=str(error))
        for old in root.iterdir():
            if old.is_dir() and not old.is_symlink() and old.name not in (target.name, previous):
                shutil.rmtree(old)
    module.exit_json(changed=changed, path=str(target))


if __name__ == "__main__":
    main()
