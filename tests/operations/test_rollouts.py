"""Changed settings: only the units that have them restart, one host at a time, while users flow; a broken one stops at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.operations.conftest import (
    Moment,
    assert_one_by_one,
    assert_whole,
    completed,
    play,
    restarted,
    starts,
    users_flowing,
)
from tests.platform.conftest import host_named, members

pytestmark = pytest.mark.usefixtures("platform")


@dataclass(frozen=True)
class Setting:
    """A setting of a service: what an operator sets, the units that must restart for it, and those that may go with them."""

    service: str
    variables: dict[str, Any]
    units: tuple[str, ...]
    followers: tuple[str, ...] = ()


SETTINGS = [
    Setting("zookeeper", {"zookeeper_settings": {"maxClientCnxns": 80}}, ("zookeeper",)),
    Setting("kafka", {"kafka_settings": {"log.cleaner.threads": 2}}, ("kafka",)),
    Setting("cassandra", {"cassandra_settings": {"compaction_throughput": "24MiB/s"}}, ("cassandra",)),
    Setting(
        "postgresql",
        {"postgresql_settings": {"log_autovacuum_min_duration": "20s"}},
        ("postgresql@15-main",),
        # They end where their database goes away, and systemd starts them again.
        followers=("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"),
    ),
    Setting("relay", {"relay_batch_size": 4000}, ("relay",)),
    Setting(
        "spark",
        {"spark_settings": {"spark.executor.logs.rolling.maxRetainedFiles": 5}},
        ("spark_master", "spark_worker", "users_stream"),
    ),
]
VARIABLES = {name: value for setting in SETTINGS for name, value in setting.variables.items()}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.service)
def test_a_changed_setting_restarts_its_units_alone(setting: Setting) -> None:
    leaders = {
        service: host_named(members(service)[0]).check_output(f"millrace leader {service}")
        for service in ("zookeeper", "kafka")
    }
    before = starts()
    with users_flowing() as flow:
        completed(play("site.yml", "--tags", setting.service, variables=setting.variables))
    found = {unit: there for unit, there in restarted(before).items() if unit not in setting.followers}
    assert set(found) == set(setting.units)
    for unit, there in found.items():
        assert len(there) == len(members(unit.split("@")[0]))
        assert_one_by_one(unit)
        if unit in leaders:
            assert there[-1] == leaders[unit], "the one that led was not the last to restart"
    if setting.service != "postgresql":
        assert flow.refused == []
    run = completed(play("site.yml", "--tags", setting.service, variables=setting.variables))
    assert set(run.changed.values()) == {0}


def test_a_rollout_that_is_killed_goes_on() -> None:
    """Killed with one broker restarted, or in the midst of it: the next run restarts the others alone."""
    variables = {"kafka_settings": {"log.cleaner.threads": 1}}
    moment = Moment("Kafka", "systemd_service : Restart where it must be, one host after the other", 8)
    assert play("site.yml", "--tags", "kafka", variables=variables, until=moment).killed
    completed(play("site.yml", "--tags", "kafka", variables=variables))
    assert_whole()
    before = starts()
    run = completed(play("site.yml", "--tags", "kafka", variables=variables))
    assert set(run.changed.values()) == {0}
    assert restarted(before) == {}


BROKEN = [
    ("zookeeper", {"zookeeper_settings": {"tickTime": "many"}}, 'For input string: "many"'),
    (
        "kafka",
        {"kafka_settings": {"num.io.threads": "many"}},
        "Invalid value many for configuration num.io.threads",
    ),
    ("cassandra", {"cassandra_settings": {"concurrent_reads": "many"}}, "concurrent_reads"),
    ("spark_worker", {"spark_worker_executors_mb": 0}, "Memory is below 1MB"),
]


@pytest.mark.parametrize(("service", "variables", "reason"), BROKEN, ids=[entry[0] for entry in BROKEN])
def test_a_broken_setting_stops_at_the_first_host(
    service: str, variables: dict[str, Any], reason: str
) -> None:
    before = starts()
    with users_flowing() as flow:
        run = play("site.yml", "--tags", service, variables=variables)
    assert run.code == 2
    assert reason in run.output, run.output[-6000:]
    assert set(restarted(before)) <= {service}
    assert len(restarted(before).get(service, [])) <= 1
    assert flow.refused == []
    mended = {name: value for name, value in VARIABLES.items() if name in variables}
    completed(play("site.yml", "--tags", service, variables=mended))
    assert_whole()
    assert set(restarted(before)) <= {service}
