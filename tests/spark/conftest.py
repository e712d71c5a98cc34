"""A real Spark session on this machine, and records as a producer makes them."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "spark"))

from millrace_spark import session
from millrace_spark.transforms import Event
from pyspark.sql import SparkSession

from millrace import schemas


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A local session with the jobs' settings and the jars that pyspark has not."""
    if not list(Path(os.environ.get("SPARK_HOME", "")).glob("jars/spark-cassandra-connector_*.jar")):
        pytest.fail(
            "SPARK_HOME must be the release that the depot holds, with its connectors: use scripts/test-spark"
        )
    # A time zone with odd minutes in its history: nothing may depend on the host's.
    os.environ["TZ"] = "Asia/Kathmandu"
    settings = session.settings("common", "users_stream") | {
        "spark.ui.enabled": "false",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
    }
    started = session.start("tests", settings, {"spark.master": "local[2]"})
    yield started
    started.stop()


@pytest.fixture
def event() -> Event:
    return Event(schemas.users_created())
