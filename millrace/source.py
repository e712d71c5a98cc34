"""Client of the randomuser.me API, version 1.4.

A batch is asked for by an explicit seed, so that asking again gives the same people. An answer counts only
if it is JSON with exactly the requested number of users; everything else is tried again with growing waits
until a deadline, and then it is an error that says why. Secrets of `login` are dropped here, and nothing of
an answer's users ever reaches a log or an error text.
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import requests
import urllib3

from millrace import http, identity
from millrace.errors import MillraceError
from millrace.limits import DEFAULT_COUNT, PAGE_SIZE, RATE_LIMIT, RATE_WINDOW, SEED, most_users
from millrace.users import User, UserFormatError, parse

log = logging.getLogger(__name__)
# It warns with what it could not read of an answer, which may be a person.
logging.getLogger("urllib3").setLevel(logging.ERROR)

BODY_LIMIT: Final = 64 * 2**20


class SourceError(MillraceError):
    """The source gave no valid answer before the deadline."""


class SeedError(MillraceError):
    """A seed that the source would not treat as this flow needs it."""


class BatchSizeError(MillraceError):
    """A number of users that can't be asked for."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the client tries, in seconds.

    Longer than the window of the source's limit, and with a try soon after its end: a batch that finds the limit used up by
    others waits for its turn.
    """

    deadline: float = RATE_WINDOW + 60.0
    connect_timeout: float = 5.0
    answer_timeout: float = 60.0
    first_wait: float = 1.0
    longest_wait: float = 30.0


@dataclass(frozen=True, slots=True)
class Batch:
    """The users of one seed, in the source's order."""

    source: str
    seed: str
    users: list[User]

    @property
    def batch_id(self) -> str:
        """The batch's id as text."""
        return str(identity.batch_id(self.source, self.seed))


class _Rejected(Exception):
    """One request gave no valid answer; the text is the reason."""


def seed_for(run_id: str) -> str:
    """Return the seed of a run: the same for the same run id, valid for the source whatever the id holds."""
    return f"run-{hashlib.sha256(run_id.encode()).hexdigest()[:24]}-"


def check_seed(seed: str) -> str:
    """Return the seed if the source treats it as this flow needs it; raise SeedError otherwise."""
    if not re.fullmatch(SEED, seed) or seed.endswith("\n"):
        raise SeedError(
            f"seed {seed[:80]!r}: use 1 to 64 of A-Z a-z 0-9 . _ - and end it in a non-digit, because the source appends "
            "the page's number to it (page 1 of `a1` would be page 11 of `a`); not 18 of them, out of which it reads a "
            "nationality"
        )
    return seed


def check_count(count: int, rate_limit: int = RATE_LIMIT) -> int:
    """Return the number of users to ask for if the source gives as many; raise BatchSizeError otherwise."""
    most = most_users(rate_limit)
    if count < 1:
        raise BatchSizeError(f"count {count}: ask for 1 to {most:,} users")
    if count > most:
        raise BatchSizeError(
            f"count {count}: the source gives an address {most:,} users in {RATE_WINDOW / 60:g} minutes, and a batch is "
            f"stored as a whole: ask for 1 to {most:,}, and for more in several runs, each with a seed of its own. The "
            "limit is `source_rate_limit` in connections.yml: 0 for a source of your own that has none"
        )
    return count


