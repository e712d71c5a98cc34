"""One batch through the whole flow, compared row by row and value by value.

Readability is measured by reading: after the commit every user is asked for in both tables of Cassandra, again and
again until it is there. A cell's write time can't tell (it is the user's `created_at`, so that a re-sent event
changes nothing), and the moment of the writer's acknowledgement is not the moment of a reader's success. A latency
is therefore at most one sweep too long; the sweeps' longest time is printed with it.
"""

from __future__ import annotations

import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from millrace import encoding, events, source, store, tables, topics
from millrace.connections import Connections, cassandra_session
from millrace.limits import DEFAULT_COUNT
from millrace.postgresql import postgresql_session
from millrace.registry import RegistryClient, SchemaNotFoundError
from millrace.schemas import event_fields, users_created
from millrace.users import User

if TYPE_CHECKING:
    from cassandra.cluster import Session

Event = tuple[Any, ...]

SWEEP_INTERVAL: Final = 0.05
_NAMED: Final = 20
_TEXTS: Final = [
    event_fields().index(name)
    for name in ("title", "first_name", "last_name", "street_name", "city", "state", "id_name", "id_value")
]
_POSTCODE: Final = event_fields().index("postcode")
_BIRTH: Final = event_fields().index("date_of_birth")
_ID_VALUE: Final = event_fields().index("id_value")
_COUNTRY: Final = event_fields().index("country")


@dataclass(slots=True)
class Station:
    """What one station has of the batch."""

    name: str
    rows: int = 0
    again: int = 0
    missing: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)

    @property
    def differences(self) -> int:
        """How many users are missing, not of the batch, or different."""
        return len(self.missing) + len(self.strangers) + len(self.different)


@dataclass(slots=True)
class Report:
    """The comparison of one batch. `latencies` are seconds from commit to readable, of the users that were."""

    batch_id: str
    seed: str
    stations: list[Station]
    latencies: list[float]
    longest_sweep: float
    traps: Counter[str]

    @property
    def differences(self) -> int:
        """The differences of all stations."""
        return sum(station.differences for station in self.stations)

    def lines(self) -> list[str]:
        """Return the report as text."""
        lines = [f"batch {self.batch_id}, seed {self.seed}", ""]
        lines.append(f"{'station':<28}{'rows':>8}{'missing':>9}{'strange':>9}{'differ':>8}{'again':>7}")
        for station in self.stations:
            lines.append(
                f"{station.name:<28}{station.rows:>8}{len(station.missing):>9}{len(station.strangers):>9}"
                f"{len(station.different):>8}{station.again:>7}"
            )
        lines += [
            "",
            "values that are easily damaged: " + ", ".join(f"{n} {name}" for name, n in self.traps.items()),
        ]
        if self.latencies:
            p50, p95, most = (percentile(self.latencies, share) for share in (0.50, 0.95, 1.0))
            lines.append(
                f"commit to readable: p50 {p50:.2f} s, p95 {p95:.2f} s, max {most:.2f} s "
                f"(seen by reading; longest sweep {self.longest_sweep:.2f} s)"
            )
        for station in self.stations:
            named = (
                [f"{station.name}: {user_id} is missing" for user_id in station.missing]
                + [f"{station.name}: {user_id} is not of the batch" for user_id in station.strangers]
                + [f"{station.name}: {text}" for text in station.different]
            )
            lines += named[:_NAMED]
            if len(named) > _NAMED:
                lines.append(f"{station.name}: and {len(named) - _NAMED} more")
        lines.append("equal everywhere" if not self.differences else f"{self.differences} differences")
        return lines


