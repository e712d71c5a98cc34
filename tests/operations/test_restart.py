"""Restarts and reboots on demand, while users flow."""

from __future__ import annotations

import pytest

from tests.faults.flow import PATIENCE
from tests.faults.flow import begin as resume
from tests.operations.conftest import (
    PAUSE,
    Moment,
    assert_flowing,
    assert_one_by_one,
    assert_whole,
    completed,
    play,
    restarted,
    starts,
    users_flowing,
)
from tests.platform.conftest import host_named, hosts, members
from tests.remote import boot

pytestmark = pytest.mark.usefixtures("platform")


@pytest.mark.parametrize("service", ["zookeeper", "kafka", "cassandra", "spark_worker", "relay"])
def test_a_service_restarts_member_by_member(service: str) -> None:
    led = service in ("zookeeper", "kafka")
    leader = host_named(members(service)[0]).check_output(f"millrace leader {service}") if led else None
    before = starts()
    with users_flowing() as flow:
        completed(play("ansible/restart.yml", variables={"service": service}))
    found = restarted(before)
    assert {unit: sorted(there) for unit, there in found.items()} == {service: sorted(members(service))}
    assert_one_by_one(service)
    assert leader in (None, found[service][-1])
    assert_flowing(flow, service)


def test_everything_restarts_in_order() -> None:
    before = starts()
    with users_flowing() as flow:
        completed(play("ansible/restart.yml"))
    found = restarted(before)
    assert_flowing(flow, "everything")
    assert set(found) >= {"zookeeper", "kafka", "cassandra", "spark_worker", "airflow-scheduler"}
    assert_whole()


def test_an_unknown_service_is_refused_with_the_list() -> None:
    run = play("ansible/restart.yml", variables={"service": "kafak"})
    assert run.code == 2
    assert "There is no service kafak here. Say one of depot, zookeeper, kafka, cassandra" in run.output


def test_hosts_reboot_one_by_one() -> None:
    before = {name: boot(name) for name in hosts()}
    assert "" not in before.values()
    # Control is the first host: there is nothing to store users in, nor what stores them, until it is back.
    back = Moment("Reboot, host by host", "Every cluster is whole")
    with users_flowing() as flow:
        completed(play("ansible/reboot.yml", meanwhile=(back, resume)))
    assert flow.without_progress <= PAUSE["reboot"] * PATIENCE
    assert all(boot(name) not in ("", before[name]) for name in before)
    assert_whole()
