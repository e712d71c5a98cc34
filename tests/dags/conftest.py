"""Airflow with a database and a configuration of its own, set before anything imports it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"

_home = Path(tempfile.mkdtemp(prefix="millrace-airflow-"))
atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ |= {
    "AIRFLOW_HOME": str(_home),
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{_home}/airflow.db",
    "AIRFLOW__MILLRACE__CONNECTIONS_FOLDER": str(_home / "connections"),
}
(_home / "connections").mkdir()


@pytest.fixture(scope="session")
def airflow_database() -> None:
    """Airflow's own database, for tests that run tasks."""
    airflow = Path(sys.executable).with_name("airflow")
    subprocess.run([airflow, "db", "migrate"], check=True, capture_output=True)


@pytest.fixture
def connections_folder() -> Path:
    """Where tasks look for their connections."""
    return Path(os.environ["AIRFLOW__MILLRACE__CONNECTIONS_FOLDER"])


@pytest.fixture
def ingest_connections(as_role, connect, source_url, connections_folder) -> dict[str, Any]:
    """The tasks' connections to real parts, on empty tables; Kafka is away, and soon known to be."""
    server = as_role("ingest")
    sections = {
        "postgresql": {"host": server.host, "dbname": server.dbname, "user": server.user},
        "source": {"url": source_url, "name": "randomuser"},
        "kafka": {"bootstrap_servers": ["127.0.0.1:1"], "security_protocol": "PLAINTEXT"},
    }
    (connections_folder / "ingest.json").write_text(json.dumps(sections))
    return sections
