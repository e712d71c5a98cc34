"""What a run may ask for: the rules of the randomuser.me API for its client and its stand-in, and for the forms that a person fills in.

DAG files import this at every parse: nothing heavy in here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

# More than this in one request silently gives one user.
PAGE_SIZE: Final = 5_000
# The server's pages go up to this number; a higher one silently gives page 1 again.
LAST_PAGE: Final = 10_000
# Users per address within RATE_WINDOW seconds; then HTTP 429, and no word of when to come back.
RATE_LIMIT: Final = 20_000
RATE_WINDOW: Final = 300.0
DEFAULT_COUNT: Final = 500
# The server appends the page's number to the seed, so that a seed ends in a non-digit, and reads a nationality out of a
# seed of 18 characters.
SEED: Final = r"^(?!.{18}$)[A-Za-z0-9._-]{0,63}[A-Za-z._-]$"
# Seconds that a batch may take to each station.
DEFAULT_DEADLINE: Final = 600.0
LONGEST_DEADLINE: Final = 86_400.0
# A window that a person names, for an audit or a rollup: more minutes than this are not looked through in a run's time.
LONGEST_GIVEN_WINDOW: Final = timedelta(days=7)


def most_users(rate_limit: int) -> int:
    """Return how many users one batch may have, of a source that gives an address `rate_limit` (0: any) in RATE_WINDOW."""
    return min(rate_limit or PAGE_SIZE * LAST_PAGE, PAGE_SIZE * LAST_PAGE)
