"""Users, and Kafka records made from them by another Avro implementation than Spark's."""

import copy
import io
import struct
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import fastavro
from pyspark.sql import DataFrame, SparkSession

from millrace import schemas

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RECORDS = (
    "value binary, topic string, partition int, offset long, "
    "headers array<struct<key:string,value:binary>>, timestamp timestamp"
)
SENT = datetime(2026, 3, 2, tzinfo=UTC)


def millis(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def user(number: int = 1, **changes: Any) -> dict[str, Any]:
    """A user whose values are as awkward as real ones."""
    return {
        "user_id": str(uuid.UUID(int=number)),
        "batch_id": str(uuid.UUID(int=2**127 + 1)),
        "created_at": millis(datetime(2026, 3, 1, 10, 20, 30, 456_000, tzinfo=UTC)),
        "gender": "female",
        "title": "Ms",
        "first_name": "Zoe\u0301",
        "last_name": 'O\'Neil "the" \u06a9\u200c\u0645',
        "street_number": 12,
        "street_name": " Straße ",
        "city": "São José",
        "state": "",
        "country": "Norway",
        "postcode": "00123",
        "latitude": -12.5,
        "longitude": 179.9999,
        "timezone_offset": "+5:45",
        "timezone_description": "Kathmandu",
        "email": "zoe@example.com",
        "username": "zoe1",
        "login_uuid": str(uuid.UUID(int=7)),
        "date_of_birth": millis(datetime(1951, 11, 6, 23, 59, 59, 999_000, tzinfo=UTC)),
        "registered_at": millis(datetime(2015, 2, 3, tzinfo=UTC)),
        "phone": "1; DROP TABLE users",
        "cell": "\u0000\t\n",
        "id_name": "",
        "id_value": None,
        "picture": "https://example.com/1.jpg",
        "nationality": "NO",
    } | changes


def schema_with(
    *,
    added: list[dict[str, Any]] = (),
    without: tuple[str, ...] = (),
    reverse: bool = False,
    types: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A variant of the event's schema."""
    schema = copy.deepcopy(schemas.users_created())
    fields = [field for field in schema["fields"] if field["name"] not in without]
    for field in fields:
        if types and field["name"] in types:
            field["type"] = types[field["name"]]
            field.pop("default", None)
    schema["fields"] = [*fields, *added]
    if reverse:
        schema["fields"].reverse()
    return schema


def payload(values: dict[str, Any], schema: dict[str, Any] | None = None) -> bytes:
    buffer = io.BytesIO()
    # A parsed copy without the logical types' conversions: values are milliseconds and text already.
    fastavro.schemaless_writer(buffer, _plain(schema or schemas.users_created()), values)
    return buffer.getvalue()


def framed(payload_: bytes, schema_id: int = 1) -> bytes:
    return struct.pack(">bi", 0, schema_id) + payload_


def message(values: dict[str, Any], schema: dict[str, Any] | None = None, schema_id: int = 1) -> bytes:
    return framed(payload(values, schema), schema_id)


def records(
    spark: SparkSession, *values: bytes | None, headers: list[tuple[str, bytes]] | None = None
) -> DataFrame:
    """The values as records of one partition, offsets 0, 1, ..., sent at SENT."""
    rows = [
        (bytearray(value) if value is not None else None, "users_created", 3, offset, headers, SENT)
        for offset, value in enumerate(values)
    ]
    return spark.createDataFrame(rows, RECORDS)


def _plain(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != "logicalType"}
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    return schema
