"""Sees when journaled batches can be read in both tables, until stopped: watch.py FOLDER.

Of each batch it asks for one user of every partition of the topic. readable holds a line per batch: number, time.
"""

import logging
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import batches
from cassandra import DriverException
from cassandra.cluster import EXEC_PROFILE_DEFAULT, NoHostAvailable

from millrace import connections, store, tables, topics
from millrace.encoding import partition
from millrace.errors import MillraceError

folder = Path(sys.argv[1])
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
log = logging.getLogger("watch")
way = connections.load()
PAUSE = 0.5


def partitions() -> int:
    """Ask how many partitions the topic has, until there is an answer."""
    while True:
        try:
            with topics.consumer(way.kafka) as client:
                return len(topics.end_offsets(client))
        except MillraceError as error:
            log.warning("%s", error)
            time.sleep(1)


def probes(line: list[str], count: int) -> list[store.StoredUser]:
    """Return one user of each partition of a journaled batch."""
    created_at = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=int(line[2]))
    chosen = {
        partition(str(user.user_id).encode(), count): store.StoredUser(
            str(user.user_id), user.country, created_at
        )
        for user in batches.users(way.source.name, line[4], int(line[3]))
    }
    return list(chosen.values())


known = (
    {int(line.split()[0]) for line in (folder / "readable").open()}
    if (folder / "readable").exists()
    else set()
)
pending: dict[int, list[store.StoredUser]] = {}
count = partitions()
cassandra = None
with (
    (folder / "journal").open(encoding="ascii") as journal,
    (folder / "readable").open("a", encoding="ascii") as readable,
):
    rest = ""
    while True:
        try:
            rest += journal.read()
            *lines, rest = rest.split("\n")
            for line in map(str.split, lines):
                if int(line[0]) not in known:
                    pending[int(line[0])] = probes(line, count)
            if cassandra is None:
                cassandra = connections.cassandra_session(way.cassandra)
                # A node that says nothing must not look like a flow that stands still.
                cassandra.get_execution_profile(EXEC_PROFILE_DEFAULT).request_timeout = 5
            missing = set(
                tables.unreadable(cassandra, [user for users in pending.values() for user in users])
            )
            now = time.time()
            for number in [
                number for number, users in pending.items() if not missing & {user.user_id for user in users}
            ]:
                del pending[number]
                readable.write(f"{number} {now:.3f}\n")
            readable.flush()
        except (MillraceError, DriverException, NoHostAvailable) as error:
            log.warning("%s", " ".join(str(error).split()))
            if cassandra is not None:
                cassandra.cluster.shutdown()
                cassandra = None
        time.sleep(PAUSE)
