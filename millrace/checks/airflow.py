"""Whether Airflow is whole: its four parts beat, a login works, and every DAG file was read."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from millrace.connections import Connections
from millrace.errors import NotWhole

if TYPE_CHECKING:
    import requests

# The parts with a heartbeat, as the API names them, with the name of each one's last beat.
_BEATS: Final = {
    "scheduler": "latest_scheduler_heartbeat",
    "dag_processor": "latest_dag_processor_heartbeat",
    "triggerer": "latest_triggerer_heartbeat",
}


def airflow(connections: Connections) -> str:
    """Every part is healthy since its unit was started, nobody gets in without a login, and the DAGs are there."""
    import requests

    from millrace import http

    section = connections.airflow
    try:
        with http.session() as session:
            _require_healthy(_get(session, f"{section.url}/api/v2/monitor/health"))
            stranger = session.get(f"{section.url}/api/v2/dags", timeout=10)
            if stranger.status_code != requests.codes.unauthorized:
                raise NotWhole(f"Airflow answers {stranger.status_code} without a login, not 401")
            answer = session.post(
                f"{section.url}/auth/token",
                json={"username": section.username, "password": section.password},
                timeout=20,
            )
            if answer.status_code != requests.codes.created:
                raise NotWhole(f"Airflow refuses the login of {section.username}: HTTP {answer.status_code}")
            session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
            dags = _get(session, f"{section.url}/api/v2/dags")["dags"]
            broken = _get(session, f"{section.url}/api/v2/importErrors")["import_errors"]
    except (requests.RequestException, ValueError, KeyError) as error:
        raise NotWhole(f"Airflow at {section.url}: {error!r}") from error
    if broken:
        raise NotWhole(
            "Airflow can't read "
            + "; ".join(
                f"{file['filename']}: {(file['stack_trace'] or '').strip().splitlines()[-1]}"
                for file in broken
            )
        )
    return f"Airflow: API, {', '.join(_BEATS)} healthy, {len(dags)} DAGs ({', '.join(dag['dag_id'] for dag in dags)})"


def airflow_api(connections: Connections) -> str:
    """The API answers and reaches its database; its other parts may be away."""
    import requests

    from millrace import http

    section = connections.airflow
    try:
        with http.session() as session:
            health = _get(session, f"{section.url}/api/v2/monitor/health")
            if health["metadatabase"]["status"] != "healthy":
                raise NotWhole("Airflow: its database can't be reached")
    except (requests.RequestException, ValueError, KeyError) as error:
        raise NotWhole(f"Airflow at {section.url}: {error!r}") from error
    return f"Airflow: the API at {section.url} answers"


def _get(session: requests.Session, url: str) -> Any:
    answer = session.get(url, timeout=10)
    answer.raise_for_status()
    return answer.json()


def _require_healthy(health: dict[str, Any]) -> None:
    faults = []
    if health["metadatabase"]["status"] != "healthy":
        faults.append("its database can't be reached")
    for part, key in _BEATS.items():
        status, beat = health[part]["status"], health[part][key]
        started = _started(f"airflow-{part.replace('_', '-')}.service")
        if status != "healthy":
            faults.append(
                f"{part} is {status or 'not there'} (last heartbeat: {beat}): see `journalctl -u airflow-{part.replace('_', '-')}`"
            )
        elif started and datetime.fromisoformat(beat) < started:
            # The beats of the process before it count as healthy for half a minute.
            faults.append(f"{part} has not beaten since its start at {started:%T}")
    if faults:
        raise NotWhole(f"Airflow: {'; '.join(faults)}")


def _started(unit: str) -> datetime | None:
    """Return when a unit of this host was started; None on other hosts, where that is not known."""
    try:
        result = subprocess.run(
            ["systemctl", "show", "-p", "ActiveEnterTimestamp", "--value", "--timestamp=unix", unit],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    text = result.stdout.strip().removeprefix("@")
    return datetime.fromtimestamp(int(text), UTC) if text.isdigit() else None
