"""Events in one comparable form, whichever station they come from."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from millrace.schemas import event_fields

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def milliseconds(moment: datetime) -> int:
    """Return a moment (naive means UTC) in milliseconds since 1970."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round((aware - _EPOCH) / _MILLISECOND)


def minute(created_at: int) -> datetime:
    """Return the minute of a `created_at` in milliseconds."""
    return _EPOCH + timedelta(minutes=created_at // 60_000)


def normal(values: Iterable[Any]) -> tuple[Any, ...]:
    """Return an event's values with UUIDs as text and timestamps as milliseconds."""
    return tuple(
        str(value)
        if isinstance(value, UUID)
        else milliseconds(value)
        if isinstance(value, datetime)
        else value
        for value in values
    )


def differing_fields(expected: tuple[Any, ...], found: tuple[Any, ...]) -> list[str]:
    """Return the names of the fields in which two normal events differ; text counts byte for byte."""
    return [
        name
        for name, one, other in zip(event_fields(), expected, found, strict=True)
        if type(one) is not type(other) or one != other
    ]