def fetch(
    url: str,
    name: str,
    seed: str,
    count: int = DEFAULT_COUNT,
    *,
    rate_limit: int = RATE_LIMIT,
    proxy: str | None = None,
    patience: Patience | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Batch:
    """Fetch a batch: `count` users for `seed` from the API at `url`, whose logical name is `name`.

    `proxy` is the way there (see `http.session`); without it the source is reached directly.

    More than 5,000 users are asked for in pages of 5,000; a batch's first users are the same whatever its count.
    `rate_limit` is how many users the source gives an address in 5 minutes, 0 for any number. Where others have used it up,
    the client waits. Raises SeedError or BatchSizeError before anything is asked, SourceError with the last reason when a page was
    not had before `patience.deadline` (of the whole batch) is over.
    """
    check_seed(seed)
    check_count(count, rate_limit)
    patience = patience or Patience()
    give_up = time.monotonic() + patience.deadline
    users: list[User] = []
    with http.session(proxy=proxy) as session:
        for page in range(1, (count + PAGE_SIZE - 1) // PAGE_SIZE + 1):
            wanted = min(PAGE_SIZE, count - len(users))
            documents = _fetch_page(session, url, seed, page, wanted, patience, give_up, sleep)
            try:
                users += (
                    parse(document, source=name, seed=seed, page=page, position=position)
                    for position, document in enumerate(documents)
                )
            except UserFormatError as error:
                # The same question gives the same answer, so that asking again can't help.
                raise SourceError(f"{url} (seed {seed}): {error}; the API's format has changed") from error
    return Batch(name, seed, users)


def _fetch_page(
    session: requests.Session,
    url: str,
    seed: str,
    page: int,
    wanted: int,
    patience: Patience,
    give_up: float,
    sleep: Callable[[float], None],
) -> list[Any]:
    wait = patience.first_wait
    attempt = 0
    while True:
        attempt += 1
        try:
            return _ask(session, url, seed, page, wanted, patience, give_up)
        except _Rejected as error:
            left = give_up - time.monotonic()
            # An answer that the deadline cut short says less than the one before it.
            if attempt == 1 or left > 0:
                reason = str(error)
        # Spread, so that clients that failed together don't come back together.
        pause = wait * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        if pause >= left:
            raise SourceError(
                f"{url}: {reason} (seed {seed}, page {page}, {wanted} users; attempt {attempt}, given up after "
                f"{patience.deadline:g} s). Nothing was stored; run it again once the source is well"
            )
        log.warning(
            "source: %s (seed %s, page %d, attempt %d); next try in %.1f s",
            reason,
            seed,
            page,
            attempt,
            pause,
        )
        sleep(pause)
        wait = min(wait * 2, patience.longest_wait)


def _ask(
    session: requests.Session, url: str, seed: str, page: int, wanted: int, patience: Patience, give_up: float
) -> list[Any]:
    """Ask once; return the documents, or raise _Rejected with the reason."""
    until = min(give_up, time.monotonic() + patience.answer_timeout)
    timeout = max(0.1, until - time.monotonic())
    try:
        with session.get(
            url,
            params={"seed": seed, "page": str(page), "results": str(wanted)},
            timeout=(min(patience.connect_timeout, timeout), timeout),
            allow_redirects=False,
            stream=True,
        ) as response:
            body = _read(response, until, timeout)
    except (requests.Timeout, urllib3.exceptions.TimeoutError):
        raise _Rejected(f"no answer within {timeout:.1f} s") from None
    except requests.exceptions.ProxyError as error:
        raise _Rejected(f"the proxy does not lead there: {_root_cause(error)}") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise _Rejected(f"connection failed: {_root_cause(error)}") from None
    return _documents(response, body, seed, page, wanted)


def _read(response: requests.Response, until: float, timeout: float) -> bytes:
    """Read the body within the deadline and the size limit, whatever pace the server keeps."""
    body = bytearray()
    # read1 gives what has arrived; a plain read waits for a whole chunk, and a server that trickles never fills one.
    while chunk := response.raw.read1(65_536, decode_content=True):
        body += chunk
        if time.monotonic() > until:
            raise _Rejected(f"the answer was not complete within {timeout:.1f} s")
        if len(body) > BODY_LIMIT:
            raise _Rejected(f"the answer is longer than {BODY_LIMIT // 2**20} MiB")
    return bytes(body)


def _documents(response: requests.Response, body: bytes, seed: str, page: int, wanted: int) -> list[Any]:
    if response.is_redirect:
        raise _Rejected(
            f"HTTP {response.status_code} to {response.headers.get('Location')}: set that as the URL"
        )
    if response.status_code == requests.codes.too_many_requests:
        raise _Rejected(
            f"HTTP {response.status_code}: this address has asked for as many users as the source gives in "
            f"{RATE_WINDOW / 60:g} minutes, all runs together"
        )
    kind = response.headers.get("Content-Type", "no content type")
    try:
        answer = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        # Of a body that is not understood nothing is quoted: it may hold secrets.
        raise _Rejected(f"HTTP {response.status_code}, {kind}, {len(body)} bytes that are not JSON") from None
    if isinstance(answer, dict) and "error" in answer:
        told = (
            answer["error"]
            if set(answer) == {"error"} and isinstance(answer["error"], str)
            else "not in words"
        )
        raise _Rejected(f"HTTP {response.status_code}, error document: {told[:200]}")
    if response.status_code != requests.codes.ok:
        raise _Rejected(f"HTTP {response.status_code} {response.reason}")
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise _Rejected("JSON without a list `results`")
    if len(results) != wanted:
        raise _Rejected(f"{len(results)} users instead of {wanted}")
    info = answer.get("info")
    if not isinstance(info, dict) or (info.get("seed"), info.get("page")) != (seed, page):
        raise _Rejected("the answer is for another seed or page than was asked for")
    return results


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _root_cause(error: BaseException) -> str:
    """Return the innermost reason, without the request's text that requests wraps around it.

    What the system says is told in full; a parser that met what is no HTTP quotes it.
    """
    cause: BaseException = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    name = type(cause).__name__
    return f"{name}: {cause}" if isinstance(cause, OSError) else name
