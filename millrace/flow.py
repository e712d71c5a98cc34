"""What the DAGs' tasks do: one function each, plain Python, JSON in and out.

Waiting is the caller's: `published` and `readable` look once and return what is still missing, so that a
deferred task can ask again later without holding anything in between.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypedDict

from millrace import deletions, source, store, tables, topics
from millrace.audit import GRACE
from millrace.connections import Connections, cassandra_session
from millrace.errors import MillraceError
from millrace.limits import DEFAULT_COUNT, DEFAULT_DEADLINE, LONGEST_DEADLINE, RATE_LIMIT
from millrace.postgresql import postgresql_session
from millrace.schemas import DEAD_LETTER_TOPIC

if TYPE_CHECKING:
    from cassandra.cluster import Session
    from psycopg2.extensions import connection as PostgresqlConnection

log = logging.getLogger(__name__)

CONF_KEYS: Final = ("seed", "count", "deadline")
_NAMED_IDS: Final = 20
_IN_TOPIC: Final = "topic"


class ConfError(MillraceError):
    """A run's conf holds something that is not understood."""


class BatchFailedError(MillraceError):
    """Users of the batch will not become readable by waiting."""


class BatchLateError(MillraceError):
    """Users of the batch did not reach a station before its deadline."""


@dataclass(frozen=True, slots=True)
class Conf:
    """What a run asks for; `deadline` is in seconds, for each station."""

    seed: str
    count: int
    deadline: float


class SentAgain(TypedDict):
    """What `send_again` changes of a batch."""

    republished: int
    dead_letters_from: dict[str, int] | None


class StoredBatch(TypedDict):
    """What `fetch_and_store` hands on; ids and counts, never rows."""

    batch_id: str
    seed: str
    count: int
    inserted: int
    republished: int
    # Per partition, where dead letters of this attempt can begin: earlier ones were of an earlier attempt. None if
    # Kafka was away: then all since the batch was first stored count.
    dead_letters_from: dict[str, int] | None


def fetch_and_store(
    connections: Connections,
    run_id: str,
    conf: Mapping[str, Any] | None = None,
    *,
    patience: source.Patience | None = None,
) -> StoredBatch:
    """Fetch a run's batch from the source and store it with its outbox rows.

    `conf` may hold `seed` (default: a function of the run id), `count` (default 500) and `deadline`, beyond which the
    source is not asked again either. A run that is repeated asks for the same people; those of them that were stored and can't be read in Cassandra are put into the outbox
    again. Raises ConfError, source.SourceError, store.ReplayDiffersError; then PostgreSQL is as it was.
    """
    origin = connections.source
    asked = parse_conf(run_id, conf, rate_limit=origin.rate_limit)
    # A batch may take its deadline to each station; the source takes less by itself.
    longest = source.Patience()
    patience = patience or replace(longest, deadline=min(longest.deadline, asked.deadline))
    letters_from = _dead_letters_end(connections)
    batch = source.fetch(
        origin.url,
        origin.name,
        asked.seed,
        asked.count,
        rate_limit=origin.rate_limit,
        proxy=origin.proxy,
        patience=patience,
    )
    with _postgresql(connections) as postgresql:
        stored = store.store(postgresql, batch.users)
        republished = 0
        if stored.existing:
            republished = _republish_unreadable(connections, postgresql, batch.batch_id)
    log.info(
        "batch %s (seed %s): %d users, %d of them new, %d put back into the outbox",
        batch.batch_id,
        asked.seed,
        len(batch.users),
        stored.inserted,
        republished,
    )
    return {
        "batch_id": batch.batch_id,
        "seed": asked.seed,
        "count": len(batch.users),
        "inserted": stored.inserted,
        "republished": republished,
        "dead_letters_from": letters_from,
    }


def parse_conf(run_id: str, conf: Mapping[str, Any] | None, *, rate_limit: int = RATE_LIMIT) -> Conf:
    """Return what a run asks for; a key that is missing or null has its default. `rate_limit` is the source's.

    Raises ConfError, SeedError or BatchSizeError naming what is wrong.
    """
    given = {key: value for key, value in (conf or {}).items() if value is not None}
    if unknown := sorted(set(given) - set(CONF_KEYS)):
        raise ConfError(
            f"conf: unknown {', '.join(map(repr, unknown))}; it may hold {', '.join(CONF_KEYS[:-1])} and {CONF_KEYS[-1]}"
        )
    seed = given.get("seed", source.seed_for(run_id))
    count, deadline = given.get("count", DEFAULT_COUNT), given.get("deadline", DEFAULT_DEADLINE)
    if not isinstance(seed, str):
        raise ConfError(f"conf.seed must be text, not {type(seed).__name__}")
    if type(count) is not int:
        raise ConfError(f"conf.count must be an integer, not {type(count).__name__}")
    if type(deadline) not in (int, float) or not 0 < deadline <= LONGEST_DEADLINE:
        raise ConfError(
            f"conf.deadline must be seconds, more than 0 and at most {LONGEST_DEADLINE:g}, is {deadline!r}"
        )
    return Conf(source.check_seed(seed), source.check_count(count, rate_limit), float(deadline))


