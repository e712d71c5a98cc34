"""Client of the Schema Registry (Confluent's API)."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from millrace import http
from millrace.connections import Registry
from millrace.errors import MillraceError

TIMEOUTS: Final = (5.0, 15.0)  # seconds to connect, and between two bytes of the answer
# Each connection that the registry has with a database which was restarted fails one request, and is replaced. All requests
# here may come twice. What is more than that is for the caller, who is told.
RETRIES: Final = Retry(
    connect=0,
    read=False,
    redirect=0,
    other=0,
    status=3,
    status_forcelist=(500,),
    allowed_methods=None,
    backoff_factor=0.1,
    raise_on_status=False,
    respect_retry_after_header=False,
)
MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class RegistryError(MillraceError):
    """The registry answered that it can't do what it was asked for."""


class RegistryUnavailableError(MillraceError):
    """The registry did not answer, or answered that it is not well: the same request may succeed later."""


class SchemaNotFoundError(RegistryError):
    """The registry has no such subject, schema or id."""


class IncompatibleSchemaError(RegistryError):
    """The schema breaks readers of the subject's earlier versions."""


class RegistryClient:
    """A session with the registry. Use it in a `with` block, or close it."""

    def __init__(self, registry: Registry) -> None:
        self._url = registry.url.rstrip("/")
        self._session = http.session(ca_file=registry.ca_file)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=RETRIES))
        self._session.headers["Accept"] = MEDIA_TYPE
        if registry.username is not None:
            self._session.auth = (registry.username, registry.password or "")

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the session."""
        self.close()

    def close(self) -> None:
        """Close the session's connections."""
        self._session.close()

    def register(self, subject: str, schema: str) -> int:
        """Register a schema (its text) and return its id; the id it has if it is registered already.

        Raises IncompatibleSchemaError that says what readers would break.
        """
        try:
            answer = self._request(
                "POST", f"/subjects/{quote(subject, safe='')}/versions", {"schema": schema}
            )
        except IncompatibleSchemaError as error:
            details = self.incompatibilities(subject, schema)
            raise IncompatibleSchemaError("; ".join([str(error), *details])) from error
        return int(answer["id"])

    def lookup(self, subject: str, schema: str) -> int:
        """Return the id under which a schema is registered; raise SchemaNotFoundError if it is not."""
        return int(self._request("POST", f"/subjects/{quote(subject, safe='')}", {"schema": schema})["id"])

    def schema(self, schema_id: int) -> dict[str, Any]:
        """Return the schema of an id, parsed; raise SchemaNotFoundError if the registry has none."""
        schema: dict[str, Any] = json.loads(self._request("GET", f"/schemas/ids/{schema_id}")["schema"])
        return schema

    def incompatibilities(self, subject: str, schema: str) -> list[str]:
        """Return what a schema would break in the subject's newest version, as the registry words it."""
        answer = self._request(
            "POST",
            f"/compatibility/subjects/{quote(subject, safe='')}/versions/latest?verbose=true",
            {"schema": schema},
        )
        if answer.get("is_compatible"):
            return []
        return [
            str(message)
            for message in answer.get("messages") or ["incompatible; the registry gives no reason"]
        ]

    def set_compatibility(self, level: str, subject: str | None = None) -> None:
        """Set the compatibility level, of one subject or of all that have none of their own."""
        path = "/config" if subject is None else f"/config/{quote(subject, safe='')}"
        self._request("PUT", path, {"compatibility": level})

    def compatibility(self, subject: str | None = None) -> str | None:
        """Return the compatibility level of a subject's own, or the one of all that have none; None if not set."""
        path = "/config" if subject is None else f"/config/{quote(subject, safe='')}"
        try:
            return str(self._request("GET", path)["compatibilityLevel"])
        except SchemaNotFoundError:
            return None

    def _request(self, method: str, path: str, document: dict[str, Any] | None = None) -> Any:
        url = f"{self._url}{path}"
        try:
            response = self._session.request(
                method,
                url,
                data=None if document is None else json.dumps(document),
                headers=None if document is None else {"Content-Type": MEDIA_TYPE},
                timeout=TIMEOUTS,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise RegistryUnavailableError(f"{method} {url}: {error}") from error
        said = f"{method} {url}: HTTP {response.status_code} {_message(response)}"
        match response.status_code:
            case 200:
                try:
                    return response.json()
                except ValueError as error:
                    raise RegistryUnavailableError(f"{said}: not JSON; is that a registry?") from error
            case 401 | 403:
                raise RegistryError(f"{said}: the registry refuses this login")
            case 404:
                raise SchemaNotFoundError(said)
            case 409:
                raise IncompatibleSchemaError(said)
            case status if status == requests.codes.too_many_requests or status >= 500:
                raise RegistryUnavailableError(said)
            case _:
                raise RegistryError(said)


def _message(response: requests.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return str(response.reason)
