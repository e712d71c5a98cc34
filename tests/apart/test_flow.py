"""All that the platform does, with each service on a host of its own: nothing asks for a port that the table does not open."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from millrace.topology import Catalogue
from tests.platform.airflow_api import Airflow
from tests.platform.conftest import host_named, hosts, members

SSH = Catalogue.load().host_ports["ssh"]["port"]


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> None:
    """What hosts were refused before this is not told."""
    for name in hosts():
        host_named(name).check_output("systemctl reload millrace-firewall")


@pytest.fixture
def airflow() -> Airflow:
    """Airflow, while none of its hourly runs comes between."""
    airflow = Airflow()
    airflow.between_ticks(600)
    return airflow


@pytest.mark.parametrize("service", [name for name in Catalogue.load().services if name != "depot"])
def test_a_service_is_whole_as_its_own_host_sees_it(service: str) -> None:
    for name in members(service):
        host_named(name).check_output(f"millrace health {service} --wait 60")


def test_a_batch_arrives_row_by_row(first_of: Any) -> None:
    report = first_of("relay").run("millrace verify --count 200 --deadline 180")
    assert report.rc == 0, report.stdout + report.stderr


def test_the_flow_is_counted(first_of: Any) -> None:
    assert "users" in first_of("relay").check_output("millrace counts")


def test_every_dag_is_green(airflow: Airflow) -> None:
    """Bringing users in, counting them, auditing them."""
    start = datetime.now(UTC).replace(second=0, microsecond=0)
    window = {"start": start.isoformat(), "end": (start + timedelta(minutes=1)).isoformat()}
    for dag, conf in (("users_ingest", {"count": 40}), ("users_rollup", window), ("users_audit", window)):
        run_id = f"test-{uuid.uuid4()}"
        airflow.run(dag, run_id, conf)
        assert airflow.outcome(dag, run_id, 600) == "success", (dag, airflow.states(dag, run_id))


def test_a_job_that_an_operator_submits_runs_on_the_cluster(first_of: Any) -> None:
    job = "from pyspark.sql import SparkSession as S; print('rows', S.builder.getOrCreate().range(1000).count())"
    host = first_of("spark_master")
    host.check_output("printf %s %s >/run/count.py", "%s", job)
    try:
        answer = host.run("timeout 180 spark-submit /run/count.py")
        assert "rows 1000" in answer.stdout, answer.stderr[-3000:]
    finally:
        host.check_output("rm /run/count.py")
    elsewhere = first_of("spark_worker").run("spark-submit /run/count.py")
    assert elsewhere.rc != 0
    assert f"on {members('spark_master')[0]} alone" in elsewhere.stderr


def test_no_host_was_refused_what_it_asked_for() -> None:
    """All of the above, as every host's firewall has seen it."""
    refused = []
    for name in hosts():
        listed = host_named(name).check_output("nft list set inet millrace refused")
        for address, port in re.findall(r"(\d+[.]\d+[.]\d+[.]\d+) [.] (\d+)", listed):
            [asker] = [other for other, host in hosts().items() if host["address"] == address]
            if int(port) != SSH:
                refused.append(f"{asker} asked {name} for port {port}")
    assert refused == []
