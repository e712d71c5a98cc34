"""Users through the whole flow, compared row by row, also when the relay dies under load."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from testinfra.backend.base import CommandResult
from testinfra.host import Host

from tests.platform.conftest import host_named, members


def stored(control: Host, count: int) -> str:
    """Store a batch of its own; return its id."""
    answer = control.check_output(f"millrace batch store --run-id test-{uuid.uuid4()} --count {count}")
    batch = json.loads(answer.splitlines()[-1])
    assert batch["count"] == count
    return str(batch["batch_id"])


def wait_until_readable(control: Host, batch_id: str, seconds: float) -> None:
    """Wait until every user of a batch can be read in Cassandra."""
    deadline = time.monotonic() + seconds
    while (answer := control.run(f"millrace status --batch {batch_id}")).rc:
        assert time.monotonic() < deadline, answer.stdout + answer.stderr
        time.sleep(2)


def audit(control: Host, batch_id: str) -> CommandResult:
    """Audit the seconds in which a batch was stored: its users in all stations, and every dead letter."""
    query = f"""
        WITH batch AS (
            SELECT min(created_at) AT TIME ZONE 'UTC' AS stored FROM millrace.users WHERE batch_id = '{batch_id}'
        ) SELECT to_char(bound, 'YYYY-MM-DD"T"HH24:MI:SS') FROM batch, LATERAL (VALUES (stored), (stored + '1s')) AS bounds (bound)
    """  # noqa: S608 - an id of our own
    start, end = control.check_output("psql -d millrace -tAc %s", query).split()
    return control.run(f"millrace audit --start {start} --end {end}")


def test_a_topic_that_packs_its_records_is_read(first_of: Any) -> None:
    """The setting holds for what comes while it stands; all later readers meet those records, too."""
    kafka = first_of("kafka")
    alter = "kafka-configs --alter --entity-type topics --entity-name users_created"
    kafka.check_output(f"{alter} --add-config compression.type=zstd")
    try:
        report = first_of("relay").run("millrace verify --count 50 --deadline 180")
    finally:
        kafka.check_output(f"{alter} --delete-config compression.type")
    assert report.rc == 0, report.stdout + report.stderr


def test_a_host_s_proxy_is_not_asked(first_of: Any) -> None:
    """Nor for `localhost`, which is how such variables mostly are: hosts of the platform have other names."""
    control = first_of("relay")
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    proxied = " ".join(["no_proxy=localhost", *(f"{name}=http://127.0.0.1:9" for name in names)])
    for service in ("schema_registry", "spark_master", "airflow", "offline_source"):
        control.check_output(f"{proxied} millrace health {service}")
    control.check_output(f"{proxied} millrace registry register")
    control.check_output(f"{proxied} millrace batch store --run-id test-{uuid.uuid4()} --count 5")


def test_a_row_that_a_deletion_hides_is_named_and_mended_as_it_says(first_of: Any) -> None:
    """Deleted under a clock that is an hour ahead, a row stays hidden when it is sent again."""
    control, node = first_of("relay"), first_of("cassandra")
    batch_id = stored(control, 10)
    wait_until_readable(control, batch_id, 120)
    query = f"SELECT user_id FROM millrace.users WHERE batch_id = '{batch_id}' ORDER BY position LIMIT 1"  # noqa: S608
    user_id = control.check_output("psql -d millrace -tAc %s", query)
    ahead = int((time.time() + 3600) * 1_000_000)
    node.check_output(
        'cqlsh -e "CONSISTENCY QUORUM; DELETE FROM millrace.users_by_id USING TIMESTAMP '  # noqa: S608
        f'{ahead} WHERE user_id = {user_id}"'
    )
    told = f"{user_id}: a deletion in users_by_id hides its row"
    assert told in audit(control, batch_id).stderr
    assert told in control.check_output(f"millrace republish --batch {batch_id}")
    status = control.run(f"millrace status --batch {batch_id}")
    assert status.rc != 0
    assert told in status.stdout
    show, mend = (
        [line.strip() for line in part.splitlines() if line.startswith("  ")]
        for part in status.stdout.split("Where that is too far ahead")
    )
    *show, again = show
    shown = "".join(node.check_output(command) for command in show)
    assert user_id in shown
    assert '"marked_deleted"' in shown
    for command in mend:
        for name in members("cassandra") if command.endswith("# on each host") else members("cassandra")[:1]:
            host_named(name).check_output(command)
    control.check_output(again)
    wait_until_readable(control, batch_id, 120)


def test_a_batch_arrives_row_by_row(first_of: Any) -> None:
    report = first_of("relay").run("millrace verify --count 500 --deadline 180")
    assert report.rc == 0, report.stdout + report.stderr
    print(report.stdout)
