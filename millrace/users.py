"""A user of the source as a typed value: the mapping from the API's document.

Every text stays byte for byte as received: edge spaces, combining marks and joiners included.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from millrace import identity
from millrace.errors import MillraceError

# All that survives of `login`; the rest (password, salt, hashes) is dropped before anything else is done.
LOGIN_KEPT: Final = ("uuid", "username")
INT32: Final = range(-(2**31), 2**31)
# Bytes of a text. With all texts at their longest an event still fits a message of Kafka (1 MiB), and each a key of Cassandra.
LONGEST_TEXT: Final = 32_000
# Levels of objects and arrays within each other; PostgreSQL and Python both end at a few thousand.
DEEPEST_NESTING: Final = 32
# The names of the API's format: any other key may be something of the person's, and is not quoted.
_FORMAT: Final = (
    "gender name title first last location street number city state country postcode coordinates latitude longitude timezone "
    "offset description email login uuid username dob date age registered phone cell id value picture large medium thumbnail nat"
)
_NAMES: Final = frozenset(_FORMAT.split())


class UserFormatError(MillraceError):
    """A user document is not of the API's format. The text names the field, never its value."""


class User(NamedTuple):
    """One user: the event's fields (without `created_at`, which PostgreSQL sets) and where it came from.

    `received` is the source's document without the secrets; its ages are of the moment of the request.
    """

    user_id: UUID
    batch_id: UUID
    gender: str
    title: str
    first_name: str
    last_name: str
    street_number: int
    street_name: str
    city: str
    state: str
    country: str
    postcode: str
    latitude: float
    longitude: float
    timezone_offset: str
    timezone_description: str
    email: str
    username: str
    login_uuid: UUID
    date_of_birth: datetime
    registered_at: datetime
    phone: str
    cell: str
    id_name: str
    id_value: str | None
    picture: str
    nationality: str
    seed: str
    page: int
    position: int
    received: dict[str, Any]


def without_secrets(document: Any) -> Any:
    """Return a user document whose `login` holds no more than uuid and username."""
    if not isinstance(document, dict):
        return document
    login = document.get("login")
    kept = {key: login[key] for key in LOGIN_KEPT if key in login} if isinstance(login, dict) else None
    return {**document, "login": kept}


def parse(document: Any, *, source: str, seed: str, page: int, position: int) -> User:
    """Map a document of `results` to a user.

    Raises UserFormatError naming the first field that is missing or of a wrong kind.
    """
    reader = _Reader(without_secrets(document), f"page {page}, position {position}")
    return User(
        user_id=identity.user_id(source, seed, page, position),
        batch_id=identity.batch_id(source, seed),
        gender=reader.text("gender"),
        title=reader.text("name", "title"),
        first_name=reader.text("name", "first"),
        last_name=reader.text("name", "last"),
        street_number=reader.integer("location", "street", "number"),
        street_name=reader.text("location", "street", "name"),
        city=reader.text("location", "city"),
        state=reader.text("location", "state"),
        # It is a key of Cassandra's tables, and a key is never empty.
        country=reader.text("location", "country", empty=False),
        postcode=reader.text_or_integer("location", "postcode"),
        latitude=reader.degrees(90, "location", "coordinates", "latitude"),
        longitude=reader.degrees(180, "location", "coordinates", "longitude"),
        timezone_offset=reader.text("location", "timezone", "offset"),
        timezone_description=reader.text("location", "timezone", "description"),
        email=reader.text("email"),
        username=reader.text("login", "username"),
        login_uuid=reader.uuid("login", "uuid"),
        date_of_birth=reader.moment("dob", "date"),
        registered_at=reader.moment("registered", "date"),
        phone=reader.text("phone"),
        cell=reader.text("cell"),
        id_name=reader.text("id", "name"),
        id_value=reader.text_or_none("id", "value"),
        picture=reader.text("picture", "large"),
        nationality=reader.text("nat"),
        seed=seed,
        page=page,
        position=position,
        received=reader.document,
    )


