"""Identities of users and batches: pure functions of where a user stood in the source."""

from typing import Final
from uuid import UUID, uuid5

# Every id of every installation hangs on this value: changing it makes all known users unknown.
NAMESPACE: Final = UUID("2f2b7f5e-6a0c-5d0b-9c1e-4d8a3a7c6e11")


def batch_id(source: str, seed: str) -> UUID:
    """Return the id of the batch that `source` (its logical name) gives for `seed`."""
    return uuid5(NAMESPACE, f"{source}/{seed}")


def user_id(source: str, seed: str, page: int, position: int) -> UUID:
    """Return the id of the user at `position` (from 0) of `page` (from 1)."""
    return uuid5(NAMESPACE, f"{source}/{seed}/{page}/{position}")
