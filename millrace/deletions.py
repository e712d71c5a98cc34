"""Rows that a deletion hides, and the commands that show and mend it.

The streaming job writes a user's rows of both tables in one batch, under one write time. Where one table has its row and the
other hasn't, a deletion of the other is newer than that. CQL tells nothing more of it: of when it was made only the nodes'
files know.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from millrace import events, tables
from millrace.store import StoredUser

if TYPE_CHECKING:
    from cassandra.cluster import Session

# Seconds after which a batch that was being written at the first look has written both tables.
SETTLED: Final = 5.0
NAMED: Final = 20
_TABLES: Final = ("users_by_id", "users_by_country")


class Hidden(NamedTuple):
    """A row that a table lacks, and the write time that its user's row in the other table has."""

    user: StoredUser
    table: str
    write_time: datetime


def hidden(session: Session, users: Sequence[StoredUser]) -> list[Hidden]:
    """Return the rows of these users that one table has and the other hasn't; takes 5 s where there are any."""
    found = _in_one_table(session, users)
    if found:
        time.sleep(SETTLED)
        found = _in_one_table(session, [row.user for row in found])
    return found


def _in_one_table(session: Session, users: Sequence[StoredUser]) -> list[Hidden]:
    by_id = tables.write_times_by_id(session, [user.user_id for user in users])
    by_country = tables.write_times_by_country(session, users)
    return [
        Hidden(user, table, other[user.user_id])
        for user in users
        for table, own, other in (("users_by_id", by_id, by_country), ("users_by_country", by_country, by_id))
        if user.user_id in other and user.user_id not in own
    ]


def explain(
    session: Session, batches: Collection[str], rows: Sequence[Hidden], in_neither: Sequence[StoredUser] = ()
) -> str:
    """Return what to tell a person of rows that are hidden, and of users that the topic has and neither table; or nothing.

    Names the first 20 of each, and the commands for the first row of each table. `batches`: the ids of theirs.
    """
    lines = [
        f"{row.user.user_id}: a deletion in {row.table} hides its row; it is newer than the row's write time,"
        f" {row.write_time.isoformat(' ', 'milliseconds')}"
        for row in rows[:NAMED]
    ]
    lines += [
        f"{user.user_id}: in the topic and in neither table. If the streaming job has come to it (`millrace health users_stream`"
        " says how far behind it is), a deletion that is newer than its write time hides it"
        for user in in_neither[:NAMED]
    ]
    if not lines:
        return ""
    keyspace = str(session.keyspace)
    options = {
        name: table.options for name, table in session.cluster.metadata.keyspaces[keyspace].tables.items()
    }
    expiring = [table for table in _TABLES if options[table]["default_time_to_live"]]
    lines = [
        f"Rows of {table} expire {options[table]['default_time_to_live']} s after they are written, which hides them, too. Those that"
        f' are sent again stay after: cqlsh -e "ALTER TABLE {keyspace}.{table} WITH default_time_to_live = 0"'
        for table in expiring
    ] + lines
    wanted = {table: _key(table, user) for user in reversed(in_neither) for table in _TABLES}
    wanted |= {row.table: _key(row.table, row.user) for row in reversed(rows)}
    lines.append("On a Cassandra host, marked_deleted in what this prints is the deletion's time:")
    for table, key in wanted.items():
        lines += [
            f"  nodetool flush {keyspace} {table}",
            f"  for file in $(nodetool getsstables {keyspace} {table} {key}); do sstabledump $file -k {key}; done",
        ]
    lines.append("Sent again when the clock has passed it, a row is newer than its deletion, and there:")
    lines += [f"  millrace republish --batch {batch_id}" for batch_id in sorted(batches)]
    lines.append(
        "Where that is too far ahead, and the clock has passed local_delete_time, these have Cassandra forget it; then send"
        " the row again:"
    )
    for table in wanted:
        grace = options[table]["gc_grace_seconds"]
        alter = f'  cqlsh -e "ALTER TABLE {keyspace}.{table} WITH gc_grace_seconds ='
        lines += [
            f"  nodetool repair -full {keyspace} {table}  # on one host",
            f'{alter} 0"',
            f"  nodetool flush {keyspace} {table} && nodetool compact {keyspace} {table}  # on each host",
            f'{alter} {grace}"  # on one host',
        ]
    return "\n".join(lines)


def _key(table: str, user: StoredUser) -> str:
    """Return a row's partition key as nodetool and sstabledump take it in a shell."""
    if table == "users_by_id":
        return user.user_id
    minute = events.minute(events.milliseconds(user.created_at))
    parts = (user.country, f"{minute:%Y-%m-%dT%H:%M}Z")
    return shlex.quote(":".join(part.replace(":", "\\:") for part in parts))