class _Reader:
    """Typed access to one document by path."""

    def __init__(self, document: Any, place: str) -> None:
        self.document = document
        self._place = place
        self._refuse_unstorable(document, ())

    def text(self, *path: str, empty: bool = True) -> str:
        value = self._at(path)
        if not isinstance(value, str) or not (value or empty):
            raise self._wrong(path, "text", value)
        # No character has more than 4 bytes: most texts need not be encoded.
        if len(value) > LONGEST_TEXT // 4 and len(value.encode()) > LONGEST_TEXT:
            raise self._wrong(path, f"text of at most {LONGEST_TEXT:,} bytes", value)
        return value

    def text_or_none(self, *path: str) -> str | None:
        return None if self._at(path) is None else self.text(*path)

    def text_or_integer(self, *path: str) -> str:
        value = self._at(path)
        return str(value) if type(value) is int else self.text(*path)

    def integer(self, *path: str) -> int:
        value = self._at(path)
        if type(value) is not int or value not in INT32:
            raise self._wrong(path, "an integer of 32 bits", value)
        return value

    def degrees(self, bound: int, *path: str) -> float:
        """Coordinates are texts in the source."""
        value = self._at(path)
        try:
            number = float(value) if type(value) in (str, int, float) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not abs(number) <= bound:
            raise self._wrong(path, f"a number within ±{bound}", value)
        return number

    def uuid(self, *path: str) -> UUID:
        value = self.text(*path)
        try:
            return UUID(value)
        except ValueError:
            raise self._wrong(path, "a UUID", value) from None

    def moment(self, *path: str) -> datetime:
        """ISO 8601 with a zone, to the millisecond that every station keeps."""
        value = self.text(*path)
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise ValueError
            moment = moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise self._wrong(path, "a timestamp with a zone", value) from None
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def _at(self, path: tuple[str, ...]) -> Any:
        value = self.document
        for key in path:
            if not isinstance(value, dict) or key not in value:
                raise UserFormatError(f"{self._place}: `{'.'.join(path)}` is missing in the source's answer")
            value = value[key]
        return value

    def _wrong(self, path: tuple[str, ...], expected: str, value: Any) -> UserFormatError:
        kind = {"NoneType": "null", "dict": "an object", "list": "an array"}.get(
            type(value).__name__, "empty" if value == "" else "not one"
        )
        return UserFormatError(f"{self._place}: `{'.'.join(path)}` must be {expected} and is {kind}")

    def _refuse_unstorable(self, value: Any, path: tuple[str, ...]) -> None:
        """Refuse what no column takes, fields that nobody reads included: `received` keeps them.

        PostgreSQL holds no U+0000, no encoding of Unicode holds half a surrogate pair, and JSON has no infinity, which is
        what Python makes of 1e999.
        """
        if len(path) > DEEPEST_NESTING:
            raise self._unstorable(path[:2], f"more than {DEEPEST_NESTING} levels")
        if isinstance(value, dict):
            for key, item in value.items():
                inner = (*path, key if key in _NAMES else "(unknown)")
                self._refuse_unstorable(key, inner)
                self._refuse_unstorable(item, inner)
        elif isinstance(value, list):
            for item in value:
                self._refuse_unstorable(item, (*path, "(item)"))
        elif isinstance(value, str):
            if "\0" in value or not (value.isascii() or _encodable(value)):
                raise self._unstorable(
                    path, "a character that can't be stored (U+0000 or half a surrogate pair)"
                )
        elif isinstance(value, float) and not math.isfinite(value):
            raise self._unstorable(path, "a number beyond every range")

    def _unstorable(self, path: tuple[str, ...], what: str) -> UserFormatError:
        return UserFormatError(f"{self._place}: `{'.'.join(path) or 'results'}` holds {what}")


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
