"""Runs of the DAGs: red with the reason when something is wrong, and green again once it is well and the run cleared."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from testinfra.host import Host

from tests.platform.airflow_api import Airflow

# What the source does, and what the run's log must say of it.
FAULTS = {
    "429": "HTTP 429",
    "503": "HTTP 503",
    "html": "that are not JSON",
    "empty": "0 users instead of 40",
    "half": "20 users instead of 40",
    "hang": "no answer within",
}


# Seconds that a test takes at most, also on a machine that has other things to do.
LONGEST = 360.0


@pytest.fixture
def airflow() -> Airflow:
    """Airflow, while none of its hourly runs comes between: they count users and meet faults, too."""
    airflow = Airflow()
    airflow.between_ticks(LONGEST)
    return airflow


@pytest.fixture
def control(first_of: Any) -> Iterator[Host]:
    """The host of the operator's commands; the source is well when the test ends."""
    host = first_of("relay")
    yield host
    host.check_output("millrace source well")


def users(control: Host) -> int:
    return int(control.check_output("psql -d millrace -tAc 'SELECT count(*) FROM millrace.users'"))


def test_a_faulty_source_makes_runs_red_and_clearing_them_green(control: Host, airflow: Airflow) -> None:
    before = users(control)
    # Runs go one after the other: each of them meets one fault.
    runs = {fault: f"test-{fault}-{uuid.uuid4()}" for fault in FAULTS}
    for fault, run_id in runs.items():
        control.check_output(f"millrace source fault {fault}")
        airflow.run("users_ingest", run_id, {"count": 40, "deadline": 3})
        assert airflow.outcome("users_ingest", run_id, 120) == "failed"
        assert airflow.states("users_ingest", run_id)["fetch_and_store"] == "failed"
        assert FAULTS[fault] in airflow.log("users_ingest", run_id, "fetch_and_store")
    assert users(control) == before
    control.check_output("millrace source well")
    for run_id in runs.values():
        airflow.clear("users_ingest", run_id)
    for run_id in runs.values():
        assert airflow.outcome("users_ingest", run_id, 300) == "success", airflow.states(
            "users_ingest", run_id
        )
    assert users(control) == before + 40 * len(runs)


def test_a_deleted_row_makes_the_audit_red_and_clearing_its_run_brings_it_back(
    control: Host, first_of: Any, airflow: Airflow
) -> None:
    ingest = f"test-deleted-{uuid.uuid4()}"
    airflow.run("users_ingest", ingest, {"count": 40})
    assert airflow.outcome("users_ingest", ingest, 300) == "success"
    start = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=1)
    end = start + timedelta(minutes=2)
    user_id, moment = control.check_output(
        "psql -d millrace -tAF' ' -c 'SELECT user_id, extract(epoch FROM created_at) FROM millrace.users "
        "ORDER BY created_at DESC, user_id LIMIT 1'"
    ).split()
    assert start.timestamp() <= float(moment) < end.timestamp()
    first_of("cassandra").check_output(
        f'cqlsh -e "CONSISTENCY QUORUM; DELETE FROM millrace.users_by_id WHERE user_id = {user_id}"'  # noqa: S608
    )
    time.sleep(max(0.0, end.timestamp() - time.time()))

    def audited() -> tuple[str, str]:
        run_id = f"test-{uuid.uuid4()}"
        conf = {"start": start.isoformat(), "end": end.isoformat()}
        airflow.run("users_audit", run_id, conf)
        return airflow.outcome("users_audit", run_id, 180), airflow.log("users_audit", run_id, "audit")

    state, log = audited()
    assert (state, f"{user_id} is not in users_by_id" in log) == ("failed", True)
    airflow.clear("users_ingest", ingest)
    assert airflow.outcome("users_ingest", ingest, 300) == "success"
    state, log = audited()
    assert state == "success", log
