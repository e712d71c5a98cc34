"""What the topic may hold beside good events of today's schema, and what becomes of it."""

from __future__ import annotations

from typing import Any

from tests.platform.conftest import run_script
from tests.platform.test_flow import audit, stored, wait_until_readable


def test_bad_records_become_dead_letters_and_the_stream_goes_on(first_of: Any) -> None:
    """Each with its reason; the audit is red until a person has dealt with them."""
    control = first_of("relay")
    places = run_script(control, "send_bad_records")
    batch_id = stored(control, 100)
    wait_until_readable(control, batch_id, 120)
    listed = control.check_output("millrace dead-letters list").splitlines()
    found = {line.split()[0]: line.split()[1] for line in listed}
    assert found == {place: reason for reason, place in places.items()}

    red = audit(control, batch_id)
    assert red.rc != 0
    assert all(f"dead letter {place} ({reason}" in red.stderr for reason, place in places.items())
    refused = control.run("millrace dead-letters resolve users_created:0:1099511627777")
    assert refused.rc != 0
    assert "is not a dead letter that is to be resolved" in refused.stderr
    for place in places.values():
        control.check_output(f"millrace dead-letters resolve {place}")
    assert control.check_output("millrace dead-letters list") == ""
    assert "100 users" in audit(control, batch_id).stdout


def test_a_compatible_schema_version_arrives_while_the_job_runs(first_of: Any) -> None:
    """Records of the next version, beside those of today's, with every value in its own column."""
    control = first_of("relay")
    before = control.check_output("systemctl show -p InvocationID --value users_stream.service")
    control.check_output("systemctl stop relay.service")
    try:
        batch_id = stored(control, 200)
        sent = run_script(control, "publish_next_version", batch_id)
    finally:
        control.check_output("systemctl start relay.service")
    assert sent["sent"] == 200
    today = stored(control, 100)
    for batch in (batch_id, today):
        wait_until_readable(control, batch, 120)
    assert "200 users" in audit(control, batch_id).stdout
    assert "100 users" in audit(control, today).stdout
    assert control.check_output("systemctl show -p InvocationID --value users_stream.service") == before


def test_a_breaking_schema_is_refused(first_of: Any) -> None:
    answer = run_script(first_of("relay"), "post_schema")
    assert answer["status"] == 409, answer
    assert "shoe_size" in answer["body"]
