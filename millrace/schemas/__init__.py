"""The event's Avro schema, and the names that belong to it."""

import json
from functools import cache
from importlib.resources import files
from typing import Any, Final

TOPIC: Final = "users_created"
DEAD_LETTER_TOPIC: Final = "users_created.dlq"
SUBJECT: Final = f"{TOPIC}-value"
# The header of an event that was sent again on purpose, to bring back its rows; other events have no header.
REPUBLISHED_HEADER: Final = "republished"


def users_created_text() -> str:
    """Return the schema of the event as the text that is registered."""
    return files(__name__).joinpath("users_created.avsc").read_text(encoding="utf-8")


@cache
def users_created() -> dict[str, Any]:
    """Return the schema of the event, parsed. Treat it as read-only: it is shared."""
    schema: dict[str, Any] = json.loads(users_created_text())
    return schema


@cache
def event_fields() -> tuple[str, ...]:
    """Return the event's field names in their one order (Avro, Spark, PostgreSQL, Cassandra)."""
    return tuple(field["name"] for field in users_created()["fields"])


@cache
def timestamp_fields() -> frozenset[str]:
    """Return the names of the fields that are timestamps in milliseconds."""
    return frozenset(
        field["name"]
        for field in users_created()["fields"]
        if isinstance(field["type"], dict) and field["type"].get("logicalType") == "timestamp-millis"
    )
