"""Stores users at a steady rate until stopped, and journals each batch once its commit is certain: load.py FOLDER ROWS SECONDS.

A batch is a function of its number: one whose commit is uncertain (PostgreSQL went away, or this process did) is stored
again until it is certain, which changes nothing if it had been. journal holds a line per batch: number, time of the
commit (seconds since the epoch), `created_at` as PostgreSQL gave it (milliseconds), rows, seed.
"""

import logging
import os
import sys
import time
import uuid
from contextlib import closing
from pathlib import Path

import batches
import psycopg2

from millrace import connections, events, store
from millrace.errors import MillraceError
from millrace.users import User

folder, rows, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
log = logging.getLogger("load")
way = connections.load()
token = folder / "token"
if not token.exists():
    token.write_text(uuid.uuid4().hex[:12])


def commit(users: list[User]) -> int:
    """Store a batch, however long that takes; return its `created_at` in milliseconds."""
    while True:
        try:
            session = connections.postgresql_connect(way.postgresql, application_name="faults-load")
            with closing(session):
                store.store(session, users)
                return events.milliseconds(store.batch_users(session, str(users[0].batch_id))[0].created_at)
        except (psycopg2.Error, MillraceError) as error:
            log.warning("not certain, once more: %s", " ".join(str(error).split()))
            time.sleep(0.5)


with (folder / "journal").open("a+", encoding="ascii") as journal:
    journal.seek(0)
    number = sum(1 for _ in journal)
    tick = time.monotonic()
    while True:
        seed = f"faults-{token.read_text()}-{number}-"
        created_at = commit(batches.users(way.source.name, seed, rows))
        journal.write(f"{number} {time.time():.3f} {created_at} {rows} {seed}\n")
        journal.flush()
        os.fsync(journal.fileno())
        number += 1
        # No haste after a pause: what was not stored then is not owed.
        tick = max(tick + seconds, time.monotonic())
        time.sleep(max(0.0, tick - time.monotonic()))
