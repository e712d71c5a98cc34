"""Rows that somebody deleted or changed by hand: named, and mended by the commands that are printed."""

from __future__ import annotations

import time

import pytest
from testinfra.host import Host

from tests.operations.conftest import completed, play
from tests.platform.conftest import host_named, members
from tests.platform.test_flow import audit, stored, wait_until_readable

pytestmark = pytest.mark.usefixtures("platform")


def hosts() -> tuple[Host, Host]:
    """The host of the operator's commands, and one of Cassandra's."""
    return host_named(members("relay")[0]), host_named(members("cassandra")[0])


def readable_batch(control: Host, column: str) -> tuple[str, str]:
    """The id of a batch of ten users that can be read, and its first user's value of a column."""
    batch_id = stored(control, 10)
    wait_until_readable(control, batch_id, 120)
    query = f"SELECT {column} FROM millrace.users WHERE batch_id = '{batch_id}' ORDER BY position LIMIT 1"  # noqa: S608
    return batch_id, control.check_output("psql -d millrace -tAc %s", query)


def wait_until_whole(control: Host, batch_id: str, seconds: float) -> None:
    """Wait until an audit of a batch finds no difference."""
    deadline = time.monotonic() + seconds
    while audit(control, batch_id).rc:
        assert time.monotonic() < deadline
        time.sleep(2)


def test_a_row_that_a_deletion_hides_is_named_and_mended_as_it_says() -> None:
    """Deleted under a clock that is an hour ahead, a row stays hidden when it is sent again."""
    control, node = hosts()
    batch_id, user_id = readable_batch(control, "user_id")
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


def mending(told: str) -> list[str]:
    """The commands of `millrace` that a message prints."""
    return [line.strip() for line in told.splitlines() if line.startswith("  millrace ")]


def test_a_row_that_somebody_changed_is_named_and_mended_as_it_says() -> None:
    control, node = hosts()
    batch_id, user_id = readable_batch(control, "user_id")
    node.check_output(
        f"cqlsh -e \"CONSISTENCY QUORUM; UPDATE millrace.users_by_id SET email = 'x' WHERE user_id = {user_id}\""  # noqa: S608
    )
    told = audit(control, batch_id).stderr
    assert f"{user_id} differs in users_by_id: email" in told
    [again] = mending(told)
    control.check_output(again)
    wait_until_whole(control, batch_id, 120)


def test_a_country_that_was_deleted_is_named_and_listed_again_as_it_says() -> None:
    """Its users are where they were, and the rollup would count none of them."""
    control, node = hosts()
    batch_id, found = readable_batch(control, "country")
    country = found.replace("'", "''")
    node.check_output(
        f"cqlsh -e \"CONSISTENCY QUORUM; DELETE FROM millrace.countries WHERE country = '{country}'\""  # noqa: S608
    )
    told = audit(control, batch_id).stderr
    assert "'s country is not in countries" in told
    assert "ansible-playbook ansible/restart.yml -e service=users_stream" in told
    completed(play("ansible/restart.yml", variables={"service": "users_stream"}))
    [again] = mending(told)
    control.check_output(again)
    wait_until_whole(control, batch_id, 180)
