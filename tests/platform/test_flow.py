"""Users through the whole flow, compared row by row, also when the relay dies under load."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from testinfra.backend.base import CommandResult
from testinfra.host import Host


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


def test_a_batch_arrives_row_by_row(first_of: Any) -> None:
    report = first_of("relay").run("millrace verify --count 500 --deadline 180")
    assert report.rc == 0, report.stdout + report.stderr
    print(report.stdout)
