"""What people and clients do while faults go on, in the form of faults: what ends it says whether it went well."""

from __future__ import annotations

import json
import uuid

from tests.faults.flow import LAG, batches, last_batch, wait_for
from tests.faults.injection import Fault, Undo, lose_checkpoint
from tests.faults.remote import FOLDER, control, now, script
from tests.platform.airflow_api import Airflow
from tests.platform.conftest import run_script


def cassandra_logins() -> None:
    """Every client can log in to Cassandra afresh."""
    assert script("logins")


def source_hangs() -> Undo:
    """The source gives no answer: a task that asks it goes on until it does."""
    control().check_output("millrace source fault hang")
    return lambda: control().check_output("millrace source well")


def ingest(task: str, state: str) -> Fault:
    """A run of users_ingest, up to a state of one of its tasks. It must end green; where it ended red, after clearing it once."""

    def begin() -> Undo:
        airflow, run_id = Airflow(), f"faults-{uuid.uuid4()}"
        airflow.run("users_ingest", run_id, {"count": 100})
        wait_for(
            lambda: airflow.states("users_ingest", run_id).get(task) == state,
            90,
            f"{task} of {run_id} did not become {state}",
        )

        def ends_green() -> None:
            if airflow.outcome("users_ingest", run_id, 600) == "failed":
                airflow.clear("users_ingest", run_id)
                assert airflow.outcome("users_ingest", run_id, 600) == "success", airflow.states(
                    "users_ingest", run_id
                )

        return ends_green

    return begin


def bad_records() -> Undo:
    """Records that can't become users, amid the others: each becomes a dead letter, and a person deals with it."""
    places = run_script(control(), "send_bad_records")

    def dealt_with() -> None:
        def listed() -> dict[str, str]:
            lines = control().check_output("millrace dead-letters list").splitlines()
            return {line.split()[0]: line.split()[1] for line in lines}

        expected = {place: reason for reason, place in places.items()}
        wait_for(lambda: listed() == expected, 30, f"expected {expected}, there are {listed()}")
        for place in places.values():
            control().check_output(f"millrace dead-letters resolve {place}")

    return dealt_with


def batch_of_the_next_schema() -> Undo:
    """A batch that a relay of the schema's next version has published: its schema id is a new one."""
    control().check_output("systemctl stop relay.service")
    try:
        stored = control().check_output(f"millrace batch store --run-id faults-{uuid.uuid4()} --count 100")
        batch_id = json.loads(stored.splitlines()[-1])["batch_id"]
        run_script(control(), "publish_next_version", batch_id)
    finally:
        control().check_output("systemctl start relay.service")
    return lambda: wait_for(
        lambda: control().run(f"millrace status --batch {batch_id}").rc == 0,
        60,
        f"batch {batch_id} is not readable",
    )


def retention_passes() -> None:
    """With the streaming job down, the topic drops records that it has not read. That must be loud, and can be mended.

    Mended by what a person would do: the job begins anew without its checkpoint, and what is missing is sent again.
    """
    host = control()
    host.check_output("systemctl stop users_stream.service")
    since = now()
    host.check_output("sleep 20")
    dropped = script("drop_records")
    host.check_output("sleep 5")
    start = host.check_output("date -u +%FT%T")
    host.check_output("systemctl start --no-block users_stream.service")
    loud = f"journalctl -u users_stream --since '@{since:.0f}' -o cat | grep -E 'ended:.*data may have been (lost|missed)'"
    wait_for(
        lambda: host.run(loud).rc == 0,
        120,
        f"{dropped} records are gone, and the streaming job says nothing of it",
    )
    assert host.run("millrace health users_stream").rc, (
        f"{dropped} records are gone, and its health check is green"
    )
    lose_checkpoint()
    newest = last_batch()
    wait_for(lambda: newest in batches(newest).readable, 240, "the streaming job does not begin anew")
    begin = host.check_output(f"date -u -d @{since:.0f} +%FT%T")
    audit = host.run(f"millrace audit --start {begin} --end {start}")
    assert audit.rc, f"{dropped} records are gone, and the audit is green"
    assert "is not in users_by_id" in audit.stderr, audit.stderr
    assert script("republish", FOLDER, str(since - LAG)) > 0, (
        f"{dropped} records are gone, and no user was missing"
    )
