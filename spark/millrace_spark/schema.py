"""Avro schemas as the decoder needs them: the reader's relaxed, the writers' framed by an end mark.

Spark's `from_avro` tells neither that a record could not be decoded (it gives a struct of nulls) nor that
bytes were left over. Both follow from one addition: every schema gets a last field of fixed size, and every
payload gets that many bytes of its own digest behind it. Decoding then yields

- no end mark, when the record could not be decoded (a short payload runs into the mark and misses its end);
- another value than the digest, when bytes lay between record and mark;
- the digest, when the record took exactly the payload.
"""

from __future__ import annotations

import json
from typing import Any, Final

END_MARK: Final = "millrace_end_mark"
# The digest is MD5 as hexadecimal text: 32 bytes. It guards against accidents, not against forgery.
_END_MARK_FIELD: Final = {
    "name": END_MARK,
    "type": {"type": "fixed", "name": "EndMark", "namespace": "millrace.spark", "size": 32},
}


def reader(schema: dict[str, Any]) -> str:
    """Return the reader's schema with every field nullable, as JSON text with the end mark.

    A field that a writer left out, or filled with null, is then seen as null and named in the dead letter,
    where the strict schema would only fail. A default of the schema is kept.
    """
    fields = [_optional(field) for field in schema["fields"]]
    return json.dumps({**schema, "fields": [*fields, _END_MARK_FIELD]})


def writer(text: str) -> str | None:
    """Return a registered schema with the end mark, or None when it is no Avro record."""
    try:
        schema = json.loads(text)
    except ValueError:
        return None
    if not isinstance(schema, dict) or schema.get("type") != "record":
        return None
    fields = schema.get("fields")
    if not isinstance(fields, list):
        return None
    return json.dumps({**schema, "fields": [*fields, _END_MARK_FIELD]})


def required_fields(schema: dict[str, Any]) -> list[str]:
    """Return the names of the fields that may not be null."""
    return [field["name"] for field in schema["fields"] if "null" not in _branches(field["type"])]


def logical_fields(schema: dict[str, Any], logical_type: str) -> list[str]:
    """Return the names of the fields of a logical type (`uuid`, `timestamp-millis`)."""
    return [
        field["name"]
        for field in schema["fields"]
        if any(
            isinstance(branch, dict) and branch.get("logicalType") == logical_type
            for branch in _branches(field["type"])
        )
    ]


def text_fields(schema: dict[str, Any]) -> list[str]:
    """Return the names of the fields whose values are text."""
    return [
        field["name"]
        for field in schema["fields"]
        if any(
            branch == "string" or (isinstance(branch, dict) and branch.get("type") == "string")
            for branch in _branches(field["type"])
        )
    ]


def _branches(type_: Any) -> list[Any]:
    return type_ if isinstance(type_, list) else [type_]


def _optional(field: dict[str, Any]) -> dict[str, Any]:
    branches = _branches(field["type"])
    if "null" in branches:
        return field
    if "default" in field:
        # A default belongs to the first branch of a union.
        return {**field, "type": [*branches, "null"]}
    return {**field, "type": ["null", *branches], "default": None}
