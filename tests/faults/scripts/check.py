"""Compares what was committed with what every table has, and prints it as JSON: check.py FOLDER FIRST LAST.

FIRST and LAST are the batches that count. What was committed comes from the load's journal alone: ids are functions of seed
and position. Values are PostgreSQL's.
"""

import json
import logging
import sys
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from millrace import connections, events, identity, store, tables, topics

logging.getLogger("cassandra").setLevel(logging.ERROR)
logging.getLogger("kafka").setLevel(logging.ERROR)
folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
way = connections.load()
name = way.source.name

committed: dict[str, str] = {}  # user id -> seed
minutes: set[datetime] = set()
for line in (folder / "journal").open(encoding="ascii"):
    number, _, created_at, rows, seed = line.split()
    if first <= int(number) <= last:
        committed |= {str(identity.user_id(name, seed, 1, position)): seed for position in range(int(rows))}
        minutes.add(datetime.fromtimestamp(int(created_at) / 1000, UTC).replace(second=0, microsecond=0))

cassandra = connections.cassandra_session(way.cassandra)
by_id = tables.events_by_id(cassandra, list(committed))
by_country: dict[str, tuple] = {}
copies: Counter[str] = Counter()
around = {minute + timedelta(minutes=step) for minute in minutes for step in (-1, 0, 1)}
countries = tables.countries(cassandra)
for event in tables.events_by_country(
    cassandra, [(country, minute) for country in countries for minute in around]
):
    copies[event[0]] += 1
    by_country[event[0]] = event
cassandra.cluster.shutdown()

stored: dict[str, tuple] = {}
with closing(connections.postgresql_connect(way.postgresql, application_name="faults-check")) as session:
    for seed in sorted(set(committed.values())):
        for event in store.batch_events(session, str(identity.batch_id(name, seed))):
            stored[event[0]] = event
    with session.cursor() as cursor:
        # Whatever else was stored in these minutes may be in the tables, too; rows go on flowing, so it is asked last.
        cursor.execute(
            "SELECT user_id::text FROM millrace.users WHERE created_at >= %s AND created_at < %s",
            (min(around), max(around) + timedelta(minutes=1)),
        )
        known = {user_id for (user_id,) in cursor} | stored.keys()
        cursor.execute("SELECT count(*) FROM millrace.users_quarantine")
        (quarantined,) = cursor.fetchone()

with topics.consumer(way.kafka) as consumer:
    dead = [str(letter.place) for letter in topics.dead_letters(consumer) if not letter.resolved]

lost = {
    "PostgreSQL": committed.keys() - stored.keys(),
    "users_by_id": committed.keys() - by_id.keys(),
    "users_by_country": committed.keys() - by_country.keys(),
}
different = {
    user_id: wrong
    for table in (by_id, by_country)
    for user_id, event in table.items()
    if user_id in stored and (wrong := events.differing_fields(stored[user_id], event))
}
strangers = by_country.keys() - known
json.dump(
    {
        "committed": len(committed),
        "lost": len(set().union(*lost.values())),
        "lost_at": {place: sorted(ids)[:5] for place, ids in lost.items() if ids},
        "doubled": sum(copies.values()) - len(copies) + len(strangers),
        "strangers": sorted(strangers)[:5],
        "different": len(different),
        "different_in": dict(list(different.items())[:5]),
        "quarantined": quarantined,
        "dead_letters": sorted(dead),
    },
    sys.stdout,
)