def verify(
    connections: Connections,
    *,
    count: int = DEFAULT_COUNT,
    run_id: str | None = None,
    deadline: float = 180.0,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Send a batch of its own through the flow and compare source, PostgreSQL, topic and Cassandra.

    `deadline` (seconds from the commit) is how long users may take to become readable; what is not there then is
    missing in the report. Raises the errors of the stations that can't be asked at all.
    """
    seed = source.seed_for(run_id or f"verify-{uuid4()}")
    origin = connections.source
    batch = source.fetch(
        origin.url, origin.name, seed, count, rate_limit=origin.rate_limit, proxy=origin.proxy
    )
    progress(f"the source gave {len(batch.users)} users")
    session = cassandra_session(connections.cassandra)
    try:
        with topics.consumer(connections.kafka) as consumer:
            before = topics.end_offsets(consumer)
            with postgresql_session(connections.postgresql, application_name="verify") as postgresql:
                store.store(postgresql, batch.users)
                committed = time.monotonic()
                stored = {
                    event[0]: event
                    for event in map(events.normal, store.batch_events(postgresql, batch.batch_id))
                }
                users = store.batch_users(postgresql, batch.batch_id)
            progress("PostgreSQL has committed; waiting until Cassandra gives every user")
            latencies, longest = _watch(session, users, committed, deadline)
            expected = {
                str(user.user_id): _expected(user, stored.get(str(user.user_id))) for user in batch.users
            }
            stations = [
                Station("source", rows=len(batch.users)),
                _compare(Station("PostgreSQL"), expected, stored),
                _compare_topic(connections, consumer, before, expected, batch.batch_id),
                _compare(
                    Station("Cassandra users_by_id"), expected, tables.events_by_id(session, list(expected))
                ),
                _compare_by_country(session, expected, batch.batch_id),
            ]
    finally:
        session.cluster.shutdown()
    return Report(batch.batch_id, seed, stations, latencies, longest, traps(expected.values()))


def traps(expected: Any) -> Counter[str]:
    """Count the values that a careless station would damage."""
    counts: Counter[str] = Counter(
        dict.fromkeys(
            (
                "apostrophes",
                "quotes",
                "combining marks",
                "U+200C",
                "edge spaces",
                "not ASCII",
                "null ids",
                "births before 1970",
                "postcodes with a leading zero",
            ),
            0,
        )
    )
    for event in expected:
        texts = [event[index] for index in _TEXTS if event[index] is not None]
        joined = "".join(texts)
        counts["apostrophes"] += "'" in joined
        counts["quotes"] += '"' in joined
        counts["combining marks"] += any(unicodedata.combining(letter) for letter in joined)
        counts["U+200C"] += "\u200c" in joined
        counts["edge spaces"] += any(text != text.strip() for text in texts)
        counts["not ASCII"] += not joined.isascii()
        counts["null ids"] += event[_ID_VALUE] is None
        counts["births before 1970"] += event[_BIRTH] < 0
        counts["postcodes with a leading zero"] += event[_POSTCODE].startswith("0")
    return counts


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, min(len(ordered) - 1, -int(-share * len(ordered) // 1) - 1))]


def _expected(user: User, stored: Event | None) -> Event:
    """What every station must have: the source's values, and `created_at` as PostgreSQL set it."""
    values = dict(zip(User._fields, user, strict=True))
    values["created_at"] = None if stored is None else stored[store.EVENT_CREATED_AT]
    return events.normal(values[name] for name in event_fields())


def _watch(
    session: Session, users: Sequence[store.StoredUser], committed: float, deadline: float
) -> tuple[list[float], float]:
    """Read until every user is there; return each one's latency, and the longest sweep (both in seconds)."""
    left = list(users)
    latencies: list[float] = []
    longest = 0.0
    while left and (began := time.monotonic()) < committed + deadline:
        missing = set(tables.unreadable(session, left))
        ended = time.monotonic()
        longest = max(longest, ended - began)
        latencies += [ended - committed] * (len(left) - len(missing))
        left = [user for user in left if user.user_id in missing]
        if left:
            time.sleep(SWEEP_INTERVAL)
    return latencies, longest


def _compare(station: Station, expected: Mapping[str, Event], found: Mapping[str, Event]) -> Station:
    station.rows = len(found)
    station.missing = [user_id for user_id in expected if user_id not in found]
    station.strangers = [user_id for user_id in found if user_id not in expected]
    for user_id in expected.keys() & found.keys():
        station.different += _differences(user_id, expected[user_id], found[user_id])
    return station


def _differences(user_id: str, expected: Event, found: Event) -> list[str]:
    """Name the fields; their values are a person's."""
    return [f"{user_id}: {name} differs" for name in events.differing_fields(expected, found)]


def _compare_topic(
    connections: Connections,
    consumer: Any,
    before: Mapping[int, int],
    expected: Mapping[str, Event],
    batch_id: str,
) -> Station:
    """Decode what the topic got since, by the schema that each record names; others' records are not looked at."""
    station = Station("Kafka users_created")
    schemas: dict[int, dict[str, Any]] = {}
    found: dict[str, Event] = {}
    with RegistryClient(connections.registry) as registry:
        for record in topics.records(consumer, before, topics.end_offsets(consumer)):
            user_id = topics.user_id(record.key)
            try:
                schema_id, body = encoding.split(record.value or b"")
                if schema_id not in schemas:
                    schemas[schema_id] = registry.schema(schema_id)
                decoded = encoding.decode(body, schemas[schema_id], users_created())
            except (encoding.WireFormatError, SchemaNotFoundError) as error:
                if user_id in expected:
                    station.different.append(f"{user_id}: {error}")
                continue
            event = events.normal(decoded[name] for name in event_fields())
            if user_id is None or event[1] != batch_id:
                continue
            if user_id in found:
                station.again += 1
            found[user_id] = event
    return _compare(station, expected, found)


def _compare_by_country(session: Session, expected: Mapping[str, Event], batch_id: str) -> Station:
    partitions = {
        (event[_COUNTRY], events.minute(event[store.EVENT_CREATED_AT]))
        for event in expected.values()
        if event[store.EVENT_CREATED_AT] is not None
    }
    rows = tables.events_by_country(session, partitions)
    return _compare(
        Station("Cassandra users_by_country"), expected, {row[0]: row for row in rows if row[1] == batch_id}
    )
