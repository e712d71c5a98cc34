"""Records as Kafka has them, in every codec that a producer or a topic may choose."""

from __future__ import annotations

from functools import partial

import pytest
from kafka import codec
from kafka.record import default_records
from kafka.record.default_records import DefaultRecordBase
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from millrace.checks.cluster import CODECS

ATTRIBUTES = {
    name.removeprefix("CODEC_").lower(): value
    for name, value in vars(DefaultRecordBase).items()
    if name.startswith("CODEC_") and name not in ("CODEC_MASK", "CODEC_NONE")
}
TODAYS, BEFORE_HEADERS = 2, 1


def came_back(magic: int, name: str, values: list[bytes]) -> list[bytes]:
    builder = MemoryRecordsBuilder(magic, ATTRIBUTES[name], 1 << 20)
    for value in values:
        builder.append(1_000, b"key", value, [])
    builder.close()
    packed = bytes(builder.buffer())
    assert len(packed) < sum(map(len, values)), "it was not packed"
    return [record.value for batch in MemoryRecords(packed) for record in batch]


def test_health_tries_every_codec_of_kafka() -> None:
    assert sorted(CODECS) == sorted(ATTRIBUTES)


# More than one block of each codec.
VALUES = [letter * 300_000 for letter in (b"a", b"b", b"c")]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_codec_is_read(name: str) -> None:
    assert came_back(TODAYS, name, VALUES) == VALUES


@pytest.mark.parametrize("name", ["gzip", "snappy", "lz4"])
def test_and_in_the_format_before_headers(name: str) -> None:
    assert came_back(BEFORE_HEADERS, name, VALUES) == VALUES


def test_snappy_of_a_producer_that_is_not_javas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        default_records, "snappy_encode", partial(codec.snappy_encode, xerial_compatible=False)
    )
    assert came_back(TODAYS, "snappy", VALUES) == VALUES