def published(connections: Connections, batch_id: str) -> list[str]:
    """Return the ids of a batch's users that the relay has not published yet.

    Raises BatchFailedError when one sits in quarantine.
    """
    with _postgresql(connections) as postgresql:
        _refuse_quarantined(postgresql, batch_id)
        return store.unpublished(postgresql, batch_id)


def readable(
    connections: Connections, batch_id: str, dead_letters_from: Mapping[str, int] | None = None
) -> list[str]:
    """Return the ids of a batch's users that can't be read in Cassandra's tables yet.

    `dead_letters_from` is what `fetch_and_store` gave; without it every dead letter since the batch was stored
    counts. Raises BatchFailedError when a user that can't be read sits in quarantine or is a dead letter.
    """
    with _postgresql(connections) as postgresql:
        users = store.batch_users(postgresql, batch_id)
        with _cassandra(connections) as session:
            missing = tables.unreadable(session, users)
        if missing:
            _refuse_quarantined(postgresql, batch_id)
            _refuse_dead_letters(connections, users, missing, dead_letters_from)
    return missing


def republish(connections: Connections, batch_id: str, *, everything: bool = False) -> int:
    """Put a batch's users that can't be read in Cassandra (or all of them) into the outbox; return how many."""
    with _postgresql(connections) as postgresql:
        if everything:
            return store.republish(postgresql, batch_id)
        return _republish_unreadable(connections, postgresql, batch_id)


def send_again(connections: Connections, batch_id: str) -> SentAgain:
    """Put a batch's users that can't be read into the outbox again, for a new attempt: older dead letters don't count."""
    letters_from = _dead_letters_end(connections)
    return {"republished": republish(connections, batch_id), "dead_letters_from": letters_from}


def last_stations(connections: Connections, batch_id: str, user_ids: Collection[str]) -> dict[str, str]:
    """Say for each id which station it reached last. Reads the topic since the batch was stored: for errors."""
    with _postgresql(connections) as postgresql:
        users = store.batch_users(postgresql, batch_id)
        waiting = set(store.unpublished(postgresql, batch_id))
        refused = store.quarantined(postgresql, batch_id)
    seen: dict[str, str] = {}
    published = "published, and not in the topic any more or not visible yet"
    try:
        seen = _in_topic(connections, set(user_ids), min(user.created_at for user in users))
    except topics.TopicReadError as error:
        log.warning("what the topic holds of batch %s is not known: %s", batch_id, error)
        published = "published; the topic can't be read"
    known = {user.user_id for user in users}
    stations = {}
    for user_id in user_ids:
        if user_id not in known:
            stations[user_id] = "not in PostgreSQL"
        elif user_id in refused:
            stations[user_id] = f"quarantine: {refused[user_id]}"
        elif user_id in seen:
            stations[user_id] = f"{_IN_TOPIC}, at {seen[user_id]}: not (wholly) in Cassandra"
        elif user_id in waiting:
            stations[user_id] = "outbox: not published by the relay"
        else:
            stations[user_id] = published
    return stations


def hidden_rows(connections: Connections, batch_id: str, stations: Mapping[str, str] | None = None) -> str:
    """Say which of a batch's unreadable rows a deletion hides, how that is seen and mended; nothing if there are none.

    `stations` of the missing users, as `last_stations` gives them: those that are in the topic alone, and of a batch that is
    no longer on its way, may be hidden, too.
    """
    with _postgresql(connections) as postgresql:
        users = store.batch_users(postgresql, batch_id)
    with _cassandra(connections) as session:
        unreadable = set(tables.unreadable(session, users))
        missing = [user for user in users if user.user_id in unreadable]
        rows = deletions.hidden(session, missing)
        proven = {row.user.user_id for row in rows}
        settled = datetime.now(UTC) - GRACE
        in_topic = {user_id for user_id, station in (stations or {}).items() if station.startswith(_IN_TOPIC)}
        in_neither = [
            user for user in missing if user.user_id in in_topic - proven and user.created_at < settled
        ]
        return deletions.explain(session, {batch_id}, rows, in_neither)


