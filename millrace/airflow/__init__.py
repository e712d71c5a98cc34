"""What the DAGs need of Airflow beside plain tasks: waiting without a worker, windows, the rollup's submission.

DAG files import this at every parse, and the triggerer loads its triggers from here: nothing heavy at the top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import timedelta

    from millrace.connections import Connections

# The section of airflow.cfg that is the flow's own.
SECTION: Final = "millrace"


def client(name: str) -> Connections:
    """Return the connections of a client identity (`ingest`, `audit`); raises ConnectionsError."""
    import logging
    from pathlib import Path

    from airflow.sdk.configuration import conf

    from millrace import connections

    # What these drivers fail with, the tasks say themselves, in a line instead of a page.
    for driver in ("cassandra", "kafka"):
        logging.getLogger(driver).setLevel(logging.CRITICAL)
    folder = conf.get(SECTION, "connections_folder", fallback="/etc/millrace/connections")
    return connections.load(Path(folder) / f"{name}.json")


def most_users() -> int:
    """Return how many users a run may ask for, by what the source is said to give."""
    from millrace import limits
    from millrace.connections import ConnectionsError

    try:
        return limits.most_users(client("ingest").source.rate_limit)
    except ConnectionsError:  # the tasks tell it; here it would take the DAG away
        return limits.most_users(limits.RATE_LIMIT)


def users_retention() -> timedelta:
    """Return how long PostgreSQL keeps users."""
    from datetime import timedelta

    from airflow.sdk.configuration import conf

    return timedelta(days=conf.getint(SECTION, "users_retention_days", fallback=30))
