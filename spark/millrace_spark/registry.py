"""Writer schemas from the Schema Registry, fetched once per id."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any, Final

import requests

from millrace import http
from millrace.connections import Registry
from millrace.errors import MillraceError
from millrace_spark import schema as avro

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS: Final = (5, 15)  # to connect, to answer
_FIRST_WAIT_SECONDS: Final = 1.0
_LONGEST_WAIT_SECONDS: Final = 30.0


class RegistryUnavailableError(MillraceError):
    """The registry can't be asked now: nothing is known about the id."""


class StoppedError(MillraceError):
    """The job was told to stop while it waited."""


class WriterSchemas:
    """Framed writer schemas by id (see `schema.writer`), learned from the registry as ids turn up.

    A schema that the registry gave never changes and is kept. An id that it denies is asked for again whenever a
    batch has it.
    """

    def __init__(self, fetch: Callable[[int], str | None], stop: threading.Event) -> None:
        self._fetch = fetch
        self._stop = stop
        self._known: dict[int, str | None] = {}

    @property
    def known(self) -> dict[int, str | None]:
        """Schema id -> framed writer schema; None for a schema that is no Avro record."""
        return dict(self._known)

    def learn(self, ids: Iterable[int]) -> bool:
        """Ask the registry for these ids; return whether it knew at least one that was new.

        Waits, loudly and longer each time up to 30 s, while the registry can't be asked. Raises StoppedError
        when the job is told to stop meanwhile.
        """
        learned = False
        for schema_id in sorted(set(ids) - self._known.keys()):
            # Ids are positive; no registry needs to be asked about others.
            text = self._ask(schema_id) if schema_id > 0 else None
            if text is not None:
                self._known[schema_id] = avro.writer(text)
                if self._known[schema_id] is None:
                    log.warning("schema id %d is no Avro record: its records are dead letters", schema_id)
                learned = True
        return learned

    def _ask(self, schema_id: int) -> str | None:
        wait, attempts = _FIRST_WAIT_SECONDS, 0
        while True:
            try:
                return self._fetch(schema_id)
            except RegistryUnavailableError as error:
                attempts += 1
                log.error(
                    "batch waits for the schema registry: %s; attempt %d, next in %.0f s",
                    error,
                    attempts,
                    wait,
                )
            if self._stop.wait(wait):
                raise StoppedError("stopped while waiting for the schema registry")
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)


def fetcher(registry: Registry) -> Callable[[int], str | None]:
    """Return a function: schema id -> schema text, or None when the registry answers that there is none.

    It raises RegistryUnavailableError for everything else: no connection, no time, a refused login, an answer
    that is not the registry's (a proxy's 404 page says nothing about a schema).
    """
    session = http.session(ca_file=registry.ca_file)
    if registry.username is not None:
        session.auth = (registry.username, registry.password or "")

    def fetch(schema_id: int) -> str | None:
        url = f"{registry.url.rstrip('/')}/schemas/ids/{schema_id}"
        try:
            response = session.get(url, timeout=_TIMEOUT_SECONDS)
        except requests.RequestException as error:
            raise RegistryUnavailableError(f"GET {url}: {error}") from error
        answer = _json_object(response)
        code = answer.get("error_code")
        if response.status_code == 404 and isinstance(code, int) and 40400 <= code <= 40499:
            return None
        text = answer.get("schema")
        if response.status_code != 200 or not isinstance(text, str):
            raise RegistryUnavailableError(f"GET {url}: HTTP {response.status_code}: {response.text[:200]!r}")
        return text

    return fetch


def _json_object(response: requests.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
