"""What happens, when, for how long, and what must hold.

Of every scenario holds: each committed user is in both tables once and with its values, and none is a dead letter or in
quarantine; of all together: each is counted once in the rollup. Beside that each has bounds, in seconds: the longest time without a further
readable row, and from the fault's end until no row is late any more.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.faults import injection as faults
from tests.faults import probes, targets
from tests.faults.flow import PATIENCE
from tests.faults.injection import Fault

# Seconds of a fault that rows must not wait for: their bounds stay below it, however patient one is.
OUTLASTED = 90 * PATIENCE


@dataclass(frozen=True)
class Step:
    """At a second of the scenario this happens; for so many seconds, or until all rows have caught up (None)."""

    at: float
    fault: Fault
    seconds: float | None = None


@dataclass(frozen=True)
class Scenario:
    """Steps, and the bounds that must hold."""

    name: str
    steps: tuple[Step, ...]
    without_progress: float
    catch_up: float
    # How many hosts with data it takes for rows to flow meanwhile.
    data_hosts: int = 1


SCENARIOS = (
    Scenario("leading-broker-killed", (Step(0, faults.kill(targets.leader)),), 30, 60),
    Scenario("controller-killed", (Step(0, faults.kill(targets.controller)),), 30, 60),
    Scenario("broker-paused", (Step(0, faults.pause(targets.leader), OUTLASTED),), 40, 60),
    Scenario("two-brokers-down", (Step(0, faults.down(targets.leader_and_another), 60),), 120, 120),
    Scenario(
        "zookeeper-one-then-two-down",
        (
            Step(0, faults.down(targets.member("zookeeper", 0)), 80),
            Step(30, faults.down(targets.member("zookeeper", 1)), 50),
        ),
        60,
        90,
    ),
    *(
        Scenario(
            name,
            (Step(0, faults.partition(targets.leader, into=into, out=out), OUTLASTED),),
            60,
            90,
        )
        for name, into, out in (
            ("broker-cut-off", True, True),
            ("broker-cut-off-inwards", True, False),
            ("broker-cut-off-outwards", False, True),
        )
    ),
    Scenario("packets-lost", (Step(0, faults.loss("kafka", percent=2), 60),), 30, 60),
    Scenario("slow-link", (Step(0, faults.slow_link(targets.leader, "4mbit"), 60),), 30, 60),
    Scenario(
        "relay-killed-between-ack-and-delete", (Step(0, faults.kill_relay_between_ack_and_delete),), 45, 45
    ),
    Scenario(
        "one-of-two-relays-killed",
        (Step(0, faults.second_relay, 40), Step(20, faults.kill(targets.member("relay")))),
        30,
        30,
    ),
    Scenario("postmaster-killed-in-an-ingest", (Step(0, faults.kill_postmaster_in_ingest),), 60, 60),
    Scenario("postgresql-down", (Step(0, faults.stop(targets.postgresql), 60),), 120, 90),
    Scenario(
        "driver-killed-between-write-and-commit",
        (Step(0, faults.kill_driver_between_write_and_commit),),
        90,
        90,
    ),
    Scenario("executor-killed", (Step(0, faults.kill_executors),), 60, 60),
    Scenario("worker-killed", (Step(0, faults.kill(targets.executor_worker)),), 60, 60),
    Scenario("spark-master-restarted", (Step(0, faults.restart(targets.member("spark_master"))),), 60, 60),
    Scenario("checkpoint-lost", (Step(0, faults.lose_checkpoint),), 180, 180),
    Scenario(
        "cassandra-one-down",
        (Step(0, faults.down(targets.member("cassandra", 0)), 30), Step(15, probes.cassandra_logins)),
        30,
        60,
        data_hosts=3,
    ),
    Scenario(
        "cassandra-one-then-two-down",
        (
            Step(0, faults.down(targets.member("cassandra", 0)), 90),
            Step(30, faults.down(targets.member("cassandra", 1)), 60),
        ),
        150,
        150,
    ),
    Scenario("registry-down", (Step(0, faults.stop(targets.member("schema_registry")), 45),), 30, 30),
    Scenario(
        "registry-down-at-relay-start",
        (
            Step(0, faults.stop(targets.member("schema_registry")), 45),
            Step(5, faults.restart(targets.member("relay"))),
        ),
        100,
        60,
    ),
    Scenario(
        "registry-down-at-a-new-schema-id",
        (
            Step(0, faults.down(targets.member("users_stream")), 15),
            Step(2, probes.batch_of_the_next_schema),
            Step(12, faults.stop(targets.member("schema_registry")), 45),
        ),
        150,
        120,
    ),
    Scenario(
        "scheduler-killed-in-a-task",
        (
            Step(0, probes.source_hangs, 25),
            Step(2, probes.ingest("fetch_and_store", "running")),
            Step(3, faults.kill(targets.member("airflow", unit="airflow-scheduler"))),
        ),
        30,
        60,
    ),
    Scenario(
        "triggerer-killed-in-a-wait",
        (
            Step(0, faults.stop(targets.member("relay")), 40),
            Step(2, probes.ingest("wait_until_published", "deferred")),
            Step(3, faults.kill(targets.member("airflow", unit="airflow-triggerer"))),
        ),
        90,
        60,
    ),
    Scenario(
        "disk-full-on-a-broker",
        (
            Step(0, faults.small_disk(targets.member("kafka"), free_mb=64)),
            Step(45, faults.full_disk(targets.member("kafka")), 60),
        ),
        60,
        90,
    ),
    Scenario(
        "disk-full-on-a-cassandra-node",
        (
            Step(0, faults.small_disk(targets.member("cassandra"), free_mb=256)),
            Step(60, faults.full_disk(targets.member("cassandra")), 60),
            Step(70, faults.flush(targets.member("cassandra"))),
        ),
        60,
        90,
    ),
    Scenario("data-host-rebooted", (Step(0, faults.reboot("kafka")),), 90, 120),
    Scenario("all-hosts-rebooted", (Step(0, faults.reboot()),), 300, 300),
    Scenario("messages-that-cannot-be-decoded", (Step(0, probes.bad_records, 30),), 30, 30),
    Scenario("retention-passes-while-spark-is-down", (Step(0, probes.retention_passes),), 300, 300),
)

# A few that show the most, for every run of the tests.
QUICK = (
    "leading-broker-killed",
    "relay-killed-between-ack-and-delete",
    "driver-killed-between-write-and-commit",
    "cassandra-one-down",
)


def named(name: str) -> Scenario:
    """The scenario of this name."""
    return next(scenario for scenario in SCENARIOS if scenario.name == name)
