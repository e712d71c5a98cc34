"""Stores users at a rate, open loop: load.py FOLDER RATE SECONDS. A rate of 0 is as fast as it goes; SECONDS then are rows.

What is late stays owed, so a slow platform isn't asked for less. journal holds a line per commit: number, time after it
(seconds since the epoch), rows, and one of its users: id, country, `created_at` (milliseconds).
"""

import json
import signal
import sys
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from millrace import connections, events, identity, store
from millrace.limits import PAGE_SIZE
from millrace.offline_source import People
from millrace.users import parse

# Seconds between two commits: at half of what compact can do they are as large as a batch of the DAG (500 rows).
INTERVAL = 0.25
LARGEST_BATCH = 5_000

folder, rate, amount = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
way = connections.load()
run = uuid.uuid4().hex[:12]
documents = json.loads(json.dumps(People().page("1.4", f"{run}-", 1, PAGE_SIZE, datetime.now(UTC))))
# Generated once and given new identities: making people is not what is measured.
people = [
    parse(document, source=way.source.name, seed=run, page=1, position=position)
    for position, document in enumerate(documents)
]
total = int(rate * amount) if rate else int(amount)
stored = number = 0
with (
    (folder / "journal").open("w", encoding="ascii") as journal,
    closing(connections.postgresql_connect(way.postgresql, application_name="bench")) as session,
):
    began = time.monotonic()
    while stored < total:
        due = min(total, int(rate * (time.monotonic() - began))) if rate else total
        rows = min(due - stored, LARGEST_BATCH)
        if rows > 0:
            seed = f"bench-{run}-{number}-"
            batch_id = identity.batch_id(way.source.name, seed)
            users = [
                people[(stored + position) % len(people)]._replace(
                    user_id=identity.user_id(way.source.name, seed, 1, position),
                    batch_id=batch_id,
                    seed=seed,
                    page=1,
                    position=position,
                )
                for position in range(rows)
            ]
            store.store(session, users)
            committed = time.time()
            probe = users[number % rows]
            with session, session.cursor() as cursor:
                cursor.execute(
                    "SELECT created_at FROM millrace.users WHERE user_id = %s", (str(probe.user_id),)
                )
                (created_at,) = cursor.fetchone()
            journal.write(
                f"{number}\t{committed:.3f}\t{rows}\t{probe.user_id}\t{probe.country}\t{events.milliseconds(created_at)}\n"
            )
            journal.flush()
            stored += rows
            number += 1
        if rate:
            time.sleep(INTERVAL - (time.monotonic() - began) % INTERVAL)
(folder / "loaded").write_text(f"{stored}\n")
# A process that is gone has used no CPU time that anybody could read: it stays until it is stopped.
signal.pause()