def late(batch_id: str, station: str, stations: Mapping[str, str], hidden: str = "") -> BatchLateError:
    """Return the error of a deadline that passed: every missing id by the station that it reached last.

    `hidden` is what `hidden_rows` says.
    """
    by_station: dict[str, list[str]] = defaultdict(list)
    for user_id, reached in stations.items():
        log.error("batch %s, user %s: %s", batch_id, user_id, reached)
        # Places in the topic differ per user: they are in the log, the summary goes without.
        by_station[reached.partition(", at ")[0].partition(": ")[0]].append(user_id)
    summary = "; ".join(
        f"{len(ids)} last seen in {reached}: {_some(ids)}" for reached, ids in sorted(by_station.items())
    )
    return BatchLateError(
        f"batch {batch_id}: {len(stations)} users are not {station} before the deadline. {summary}. "
        "Clearing the run, or `millrace republish --batch`, sends them again"
        + (f".\n{hidden}" if hidden else "")
    )


def delete_older(connections: Connections, before: datetime) -> int:
    """Delete the users that PostgreSQL stored before a moment; return how many.

    What waits for the relay or sits in quarantine stays. Each 10,000 are a transaction of their own.
    """
    deleted: int = 0
    with _postgresql(connections) as postgresql:
        while True:
            with postgresql, postgresql.cursor() as cursor:
                cursor.execute("SELECT millrace.delete_users(%s)", (before,))
                count: int = (cursor.fetchone() or (0,))[0]
            deleted += count
            if not count:
                return deleted


def _dead_letters_end(connections: Connections) -> dict[str, int] | None:
    """Return the end of the dead letters. Storing does not hang on Kafka, which may be away for a while."""
    try:
        with topics.consumer(connections.kafka) as consumer:
            ends = topics.end_offsets(consumer, DEAD_LETTER_TOPIC)
    except topics.TopicReadError as error:
        log.warning(
            "the end of %s is not known, older dead letters will count too: %s", DEAD_LETTER_TOPIC, error
        )
        return None
    return {str(partition): offset for partition, offset in ends.items()}


def _in_topic(connections: Connections, user_ids: Collection[str], since: datetime) -> dict[str, str]:
    """Return the place in the topic of those users that it holds since a moment."""
    places = {}
    with topics.consumer(connections.kafka) as consumer:
        ends = topics.end_offsets(consumer)
        for record in topics.records(consumer, topics.offsets_at(consumer, since), ends):
            if (user_id := topics.user_id(record.key)) is not None and user_id in user_ids:
                places[user_id] = str(topics.Place(record.topic, record.partition, record.offset))
    return places


def _republish_unreadable(connections: Connections, postgresql: PostgresqlConnection, batch_id: str) -> int:
    users = store.batch_users(postgresql, batch_id)
    with _cassandra(connections) as session:
        missing = tables.unreadable(session, users)
    return store.republish(postgresql, batch_id, missing) if missing else 0


def _refuse_quarantined(postgresql: PostgresqlConnection, batch_id: str) -> None:
    if refused := store.quarantined(postgresql, batch_id):
        named = "; ".join(f"{user_id}: {error}" for user_id, error in list(refused.items())[:_NAMED_IDS])
        raise BatchFailedError(
            f"batch {batch_id}: {len(refused)} users are in quarantine, the relay can't encode them: {named}. Once the "
            "cause is gone, clearing the run or `millrace republish --batch` sends them again"
        )


def _refuse_dead_letters(
    connections: Connections,
    users: Sequence[store.StoredUser],
    missing: Collection[str],
    start: Mapping[str, int] | None,
) -> None:
    with topics.consumer(connections.kafka) as consumer:
        offsets = (
            topics.offsets_at(consumer, min(user.created_at for user in users), DEAD_LETTER_TOPIC)
            if start is None
            else {int(partition): offset for partition, offset in start.items()}
        )
        letters = {
            letter.place: letter for letter in topics.dead_letters(consumer, offsets) if not letter.resolved
        }
        owners = topics.user_ids(consumer, letters)
    dead = [
        f"{user_id}: {letters[place].reason} at {place}, {letters[place].error}"
        for place, user_id in owners.items()
        if user_id in set(missing)
    ]
    if dead:
        raise BatchFailedError(
            f"{len(dead)} users are dead letters: {'; '.join(dead[:_NAMED_IDS])}. Once the cause is gone, clearing the "
            "run or `millrace republish --batch` sends them again"
        )


def _some(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED_IDS} more (in the log)" if len(ids) > _NAMED_IDS else ""
    return ", ".join(ids[:_NAMED_IDS]) + more


def _postgresql(connections: Connections) -> AbstractContextManager[PostgresqlConnection]:
    return postgresql_session(connections.postgresql, application_name="flow")


@contextmanager
def _cassandra(connections: Connections) -> Iterator[Session]:
    session = cassandra_session(connections.cassandra)
    try:
        yield session
    finally:
        session.cluster.shutdown()
