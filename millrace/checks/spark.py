"""Whether the Spark cluster has all its workers, and whether the streaming job keeps up with the topic."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

from millrace.connections import Connections, SparkCluster
from millrace.errors import NotWhole
from millrace.schemas import TOPIC

APPLICATION: Final = "users_stream"
# Seconds within which the job commits something, if there is anything to commit. One that has just started needs most of it.
PATIENCE: Final = 90.0


def spark_master(connections: Connections) -> str:
    """The master leads, and tells so to the login and to nobody else."""
    import requests

    from millrace import http

    section = connections.spark_cluster
    state = _state(section)
    if state["status"] != "ALIVE":
        raise NotWhole(f"Spark master: {state['url']} is {state['status']}")
    try:
        with http.session() as session:
            stranger = session.get(f"{section.url}/json/", timeout=10).status_code
    except requests.RequestException as error:
        raise NotWhole(f"Spark master at {section.url}: {error}") from error
    if stranger != requests.codes.unauthorized:
        raise NotWhole(f"Spark master at {section.url} answers {stranger} without a login, not 401")
    return (
        f"Spark master: {state['url']}, {len(_alive(state))} workers, {len(state['activeapps'])} applications"
    )


def spark_worker(connections: Connections) -> str:
    """The master counts on every worker."""
    section = connections.spark_cluster
    state = _state(section)
    alive = _alive(state)
    if missing := sorted(set(section.workers) - alive.keys()):
        raise NotWhole(
            f"Spark: {len(missing)} of {len(section.workers)} workers are not with the master:"
            f" {', '.join(missing)}; there: `journalctl -u spark_worker`"
        )
    cores, used = (sum(worker[key] for worker in alive.values()) for key in ("cores", "coresused"))
    return f"Spark: {len(alive)} workers, {used} of {cores} cores in use"


def users_stream(connections: Connections) -> str:
    """The job runs on executors of the cluster, and has committed what the topic had when this was asked.

    Behind an outage it has not: then it is well as long as it goes on committing. For the job's own host, where its
    offset log lies.
    """
    from millrace import topics

    section = connections.spark_cluster
    with topics.consumer(connections.kafka) as client:
        wanted, oldest = topics.end_offsets(client), topics.first_offsets(client)
    log = Path(section.checkpoint)
    if not log.is_dir():
        raise NotWhole(f"Streaming job: it has no {log} on this host; ask where it runs")
    first = _last_batch(log)
    deadline = time.monotonic() + PATIENCE
    while True:
        batch = _last_batch(log)
        read = oldest | _offsets(log, batch)
        behind = sum(max(0, offset - read[partition]) for partition, offset in wanted.items())
        cores = _cores(section)
        if cores and (not behind or batch != first):
            return f"Streaming job: on {cores} cores, batch {batch}, {behind} records behind"
        if time.monotonic() > deadline:
            raise NotWhole(
                f"Streaming job: {f'on {cores} cores' if cores else 'without executors'}, {behind} records behind, and"
                f" nothing committed for {PATIENCE:.0f} s: what it waits for is in `journalctl -u users_stream`"
            )
        time.sleep(1)


def _state(section: SparkCluster) -> dict[str, Any]:
    """Return the master's page as data; raises NotWhole where it gives none."""
    import requests

    from millrace import http

    try:
        with http.session() as session:
            session.auth = (section.username, section.password)
            answer = session.get(f"{section.url}/json/", timeout=10)
        answer.raise_for_status()
        state: dict[str, Any] = answer.json()
    except (requests.RequestException, ValueError) as error:
        raise NotWhole(f"Spark master at {section.url}: {error}") from error
    return state


def _alive(state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the workers that are there, by host; the master remembers lost ones for a while."""
    return {worker["host"]: worker for worker in state["workers"] if worker["state"] == "ALIVE"}


def _cores(section: SparkCluster) -> int:
    """Return how many cores the job's executors have, 0 where it is not on the cluster."""
    applications = _state(section)["activeapps"]
    return sum(
        app["cores"] for app in applications if (app["name"], app["state"]) == (APPLICATION, "RUNNING")
    )


def _last_batch(log: Path) -> int:
    """Return the number of the last committed batch, -1 where there is none yet."""
    folder = log / "commits"
    if not folder.is_dir():
        return -1
    return max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=-1)


def _offsets(log: Path, batch: int) -> dict[int, int]:
    """Return, per partition of the topic, up to where this batch and those before have read it."""
    if batch < 0:
        return {}
    # A version, the batch's own data, and a line per source.
    source = json.loads((log / "offsets" / str(batch)).read_text(encoding="utf-8").splitlines()[2])
    return {int(partition): offset for partition, offset in source[TOPIC].items()}
