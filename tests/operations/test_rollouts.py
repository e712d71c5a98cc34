"""Changed settings: only the units that have them restart, one host at a time, while rows flow; a broken one stops at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from tests.operations.conftest import (
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
from tests.platform.conftest import host_named, members

pytestmark = pytest.mark.usefixtures("platform")


RESTART = "systemd_service : Restart where it must be, one host after the other"


@dataclass(frozen=True)
class Setting:
    """A setting of a service: what an operator sets, when the rollout is killed, the units that must restart, and those that
    may go with them."""

    service: str
    variables: dict[str, Any]
    killed: Moment
    units: tuple[str, ...]
    followers: tuple[str, ...] = ()


SETTINGS = [
    Setting(
        "zookeeper",
        {"zookeeper_settings": {"maxClientCnxns": 80}},
        Moment("ZooKeeper", RESTART, 3),
        ("zookeeper",),
    ),
    Setting(
        "kafka", {"kafka_settings": {"log.cleaner.threads": 2}}, Moment("Kafka", RESTART, 10), ("kafka",)
    ),
    Setting(
        "cassandra",
        {"cassandra_settings": {"compaction_throughput": "24MiB/s"}},
        Moment("Cassandra", RESTART, 25),
        ("cassandra",),
    ),
    Setting(
        "postgresql",
        {"postgresql_settings": {"log_autovacuum_min_duration": "20s"}},
        Moment("PostgreSQL", RESTART, 1),
        ("postgresql@15-main",),
        # They end where their database goes away, and systemd starts them again.
        followers=("airflow-scheduler", "airflow-dag-processor", "airflow-triggerer"),
    ),
    Setting(
        "relay",
        {"relay_batch_size": 4000},
        Moment("Relay from PostgreSQL to Kafka", RESTART, 0.5),
        ("relay",),
    ),
    Setting(
        "spark",
        {"spark_settings": {"spark.executor.logs.rolling.maxRetainedFiles": 5}},
        Moment("Spark workers", RESTART, 5),
        ("spark_master", "spark_worker", "users_stream"),
    ),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.service)
def test_a_changed_setting_restarts_its_units_alone(setting: Setting, applied: dict[str, Any]) -> None:
    """Although the rollout is killed on its way: a run of everything completes it."""
    leaders = {
        service: host_named(members(service)[0]).check_output(f"millrace leader {service}")
        for service in ("zookeeper", "kafka")
    }
    before = starts()
    applied |= setting.variables
    with users_flowing() as flow:
        assert play("site.yml", "--tags", setting.service, variables=applied, until=setting.killed).killed
        completed(play("site.yml", variables=applied))
    found = {unit: there for unit, there in restarted(before).items() if unit not in setting.followers}
    assert set(found) == set(setting.units)
    for unit, there in found.items():
        assert len(there) == len(members(unit.split("@")[0]))
        assert_one_by_one(unit)
        if unit in leaders:
            assert there[-1] == leaders[unit], "the one that led was not the last to restart"
    assert_flowing(flow, setting.service)
    assert_whole()
    before = starts()
    run = completed(play("site.yml", variables=applied))
    assert set(run.changed.values()) == {0}
    assert restarted(before) == {}


def test_a_member_that_another_keeps_from_being_whole_is_left_alone(applied: dict[str, Any]) -> None:
    """A broker hangs while another restarts: the rollout stops, and the next one takes away no second member."""
    leader = host_named(members("kafka")[0]).check_output("millrace leader kafka")
    first, hung = [name for name in members("kafka") if name != leader]
    applied |= {"kafka_settings": {"log.cleaner.threads": 1}}

    def hang(signal: str) -> None:
        host_named(hung).check_output(f"systemctl kill --signal={signal} kafka")

    before = starts()
    with users_flowing():
        try:
            run = play(
                "site.yml", "--tags", "kafka", variables=applied,
                meanwhile=(Moment("Kafka", RESTART, 2), lambda: hang("STOP")),
            )  # fmt: skip
            assert run.code == 2
            assert restarted(before) == {"kafka": [first]}, run.output[-6000:]
            between = starts()
            run = play("site.yml", "--tags", "kafka", variables=applied)
            assert run.code == 2
            assert restarted(between) == {}, run.output[-6000:]
        finally:
            hang("CONT")
        completed(play("site.yml", "--tags", "kafka", variables=applied))
    assert sorted(restarted(between)["kafka"]) == sorted([hung, leader])
    assert_one_by_one("kafka")
    assert_whole()


@pytest.mark.parametrize(
    ("codec", "options"),
    [("snappy", "-Dorg.xerial.snappy.tempdir=/proc/none"), ("zstd", "-DZstdTempFolder=/proc/none")],
)
def test_a_broker_that_can_not_unpack_a_codec_is_not_whole(codec: str, options: str) -> None:
    """Its JVM can't load the codec's native code. Whoever asks, and though it has just come back and leads nothing."""
    broken, other = (host_named(members("kafka")[number]) for number in (-1, 0))
    folder = "/run/systemd/system/kafka.service.d"
    text = f'[Service]\nUnsetEnvironment=\nEnvironment="JAVA_TOOL_OPTIONS={options}"\n'
    restart = "systemctl daemon-reload && systemctl restart kafka"
    try:
        broken.check_output(f"mkdir -p {folder} && printf '{text}' >{folder}/broken.conf && {restart}")
        said = other.run("millrace health kafka --wait 60")
        assert said.rc != 0
        assert f"{members('kafka')[-1]} takes no record in {codec}" in said.stderr
    finally:
        broken.check_output(f"rm -r {folder} && {restart}")
    other.check_output("millrace health kafka --wait 120")


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
    service: str, variables: dict[str, Any], reason: str, applied: dict[str, Any]
) -> None:
    before = starts()
    with users_flowing() as flow:
        run = play("site.yml", "--tags", service, variables=applied | variables)
    assert run.code == 2
    assert reason in run.output, run.output[-6000:]
    assert set(restarted(before)) <= {service}
    assert len(restarted(before).get(service, [])) <= 1
    assert_flowing(flow, service)
    completed(play("site.yml", "--tags", service, variables=applied))
    assert_whole()
    assert set(restarted(before)) <= {service}
