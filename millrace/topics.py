"""Reads of the users' topic and its dead letters in Kafka."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from millrace import events
from millrace.connections import Kafka, kafka_config
from millrace.errors import MillraceError
from millrace.schemas import DEAD_LETTER_TOPIC, TOPIC

# A read that gives nothing for this long (seconds), though there are records, is an error.
STALLED_AFTER: Final = 30.0
BOOTSTRAP_TIMEOUT_MS: Final = 10_000


class TopicReadError(MillraceError):
    """Kafka did not give what there is."""


class Place(NamedTuple):
    """Where a record stands."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """Return the place as a dead letter's key has it."""
        return f"{self.topic}:{self.partition}:{self.offset}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Parse what `str` gives; raise ValueError if it is not that."""
        topic, partition, offset = text.rsplit(":", 2)
        return cls(topic, int(partition), int(offset))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not become rows."""

    place: Place
    reason: str
    error: str
    schema_id: str | None
    resolved: bool = False


@contextlib.contextmanager
def consumer(kafka: Kafka) -> Iterator[Any]:
    """A consumer without a group: it commits nothing, and needs no right but to read."""
    try:
        client = KafkaConsumer(
            **kafka_config(kafka),
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            bootstrap_timeout_ms=BOOTSTRAP_TIMEOUT_MS,
        )
    except KafkaError as error:
        raise TopicReadError(f"Kafka at {', '.join(kafka.bootstrap_servers)}: {error}") from error
    try:
        yield client
    except KafkaError as error:
        raise TopicReadError(f"Kafka: {type(error).__name__}: {error}") from error
    finally:
        client.close()


def end_offsets(client: Any, topic: str = TOPIC) -> dict[int, int]:
    """Return per partition the offset that the next record will have."""
    ends = client.end_offsets(_partitions(client, topic))
    return {place.partition: offset for place, offset in ends.items()}


def first_offsets(client: Any, topic: str = TOPIC) -> dict[int, int]:
    """Return per partition the offset of the oldest record that is still there, or the end's."""
    firsts = client.beginning_offsets(_partitions(client, topic))
    return {place.partition: offset for place, offset in firsts.items()}


def offsets_at(client: Any, moment: datetime, topic: str = TOPIC) -> dict[int, int]:
    """Return per partition the offset of the first record that is not older than `moment`."""
    partitions = _partitions(client, topic)
    found = client.offsets_for_times(dict.fromkeys(partitions, events.milliseconds(moment)))
    ends = client.end_offsets(partitions)
    return {
        place.partition: found[place].offset if found.get(place) is not None else ends[place]
        for place in partitions
    }


def records(
    client: Any, start: Mapping[int, int], end: Mapping[int, int], topic: str = TOPIC
) -> Iterator[Any]:
    """Yield the records of each partition from offset `start` up to before offset `end`.

    A partition that `start` does not name is read from its beginning. Records that retention has removed are not
    given. Raises TopicReadError when Kafka gives nothing for 30 s though the end is not reached.
    """
    places = [
        TopicPartition(topic, number) for number, offset in end.items() if start.get(number, 0) < offset
    ]
    if not places:
        return
    client.assign(places)
    for place, first in client.beginning_offsets(places).items():
        client.seek(place, max(start.get(place.partition, 0), first))
    progress = time.monotonic()
    while left := [place for place in places if client.position(place) < end[place.partition]]:
        batches = client.poll(timeout_ms=1000, max_records=10_000)
        if batches:
            progress = time.monotonic()
        elif time.monotonic() - progress > STALLED_AFTER:
            raise TopicReadError(
                f"{topic}: no record for {STALLED_AFTER:.0f} s, and partitions "
                f"{', '.join(str(place.partition) for place in left)} are not read to their end"
            )
        for place, batch in batches.items():
            for record in batch:
                if record.offset < end[place.partition]:
                    yield record


def dead_letters(client: Any, start: Mapping[int, int] | None = None) -> list[DeadLetter]:
    """Return the dead letters from the given offsets (default: all), in the order of their partitions.

    A record without a value marks the letter of its key as resolved.
    """
    letters: dict[Place, DeadLetter] = {}
    marked: set[Place] = set()
    for record in records(client, start or {}, end_offsets(client, DEAD_LETTER_TOPIC), DEAD_LETTER_TOPIC):
        own = Place(DEAD_LETTER_TOPIC, record.partition, record.offset)
        try:
            place = Place.parse((record.key or b"").decode())
        except ValueError:  # somebody else's, known by its own place
            place = own
        if record.value is None:
            marked.add(place)
            if place in letters:
                letters[place] = replace(letters[place], resolved=True)
            continue
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        letters[place] = DeadLetter(
            place,
            headers.get("reason") or "unknown",
            headers.get("error", ""),
            headers.get("schema_id"),
            # The mark of such a one lies in another partition, and may be read before it.
            resolved=place == own and own in marked,
        )
    return list(letters.values())


def user_ids(client: Any, places: Iterable[Place]) -> dict[Place, str | None]:
    """Return the keys of the records at these places as user ids; None where there is none (any more)."""
    wanted: dict[tuple[str, int], list[Place]] = defaultdict(list)
    for place in places:
        wanted[place.topic, place.partition].append(place)
    found: dict[Place, str | None] = {place: None for group in wanted.values() for place in group}
    ends = {topic: end_offsets(client, topic) for topic in (TOPIC, DEAD_LETTER_TOPIC)}
    for (topic, partition), group in wanted.items():
        for place in group:
            # A letter may be of a topic that was made anew since, or name what never was.
            if not 0 <= place.offset < ends.get(topic, {}).get(partition, 0):
                continue
            span = ({partition: place.offset}, {partition: place.offset + 1})
            for record in records(client, *span, topic=topic):
                found[place] = user_id(record.key)
    return found


def user_id(key: bytes | None) -> str | None:
    """Return a record's key as a user id, or None if it is not one."""
    try:
        return str(UUID((key or b"").decode("ascii")))
    except ValueError:
        return None


def resolve_dead_letter(kafka: Kafka, place: Place) -> None:
    """Mark a dead letter as resolved: audits no longer name it. Needs the right to write to the dead letters.

    Raises TopicReadError where there is no such letter, or it is marked already.
    """
    with consumer(kafka) as client:
        if not any(letter.place == place and not letter.resolved for letter in dead_letters(client)):
            raise TopicReadError(
                f"{place} is not a dead letter that is to be resolved: `millrace dead-letters list` names them"
            )
    try:
        producer = KafkaProducer(**kafka_config(kafka), acks="all", allow_auto_create_topics=False)
        try:
            producer.send(DEAD_LETTER_TOPIC, key=str(place).encode(), value=None).get(timeout=30)
        finally:
            producer.close(timeout=5)
    except KafkaError as error:
        raise TopicReadError(f"{place} was not marked: {type(error).__name__}: {error}") from error


def _partitions(client: Any, topic: str) -> list[Any]:
    numbers = client.partitions_for_topic(topic)
    if not numbers:
        raise TopicReadError(f"topic {topic} does not exist, or this user may not read it")
    return [TopicPartition(topic, number) for number in sorted(numbers)]
