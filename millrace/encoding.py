"""Events as bytes: Avro in the Confluent wire format, and the partition of a key."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

import fastavro
from murmurhash2 import murmurhash2

MAGIC: Final = 0
_HEADER: Final = struct.Struct(">bI")
_KAFKA_MURMUR_SEED: Final = 0x9747B28C


class WireFormatError(ValueError):
    """Bytes that are not in the Confluent wire format, or not an event of its schema. The text quotes none of them."""


def encoder(schema: Mapping[str, Any], schema_id: int) -> Callable[[dict[str, Any]], bytes]:
    """Return a function that encodes one event: magic byte, schema id (4 bytes, big-endian), Avro.

    Timestamps may be datetimes or integers in the schema's unit, UUIDs may be text.
    """
    parsed = fastavro.parse_schema(dict(schema))
    header = _HEADER.pack(MAGIC, schema_id)

    def encode(event: dict[str, Any]) -> bytes:
        buffer = io.BytesIO()
        buffer.write(header)
        fastavro.schemaless_writer(buffer, parsed, event)
        return buffer.getvalue()

    return encode


def unfit_fields(schema: Mapping[str, Any], event: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields whose values the schema does not hold."""
    return [
        field["name"]
        for field in schema["fields"]
        if not fastavro.validate(event.get(field["name"]), field["type"], raise_errors=False)
    ]


def split(message: bytes) -> tuple[int, bytes]:
    """Return a message's schema id and its Avro bytes; raise WireFormatError if it has neither."""
    if len(message) < _HEADER.size:
        raise WireFormatError(f"{len(message)} bytes are too few for the Confluent wire format")
    magic, schema_id = _HEADER.unpack_from(message)
    if magic != MAGIC:
        raise WireFormatError(f"magic byte {magic} instead of {MAGIC}")
    return schema_id, message[_HEADER.size :]


def decode(body: bytes, writer: Mapping[str, Any], reader: Mapping[str, Any]) -> dict[str, Any]:
    """Decode Avro bytes of the writer's schema into the reader's; raise WireFormatError where that can't be."""
    buffer = io.BytesIO(body)
    try:
        event = fastavro.schemaless_reader(
            buffer, fastavro.parse_schema(dict(writer)), fastavro.parse_schema(dict(reader))
        )
    # What stands in bytes and schema of others: fastavro's errors have no class in common.
    except Exception as error:  # noqa: BLE001
        raise WireFormatError(f"not an event of its schema ({type(error).__name__})") from None
    if left := len(body) - buffer.tell():
        raise WireFormatError(f"{left} bytes follow the event")
    if not isinstance(event, dict):
        raise WireFormatError("the schema is not a record's")
    return event


def partition(key: bytes, partitions: int) -> int:
    """Return the partition that Kafka's default partitioner gives a key."""
    hashed: int = murmurhash2(key, _KAFKA_MURMUR_SEED)
    return (hashed & 0x7FFFFFFF) % partitions
