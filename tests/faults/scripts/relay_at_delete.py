"""kill -9 of the relay with every acknowledgement in and no outbox row deleted; prints what it had sent, as JSON.

A lock on the outbox lets the relay take rows and holds up its DELETE, which it sends once all acknowledgements are in.
"""

import json
import subprocess
import sys
import time
from contextlib import closing

from millrace import connections, topics

way = connections.load()


def records() -> int:
    """Return how many records the topic ever had."""
    with topics.consumer(way.kafka) as client:
        return sum(topics.end_offsets(client).values())


def wait_for(query: str, seconds: float) -> int:
    """Wait until a count is not 0; return it."""
    deadline = time.monotonic() + seconds
    while True:
        with session, session.cursor() as cursor:
            cursor.execute(query)
            (count,) = cursor.fetchone()
        if count:
            return count
        if time.monotonic() > deadline:
            sys.exit(f"still 0 after {seconds:g} s: {query}")
        time.sleep(0.05)


def systemctl(*arguments: str) -> None:
    """Run systemctl."""
    subprocess.run(["systemctl", *arguments], check=True)


session = connections.postgresql_connect(way.postgresql, application_name="faults")
lock = connections.postgresql_connect(way.postgresql, application_name="faults-lock")
with closing(session), closing(lock):
    systemctl("stop", "relay.service")
    try:
        waiting = wait_for("SELECT count(*) FROM millrace.users_outbox", 30)
        before = records()
        with lock.cursor() as cursor:
            cursor.execute("LOCK TABLE millrace.users_outbox IN SHARE MODE")
    finally:
        systemctl("start", "relay.service")
    wait_for(
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND usename = 'relay' "
        "AND relation = 'millrace.users_outbox'::regclass AND pg_locks.mode = 'RowExclusiveLock'",
        30,
    )
    systemctl("kill", "--signal=KILL", "relay.service")
    sent = records() - before
    lock.rollback()
    if sent < waiting:
        sys.exit(f"the relay was killed at its DELETE, and of {waiting} rows only {sent} are in the topic")
json.dump({"waiting": waiting, "sent": sent}, sys.stdout)
