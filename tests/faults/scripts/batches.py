"""Batches as functions of their seed: what the load stores, and what the watch looks for."""

import json
from datetime import UTC, datetime

from millrace.offline_source import People
from millrace.users import User, parse

_people = People()


def users(source: str, seed: str, rows: int) -> list[User]:
    """Return a batch as the offline source would give it."""
    documents = _people.page("1.4", seed, 1, rows, datetime.now(UTC))
    # As they come over the wire.
    return [
        parse(document, source=source, seed=seed, page=1, position=position)
        for position, document in enumerate(json.loads(json.dumps(documents)))
    ]
