"""The DAG files: they are read without an error, say what runs when, and cost little to parse."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import ParamValidationError

DAGS = Path(__file__).resolve().parents[2] / "dags"
FILES = sorted(DAGS.glob("*.py"))

# dag -> schedule, and each task with those that wait for it.
EXPECTED = {
    "users_ingest": (
        "@hourly",
        {
            "fetch_and_store": {"wait_until_published"},
            "wait_until_published": {"wait_until_readable"},
            "wait_until_readable": set(),
        },
    ),
    "users_audit": ("@hourly", {"audit": {"count_again"}, "count_again": set()}),
    "users_rollup": ("@hourly", {"recompute": set()}),
    "users_retention": ("@daily", {"delete_old_users": set()}),
}
# Loaded at every parse of every file, if a DAG file imported them at its top.
HEAVY = ("cassandra", "faker", "kafka", "pandas", "psycopg2", "pyspark", "requests")


@pytest.fixture(scope="module")
def bag() -> DagBag:
    return DagBag(dag_folder=DAGS)


def test_every_file_is_read(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == set(EXPECTED) == {path.stem for path in FILES}


@pytest.mark.parametrize("dag_id", EXPECTED)
def test_what_runs_when(bag: DagBag, dag_id: str) -> None:
    schedule, tasks = EXPECTED[dag_id]
    dag = bag.dags[dag_id]
    assert {task.task_id: task.downstream_task_ids for task in dag.tasks} == tasks
    assert (dag.schedule, dag.catchup, dag.max_active_runs) == (schedule, False, 1)
    assert dag.doc_md is not None and dag.doc_md.strip().startswith("### ")
    assert all(task.retries <= 2 for task in dag.tasks), "nothing is retried for long in silence"


@pytest.mark.parametrize(
    ("dag_id", "key", "good", "wrong"),
    [
        ("users_ingest", "count", 7, "7"),
        ("users_ingest", "count", None, 0),
        ("users_ingest", "count", 20_000, 20_001),
        ("users_ingest", "count", 1, -1),
        ("users_ingest", "count", 1, 1.5),
        ("users_ingest", "seed", "mine-", 7),
        ("users_ingest", "seed", "x" * 17, "x" * 18),
        ("users_ingest", "seed", "x" * 64, "x" * 65),
        ("users_ingest", "seed", None, "mine1"),
        ("users_ingest", "deadline", 0.5, 0),
        ("users_ingest", "deadline", 86_400, 86_401),
        ("users_audit", "start", "2026-01-31T09:00:00Z", 9),
        ("users_rollup", "end", "2026-01-31T09:00:00Z", 9),
    ],
)
def test_conf_is_checked_when_a_run_is_asked_for(bag: DagBag, dag_id, key, good, wrong) -> None:
    params = deepcopy(bag.dags[dag_id].params)
    params.validate()
    params[key] = good
    with pytest.raises(ParamValidationError):
        params[key] = wrong


@pytest.mark.parametrize(("rate_limit", "most"), [(0, 50_000_000), (7_000, 7_000)])
def test_a_run_may_ask_for_what_the_source_gives(connections_folder, rate_limit: int, most: int) -> None:
    sections = {"source": {"url": "http://nobody.invalid/", "name": "mine", "rate_limit": rate_limit}}
    (connections_folder / "ingest.json").write_text(json.dumps(sections))
    try:
        params = DagBag(dag_folder=DAGS / "users_ingest.py").dags["users_ingest"].params
    finally:
        (connections_folder / "ingest.json").unlink()
    params["count"] = most
    with pytest.raises(ParamValidationError):
        params["count"] = most + 1


def test_parsing_imports_nothing_heavy() -> None:
    program = (
        "import runpy, sys\n"
        f"for path in {[str(path) for path in FILES]!r}:\n"
        "    runpy.run_path(path)\n"
        f"    print(*(name for name in {HEAVY!r} if name in sys.modules))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert result.stdout.split() == []
