"""Windows of time that runs are about: from a run's conf, or the last one that is closed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from millrace.limits import LONGEST_GIVEN_WINDOW

KEYS: Final = ("start", "end")


def from_conf(conf: Mapping[str, Any] | None) -> tuple[datetime, datetime] | None:
    """Return the window that a run's conf names, or None if it names none.

    `start` and `end` are whole minutes in ISO 8601 with an offset. Raises ConfError naming what is wrong.
    """
    from millrace.flow import ConfError

    given = {key: value for key, value in (conf or {}).items() if value is not None}
    if unknown := sorted(set(given) - set(KEYS)):
        raise ConfError(f"conf: unknown {', '.join(map(repr, unknown))}; it may hold {' and '.join(KEYS)}")
    if not given:
        return None
    if len(given) < len(KEYS):
        raise ConfError("conf: give start and end, or neither")
    start, end = (_minute(key, given[key]) for key in KEYS)
    if start >= end:
        raise ConfError(f"conf: the window is empty, {start.isoformat()} is not before {end.isoformat()}")
    if end - start > LONGEST_GIVEN_WINDOW:
        raise ConfError(
            f"conf: the window is longer than {LONGEST_GIVEN_WINDOW.days} days; take several runs"
        )
    if end > datetime.now(UTC):
        raise ConfError(f"conf: the window ends in the future, at {end.isoformat()}")
    return start, end


def closed_hour(moment: datetime, grace: timedelta) -> tuple[datetime, datetime]:
    """Return the hour of whole minutes that ends `grace` before `moment`; hourly moments give windows without gaps."""
    end = (moment.astimezone(UTC) - grace).replace(second=0, microsecond=0)
    return end - timedelta(hours=1), end


def _minute(key: str, value: Any) -> datetime:
    from millrace.flow import ConfError

    try:
        moment = datetime.fromisoformat(value)
        at = moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise ConfError(f"conf.{key} must be a time in ISO 8601, is {value!r}") from None
    if moment.tzinfo is None:
        raise ConfError(f"conf.{key} {value!r} names no time zone: append Z for UTC")
    if moment.second or moment.microsecond:
        raise ConfError(f"conf.{key} {value!r} is not a whole minute")
    return at
