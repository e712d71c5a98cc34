"""The secrets of an environment: made once, kept encrypted by Ansible's vault beside the environment's state.

A secret that is new to an existing environment is added; one that exists is never made anew, because the hosts'
data depend on it.
"""

from __future__ import annotations

import base64
import secrets
import string
from collections.abc import Callable
from pathlib import Path

import yaml
from ansible.parsing.vault import VaultLib, VaultSecret

ALPHABET = string.ascii_letters + string.digits


def _password() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(32))


def _long_secret() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(64))


def _fernet_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()


# name -> how it is made. One line per login or key of the platform.
SECRETS: dict[str, Callable[[], str]] = {
    "depot": _password,
    "zookeeper_super": _password,
    "zookeeper_quorum": _password,
    "zookeeper_kafka": _password,
    "kafka_broker": _password,
    "kafka_admin": _password,
    "kafka_relay": _password,
    "kafka_writer": _password,
    "kafka_audit": _password,
    "kafka_ingest": _password,
    "cassandra_admin": _password,
    "cassandra_jmx": _password,
    "cassandra_writer": _password,
    "cassandra_audit": _password,
    "cassandra_ingest": _password,
    "postgresql_millrace": _password,
    "postgresql_relay": _password,
    "postgresql_ingest": _password,
    "postgresql_audit": _password,
    "postgresql_airflow": _password,
    "postgresql_schema_registry": _password,
    "schema_registry_admin": _password,
    "schema_registry_relay": _password,
    "schema_registry_writer": _password,
    "spark_authenticate": _long_secret,
    "spark_ui": _password,
    "airflow_admin": _password,
    "airflow_fernet": _fernet_key,
    "airflow_api": _long_secret,
    "airflow_jwt": _long_secret,
    "offline_source_control": _password,
}


class SecretsFault(Exception):
    """Secrets that can't be used, with the cause and the fix."""


def ensure(directory: Path) -> None:
    """Make the key and the secrets of the environment in ``directory``, or add those that are new.

    Raises `SecretsFault` when one of the two files is there without the other.
    """
    key_file, secrets_file = directory / "vault_key", directory / "secrets.yml"
    if key_file.exists() != secrets_file.exists():
        missing = secrets_file if key_file.exists() else key_file
        raise SecretsFault(
            f"{missing} is gone; the hosts' data depend on it: put it back from a copy, or remove the hosts with"
            " their data (`make down`)"
        )
    if not key_file.exists():
        key_file.touch(mode=0o600)
        key_file.write_text(_long_secret() + "\n")
        known: dict[str, str] = {}
    else:
        known = read(directory)
    made = {name: make() for name, make in SECRETS.items() if name not in known}
    if made:
        text = yaml.safe_dump({**known, **made})
        new = secrets_file.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_bytes(_vault(key_file).encrypt(text))
        new.replace(secrets_file)


def read(directory: Path) -> dict[str, str]:
    """The secrets of the environment in ``directory`` by name."""
    data = yaml.safe_load(_vault(directory / "vault_key").decrypt((directory / "secrets.yml").read_bytes()))
    return dict(data)


def _vault(key_file: Path) -> VaultLib:
    return VaultLib([("default", VaultSecret(key_file.read_text().strip().encode()))])
