"""The Spark session: settings of spark/conf, addresses and secrets of the connections."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pyspark import SparkConf, SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from millrace.connections import Cassandra, Connections, ConnectionsError
from millrace.errors import MillraceError

CONF_DIR: Final = Path(__file__).resolve().parent.parent / "conf"


def settings(*names: str) -> dict[str, str]:
    """Read spark/conf/<name>.conf, later names over earlier ones. The form is that of spark-defaults.conf."""
    merged: dict[str, str] = {}
    for name in names:
        for line in (CONF_DIR / f"{name}.conf").read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith("#"):
                key, value = line.split(maxsplit=1)
                merged[key] = value.strip()
    return merged


def secrets(connections: Connections) -> dict[str, str]:
    """Return the settings that are addresses or secrets: master, authentication, Cassandra's login."""
    spark = connections.spark
    try:
        secret = Path(spark.secret_file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConnectionsError(
            f"Spark's secret file can't be read ({error}): `ansible-playbook site.yml --tags spark` installs it"
        ) from error
    return {
        "spark.master": spark.master,
        "spark.authenticate": "true",
        "spark.authenticate.secret": secret,
        **cassandra_settings(connections.cassandra),
    }


def cassandra_settings(cassandra: Cassandra) -> dict[str, str]:
    """Return the connector's settings for this ring."""
    if cassandra.ca_file is not None:
        raise ConnectionsError(
            "the Cassandra connector takes its CA from a Java trust store, not from `ca_file`: "
            "set spark.cassandra.connection.ssl.* in spark-defaults.conf and leave ca_file null"
        )
    options = {
        "spark.cassandra.connection.host": ",".join(cassandra.hosts),
        "spark.cassandra.connection.port": str(cassandra.port),
        "spark.cassandra.connection.localDC": cassandra.local_dc,
    }
    if cassandra.username is not None:
        options["spark.cassandra.auth.username"] = cassandra.username
        options["spark.cassandra.auth.password"] = cassandra.password or ""
    return options


def start(name: str, defaults: Mapping[str, str], secret: Mapping[str, str]) -> SparkSession:
    """Start the driver and return its session.

    `defaults` yield to what spark-submit or spark-defaults.conf set. `secret` settings are handed over within
    the process: the command line of the driver's JVM, which everybody on the host can read, has none of them.
    """
    at_launch = SparkConf(loadDefaults=False)
    for key, value in defaults.items():
        if key.startswith(("spark.driver.", "spark.ui.show")):  # what the JVM takes at its start alone
            at_launch.set(key, value)
    log_settings = (CONF_DIR / "log4j2.properties").as_uri()
    at_launch.set("spark.driver.extraJavaOptions", f"-Dlog4j2.configurationFile={log_settings}")
    gateway = launch_gateway(at_launch)  # type: ignore[no-untyped-call]
    conf = SparkConf(_jvm=gateway.jvm).setAppName(name)
    for key, value in defaults.items():
        conf.setIfMissing(key, value)
    for key, value in secret.items():
        conf.set(key, value)
    context = SparkContext(conf=conf, gateway=gateway)
    # Each time that a class is named py4j asks the JVM for it, which looks through all of its jars, once for each package
    # that Spark imports; each column and each expression names one of these. It was a tenth of the driver's work.
    for class_name in ("functions", "PythonUtils"):
        setattr(gateway.jvm, class_name, getattr(gateway.jvm, class_name))
    context.setLogLevel("WARN")  # for a JVM that spark-submit started, with log settings of its own
    return SparkSession(context)


class NoExecutorsError(MillraceError):
    """The master gives the application no executors."""


class ExecutorWatch:
    """Sees that the application has executors.

    A master that is just recovering may take a registration and forget it, without a word to the driver; it lets go of
    its past within a minute. The remedy is to register anew, which is to end and be started again.
    """

    def __init__(self, spark: SparkSession, patience: float = 90.0) -> None:
        self._context = spark.sparkContext._jsc.sc()  # type: ignore[attr-defined]
        self._patience = patience
        self._seen = time.monotonic()

    def there(self) -> bool:
        """Whether there is an executor now; raises NoExecutorsError when there was none for `patience` seconds."""
        # The driver counts as one.
        if self._context.getExecutorMemoryStatus().size() > 1:
            self._seen = time.monotonic()
            return True
        if time.monotonic() - self._seen > self._patience:
            raise NoExecutorsError(
                f"the master gave no executors for {self._patience:.0f} s: are there workers with a free core?"
                " `millrace health spark_worker` says"
            )
        return False


def log_to_stderr() -> None:
    """Send the job's own lines to standard error, one per event; the journal adds the time."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("py4j").setLevel(logging.WARNING)


def one_line(text: str) -> str:
    """Fold an error of the JVM, which has many lines, into the line of an event."""
    return " | ".join(line.strip() for line in text.splitlines() if line.strip())[:2000]
