"""Airflow as a person uses it: through its API, as the administrator."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from millrace import http
from millrace.topology import Catalogue
from tests.platform.conftest import hosts, members, secrets

HOUR = 3600.0


class Airflow:
    """A session with the API. States are Airflow's: success, failed, ..."""

    def __init__(self) -> None:
        port = Catalogue.load().services["airflow"]["ports"]["http"]["port"]
        self._url = f"http://{hosts()[members('airflow')[0]]['operator_address']}:{port}"
        self._session = http.session()
        login = {"username": "admin", "password": secrets()["airflow_admin"]}
        token = self._ask("POST", "/auth/token", login)["access_token"]
        self._session.headers["Authorization"] = f"Bearer {token}"

    def run(self, dag: str, run_id: str, conf: dict[str, Any]) -> None:
        """Ask for a run of a DAG."""
        document = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        self._ask("POST", f"/api/v2/dags/{dag}/dagRuns", document)

    def clear(self, dag: str, run_id: str) -> None:
        """Have every task of a run done again."""
        self._ask("POST", f"/api/v2/dags/{dag}/dagRuns/{run_id}/clear", {"dry_run": False})

    def outcome(self, dag: str, run_id: str, seconds: float) -> str:
        """Wait until a run has ended; return its state."""
        deadline = time.monotonic() + seconds
        while True:
            state = str(self._ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run_id}")["state"])
            if state in ("success", "failed"):
                return state
            assert time.monotonic() < deadline, f"{run_id} is still {state}"
            time.sleep(1)

    def between_ticks(self, seconds: float) -> None:
        """Wait, if need be, until no DAG's hourly run comes within this time, and none is under way."""
        left = HOUR - time.time() % HOUR
        if left < seconds:
            # Its runs are there when it has looked at the clock again.
            time.sleep(left + 30)
        deadline = time.monotonic() + 600
        while going := self._ask("GET", "/api/v2/dags/~/dagRuns?state=queued&state=running")["total_entries"]:
            assert time.monotonic() < deadline, f"{going} runs are still queued or running"
            time.sleep(2)

    @contextmanager
    def schedules_paused(self) -> Iterator[None]:
        """Once what is under way has ended, no DAG runs until the end of the block."""
        self.between_ticks(0)
        active = [dag["dag_id"] for dag in self._ask("GET", "/api/v2/dags?paused=false")["dags"]]
        try:
            self._pause(active, paused=True)
            yield
        finally:
            self._pause(active, paused=False)

    def _pause(self, dags: list[str], *, paused: bool) -> None:
        for dag in dags:
            self._ask("PATCH", f"/api/v2/dags/{dag}", {"is_paused": paused})

    def states(self, dag: str, run_id: str) -> dict[str, str]:
        """The state of each task of a run."""
        answer = self._ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances")
        return {task["task_id"]: task["state"] for task in answer["task_instances"]}

    def log(self, dag: str, run_id: str, task: str) -> str:
        """The log of a task's last try, as text."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run_id}/taskInstances/{task}"
        tries = self._ask("GET", path)["try_number"]
        return str(self._ask("GET", f"{path}/logs/{tries}?full_content=true"))

    def _ask(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        answer = self._session.request(method, self._url + path, json=document, timeout=30)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()
