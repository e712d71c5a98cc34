"""Sees when the journal's probes can be read in both tables, until stopped: watch.py FOLDER.

readable holds a line per commit: number, time (seconds since the epoch), of a resolution of 50 ms. It asks for the oldest
probes only: what is behind them waits for them, and the cluster that is measured has little to answer.
"""

import sys
import time
import uuid
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cassandra.concurrent import execute_concurrent_with_args
from cassandra.query import PreparedStatement

from millrace import connections

# Each read of a quiet ring costs it milliseconds of CPU, in threads that go on looking for more work.
PAUSE = 0.05
OLDEST = 8

folder = Path(sys.argv[1])
way = connections.load()
session = connections.cassandra_session(way.cassandra)
by_id = session.prepare("SELECT user_id FROM users_by_id WHERE user_id = ?")
by_country = session.prepare(
    "SELECT user_id FROM users_by_country WHERE country = ? AND minute = ? AND created_at = ? AND user_id = ?"
)


def found(statement: PreparedStatement, arguments: list[tuple[object, ...]]) -> list[bool]:
    """Return for each set of arguments whether there is a row."""
    return [
        bool(rows.one())
        for _, rows in execute_concurrent_with_args(session, statement, arguments, concurrency=OLDEST)
    ]


waiting: deque[tuple[str, uuid.UUID, str, datetime, datetime]] = deque()
cut, width = "", 1
(folder / "journal").touch()
with (
    (folder / "journal").open(encoding="ascii") as journal,
    (folder / "readable").open("w", encoding="ascii") as readable,
):
    while True:
        lines = (cut + journal.read()).split("\n")
        cut = lines.pop()
        for number, _, _, user_id, country, created_at in (line.split("\t") for line in lines):
            moment = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(created_at))
            minute = moment.replace(second=0, microsecond=0)
            waiting.append((number, uuid.UUID(user_id), country, minute, moment))
        oldest = [waiting.popleft() for _ in range(min(width, len(waiting)))]
        here = found(by_id, [(probe[1],) for probe in oldest])
        asked = [probe for probe, there in zip(oldest, here, strict=True) if there]
        there = found(
            by_country, [(country, minute, moment, user_id) for _, user_id, country, minute, moment in asked]
        )
        now = time.time()
        done = {probe[0] for probe, is_there in zip(asked, there, strict=True) if is_there}
        readable.writelines(f"{number}\t{now:.3f}\n" for number in sorted(done, key=int))
        readable.flush()
        waiting.extendleft(reversed([probe for probe in oldest if probe[0] not in done]))
        # A long queue is gone through without a pause; while nothing comes, looking must cost little.
        width = OLDEST if len(done) == len(oldest) else 1
        if len(done) < OLDEST:
            time.sleep(PAUSE)
