"""Compares the rollup with PostgreSQL over closed minutes, and prints both sums as JSON: count.py START END (ISO 8601)."""

import json
import logging
import sys
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta

from millrace import connections, tables

logging.getLogger("cassandra").setLevel(logging.ERROR)
start, end = (datetime.fromisoformat(text) for text in sys.argv[1:3])
way = connections.load()

wanted: Counter[tuple[str, datetime, str]] = Counter()
postgresql = connections.postgresql_connect(way.postgresql, application_name="faults-check")
with closing(postgresql), postgresql.cursor() as cursor:
    cursor.execute(
        "SELECT country, date_trunc('minute', created_at), gender, count(*) FROM millrace.users "
        "WHERE created_at >= %s AND created_at < %s GROUP BY 1, 2, 3",
        (start, end),
    )
    wanted.update({(country, minute, gender): count for country, minute, gender, count in cursor})

found: Counter[tuple[str, datetime, str]] = Counter()
cassandra = connections.cassandra_session(way.cassandra)
query = cassandra.prepare(
    "SELECT country, minute, gender, users FROM users_per_minute WHERE country = ? AND day = ? AND minute >= ? AND minute < ?"
)
for country in tables.countries(cassandra):
    for days in range((end.date() - start.date()).days + 1):
        for cell in cassandra.execute(query, (country, start.date() + timedelta(days=days), start, end)):
            found[cell.country, cell.minute.replace(tzinfo=UTC), cell.gender] += cell.users
cassandra.cluster.shutdown()
json.dump(
    {
        "users": sum(wanted.values()),
        "lost": sum((wanted - found).values()),
        "doubled": sum((found - wanted).values()),
    },
    sys.stdout,
)
