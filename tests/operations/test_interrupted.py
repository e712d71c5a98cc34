"""Runs of site.yml that are killed on the way of an installation: the next one goes on, and the last has nothing to do."""

from __future__ import annotations

import pytest

from tests.operations.conftest import Moment, assert_whole, completed, play, restarted, starts

CONFIGURE = "systemd_service : Folders, configuration and unit file"
START = "systemd_service : Start where it doesn't run"

# In the order of site.yml. Each run goes on where the one before it was killed.
MOMENTS = [
    Moment("Hosts", "packages : Install them", 3),
    Moment("What hosts install from", START, 1),
    Moment("What every host has of the project", "python_environment : Environment millrace", 6),
    Moment("ZooKeeper", CONFIGURE, 0.5),
    Moment("ZooKeeper", START, 2),
    Moment("Kafka", "kafka : Users, topics and ACLs as declared", 2),
    # Of three nodes that join one by one, the second.
    Moment("Cassandra", START, 25),
    Moment("PostgreSQL", "postgresql : Configuration of the cluster", 0),
    Moment("Streaming job from Kafka to Cassandra", START, 5),
    Moment("Airflow and the DAGs", "airflow : Schema and account", 3),
]
NEVER_REACHED = "the run ended before it came to its moment"


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment.play}, {moment.task}")
def test_a_killed_run(moment: Moment) -> None:
    run = play("site.yml", until=moment)
    assert run.killed, f"{NEVER_REACHED}:\n{run.output[-4000:]}"


def test_the_next_run_completes() -> None:
    completed(play("site.yml"))
    assert_whole()


def test_and_then_nothing_is_to_do() -> None:
    before = starts()
    run = completed(play("site.yml"))
    assert set(run.changed.values()) == {0}, run.output[-20000:]
    assert restarted(before) == {}
