"""A service that answers the randomuser.me API, version 1.4, from generated people.

For tests, demonstrations and sites without internet. The same (version, seed, page) always gives the same
people, and asking for more gives the same first ones; only ages are computed at the time of the request, as
the real server does. It has the real format, the real server's rules, and its traps.

On request (`/control/fault`, with a token) it misbehaves in the ways that the real one was seen to. Some of
these happen below HTTP (a reset, a hang, a cut-off body), which is why this is the standard library's server,
which gives a handler its socket, and not a WSGI server, which hides it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import random
import select
import signal
import socket
import struct
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urljoin, urlsplit
from uuid import UUID

from millrace import systemd
from millrace.connections import Source
from millrace.errors import MillraceError
from millrace.limits import LAST_PAGE, PAGE_SIZE, RATE_LIMIT, RATE_WINDOW

log = logging.getLogger(__name__)

VERSIONS: Final = ("1.4",)
FAULTS: Final = ("429", "503", "403", "404", "html", "empty", "half", "truncated", "hang", "reset", "error")
LONGEST_HANG: Final = 600.0

# Share of users with each trap, where it is not a matter of the country. Batches of 500 should hold each of them.
COMBINING_MARKS: Final = 0.15  # of the names that are not ASCII: written in decomposed form
QUOTES: Final = 0.02
EDGE_SPACES: Final = 0.06
REPEATED_LOGIN: Final = 0.02  # far more often than the real server, so that small batches show it

ZERO_WIDTH_NON_JOINER: Final = "\u200c"
PERSIAN_PLURAL: Final = "\u0647\u0627"  # a suffix that is written after the joiner
FIRST_BIRTH: Final = datetime(1944, 1, 1, tzinfo=UTC)
BIRTH_SPAN_MS: Final = int(timedelta(days=21_100).total_seconds() * 1000)  # to late 2001: 45 % before 1970
FIRST_REGISTRATION: Final = datetime(2002, 4, 1, tzinfo=UTC)
REGISTRATION_SPAN_MS: Final = int(timedelta(days=7_500).total_seconds() * 1000)
POOL_SIZE: Final = 150
MILLISECOND: Final = timedelta(milliseconds=1)

TIMEZONES: Final = (
    ("-11:00", "Midway Island, Samoa"),
    ("-10:00", "Hawaii"),
    ("-8:00", "Pacific Time (US & Canada)"),
    ("-5:00", "Eastern Time (US & Canada), Bogota, Lima"),
    ("-3:30", "Newfoundland"),
    ("0:00", "Western Europe Time, London, Lisbon, Casablanca"),
    ("+1:00", "Brussels, Copenhagen, Madrid, Paris"),
    ("+3:30", "Tehran"),
    ("+5:30", "Bombay, Calcutta, Madras, New Delhi"),
    ("+5:45", "Kathmandu"),
    ("+9:30", "Adelaide, Darwin"),
    ("+12:00", "Auckland, Wellington, Fiji, Kamchatka"),
)
ADJECTIVES: Final = (
    "angry",
    "beautiful",
    "black",
    "blue",
    "brown",
    "crazy",
    "happy",
    "lazy",
    "sad",
    "silver",
    "tiny",
)
ANIMALS: Final = (
    "bear",
    "bird",
    "cat",
    "dog",
    "duck",
    "fish",
    "frog",
    "koala",
    "lion",
    "panda",
    "tiger",
    "wolf",
)
PASSWORDS: Final = (
    "sunrise",
    "letmein",
    "hunter",
    "dolphin",
    "marble",
    "velvet",
    "pepper",
    "orchid",
    "thunder",
)


@dataclass(frozen=True, slots=True)
class Country:
    """How one nationality's people are made. In `postcode`, `phone`, `cell`, `id_value`: # is a digit, @ a letter."""

    nationality: str
    name: str
    locale: str
    postcode: str
    phone: str
    cell: str
    id_name: str
    id_value: str | None
    titles_male: tuple[str, ...] = ("Mr",)
    titles_female: tuple[str, ...] = ("Mrs", "Ms", "Miss")


# Digits alone as a postcode's pattern mean an integer in the answer, as in the real one; Norway's are texts, and
# about a third of them begin with 0.
COUNTRIES: Final = (
    Country("AU", "Australia", "en_AU", "####", "0#-####-####", "04##-###-###", "TFN", "#########"),
    Country("BR", "Brazil", "pt_BR", "#####", "(##) ####-####", "(##) ####-####", "CPF", "###.###.###-##"),
    Country("CA", "Canada", "en_CA", "@#@ #@#", "@## @##-####", "@## @##-####", "SIN", "#########"),
    Country(
        "CH",
        "Switzerland",
        "fr_CH",
        "####",
        "07# ### ## ##",
        "07# ### ## ##",
        "AVS",
        "756.####.####.##",
        ("Monsieur",),
        ("Madame", "Mademoiselle"),
    ),
    Country("DE", "Germany", "de_DE", "#####", "0###-#######", "017#-#######", "SVNR", "## ###### @ ###"),
    Country("DK", "Denmark", "da_DK", "#####", "########", "########", "CPR", "######-####"),
    Country("ES", "Spain", "es_ES", "#####", "9##-###-###", "6##-###-###", "DNI", "########-@"),
    Country("FI", "Finland", "fi_FI", "#####", "0#-###-###", "04#-###-##-##", "HETU", "NaNNA###undefined"),
    Country(
        "FR", "France", "fr_FR", "#####", "0#-##-##-##-##", "06-##-##-##-##", "INSEE", "############# ##"
    ),
    Country(
        "GB", "United Kingdom", "en_GB", "@@# #@@", "01#### #####", "07### ######", "NINO", "@@ ## ## ## @"
    ),
    Country("IE", "Ireland", "en_IE", "#####", "0##-###-####", "081-###-####", "PPS", "#######@@"),
    Country("IN", "India", "en_IN", "#####", "##########", "##########", "UIDAI", "############"),
    Country("IR", "Iran", "fa_IR", "#####", "0##-########", "09##-###-####", "", None),
    Country("MX", "Mexico", "es_MX", "#####", "(###) ### ####", "(###) ### ####", "NSS", "## ## ## #### #"),
    Country("NL", "Netherlands", "nl_NL", "#####", "(0##) #######", "(06) ########", "BSN", "########"),
    Country("NO", "Norway", "no_NO", "", "########", "########", "FN", "###########"),
    Country("NZ", "New Zealand", "en_NZ", "#####", "(###)-###-####", "(###)-###-####", "", None),
    Country("RS", "Serbia", "hr_HR", "#####", "0##-####-###", "06#-####-###", "SID", "#########"),
    Country("TR", "Turkey", "tr_TR", "#####", "(###)-###-####", "(###)-###-####", "", None),
    Country("UA", "Ukraine", "uk_UA", "#####", "(0##) @##-####", "(09#) @##-####", "", None),
    Country(
        "US", "United States", "en_US", "#####", "(###) ###-####", "(###) ###-####", "SSN", "###-##-####"
    ),
)


class OfflineSourceError(MillraceError):
    """The service can't be started."""


class ControlTokenError(MillraceError):
    """The control endpoint's token can't be had."""


class ControlError(MillraceError):
    """The control endpoint did not do what it was asked for."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Names of one country, drawn once: asking Faker for each person would cost milliseconds each time."""

    country: Country
    first_names_male: tuple[str, ...]
    first_names_female: tuple[str, ...]
    last_names: tuple[str, ...]
    cities: tuple[str, ...]
    streets: tuple[str, ...]
    states: tuple[str, ...]


def _draw_pool(country: Country) -> Pool:
    from faker import Faker

    faker = Faker(country.locale, use_weighting=False)
    faker.seed_instance(f"millrace/{country.nationality}")

    def draw(method: str) -> tuple[str, ...]:
        make: Callable[[], str] | None = getattr(faker, method, None)
        if make is None:
            return ()
        names = tuple(make() for _ in range(POOL_SIZE))
        # The real server gives Ukrainian names in Latin letters.
        return tuple(_latin(name) for name in names) if country.nationality == "UA" else names

    streets = draw("street_name")
    last_names = draw("last_name")
    cities = draw("city")
    if country.nationality in ("FR", "CH"):
        streets = tuple(
            f"rue de l'{street}" if index % 5 == 0 else street for index, street in enumerate(streets)
        )
    if country.nationality == "IE":
        last_names = tuple(f"O'{name}" if index % 3 == 0 else name for index, name in enumerate(last_names))
    if country.nationality == "IR":
        cities = tuple(
            f"{city}{ZERO_WIDTH_NON_JOINER}{PERSIAN_PLURAL}" if index % 3 == 0 else city
            for index, city in enumerate(cities)
        )
    return Pool(
        country,
        draw("first_name_male"),
        draw("first_name_female"),
        last_names,
        cities,
        streets,
        draw("administrative_unit") or cities,
    )


# One letter for one, which is enough for generated names; soft signs and apostrophes go.
_UKRAINIAN: Final = str.maketrans(
    "абвгґдеєжзиіїйклмнопрстуфхцчшщюя",
    "abvhgdeezzyiiiklmnoprstufhccssua",
    "ь'\u02bc\u2019",
)


def _latin(name: str) -> str:
    return name.lower().translate(_UKRAINIAN).title()


class People:
    """The generator: a pure function of (version, seed, page), and of the moment for ages."""

    def __init__(self) -> None:
        self._pools = tuple(_draw_pool(country) for country in COUNTRIES)

    def page(self, version: str, seed: str, page: int, results: int, now: datetime) -> list[dict[str, Any]]:
        """Return the first `results` users of a page."""
        # As in the real server the page is appended to the seed, with all that follows from it.
        chance = random.Random(f"{version}/{seed}{page}")  # noqa: S311 - nothing here is a secret
        pools = self._pools
        if len(seed) == 18:
            try:
                pools = (pools[int(seed[-2:], 16) % len(pools)],)
            except ValueError:
                log.debug("seed %s names no nationality", seed)
        logins: list[str] = []
        return [self._user(chance, pools, now, logins) for _ in range(results)]

    def _user(
        self, chance: random.Random, pools: tuple[Pool, ...], now: datetime, logins: list[str]
    ) -> dict[str, Any]:
        pick = chance.choice
        pool = pick(pools)
        country = pool.country
        gender = pick(("female", "male"))
        male = gender == "male"
        first = pick(pool.first_names_male if male else pool.first_names_female)
        last = pick(pool.last_names)
        if chance.random() < COMBINING_MARKS:
            first, last = unicodedata.normalize("NFD", first), unicodedata.normalize("NFD", last)
        street = pick(pool.streets)
        if chance.random() < QUOTES:
            street = f'"{street}" \\ 2'
        if chance.random() < EDGE_SPACES:
            street = pick((f"{street} ", f" {street}"))
        number = chance.randint(1, 9999)
        picture = f"{'men' if male else 'women'}/{chance.randrange(100)}.jpg"
        timezone = pick(TIMEZONES)
        return {
            "gender": gender,
            "name": {
                "title": pick(country.titles_male if male else country.titles_female),
                "first": first,
                "last": last,
            },
            "location": {
                "street": {"number": number, "name": street},
                "city": pick(pool.cities),
                "state": pick(pool.states),
                "country": country.name,
                "postcode": _postcode(chance, country),
                "coordinates": {
                    "latitude": f"{chance.uniform(-90, 90):.4f}",
                    "longitude": f"{chance.uniform(-180, 180):.4f}",
                },
                "timezone": {"offset": timezone[0], "description": timezone[1]},
            },
            "email": f"{_mailbox(first, chance)}.{_mailbox(last, chance)}@example.com",
            "login": _login(chance, logins),
            "dob": _date_and_age(FIRST_BIRTH + chance.randrange(BIRTH_SPAN_MS) * MILLISECOND, now),
            "registered": _date_and_age(
                FIRST_REGISTRATION + chance.randrange(REGISTRATION_SPAN_MS) * MILLISECOND, now
            ),
            "phone": _fill(country.phone, chance),
            "cell": _fill(country.cell, chance),
            "id": {
                "name": country.id_name,
                "value": None if country.id_value is None else _fill(country.id_value, chance),
            },
            "picture": {
                "large": f"https://randomuser.me/api/portraits/{picture}",
                "medium": f"https://randomuser.me/api/portraits/med/{picture}",
                "thumbnail": f"https://randomuser.me/api/portraits/thumb/{picture}",
            },
            "nat": country.nationality,
        }


def _fill(pattern: str, chance: random.Random) -> str:
    digits = iter(str(chance.getrandbits(64) + 10**20))
    next(digits)
    return "".join(
        next(digits) if mark == "#" else chance.choice("ABCDEFGHJKLMNPRSTUVWXYZ") if mark == "@" else mark
        for mark in pattern
    )


def _postcode(chance: random.Random, country: Country) -> int | str:
    if not country.postcode:
        return f"{chance.randrange(3_000):04d}"
    if set(country.postcode) == {"#"}:
        return chance.randrange(10 ** (len(country.postcode) - 1), 10 ** len(country.postcode))
    return _fill(country.postcode, chance)


def _mailbox(name: str, chance: random.Random) -> str:
    letters = "".join(
        letter for letter in unicodedata.normalize("NFKD", name).lower() if "a" <= letter <= "z"
    )
    return letters or f"user{chance.randrange(10_000)}"


def _login(chance: random.Random, logins: list[str]) -> dict[str, str]:
    bits, reuse = chance.getrandbits(128), chance.random()
    uuid = str(UUID(int=bits, version=4))
    if logins and reuse < REPEATED_LOGIN:
        uuid = logins[bits % len(logins)]
    logins.append(uuid)
    password, salt = chance.choice(PASSWORDS), f"{chance.getrandbits(40):010x}"[:8]
    salted = (password + salt).encode()
    return {
        "uuid": uuid,
        "username": f"{chance.choice(ADJECTIVES)}{chance.choice(ANIMALS)}{chance.randint(100, 999)}",
        "password": password,
        "salt": salt,
        "md5": hashlib.md5(salted, usedforsecurity=False).hexdigest(),
        "sha1": hashlib.sha1(salted, usedforsecurity=False).hexdigest(),
        "sha256": hashlib.sha256(salted).hexdigest(),
    }


def _date_and_age(moment: datetime, now: datetime) -> dict[str, Any]:
    before_birthday = (now.month, now.day) < (moment.month, moment.day)
    return {
        "date": f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z",
        "age": now.year - moment.year - before_birthday,
    }


class FaultSwitch:
    """The misbehaviour that is asked for, and for how many requests (None: until it is switched off)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kind: str | None = None
        self._count: int | None = None

    def set(self, kind: str | None, count: int | None = None) -> None:
        """Switch a fault on for the next `count` requests, or off."""
        with self._lock:
            self._kind, self._count = kind, count

    def get(self) -> dict[str, Any]:
        """Return what is set and how many requests of it are left."""
        with self._lock:
            return {"kind": self._kind, "count": self._count}

    def take(self) -> str | None:
        """Return the fault of this request, and count it."""
        with self._lock:
            kind = self._kind
            if kind is not None and self._count is not None:
                self._count -= 1
                if self._count <= 0:
                    self._kind = self._count = None
            return kind


class RateLimit:
    """Users per address within a sliding window; `limit` 0 switches it off."""

    def __init__(self, limit: int, window: float = RATE_WINDOW) -> None:
        self._limit, self._window = limit, window
        self._lock = threading.Lock()
        self._given: dict[str, deque[tuple[float, int]]] = {}

    def take(self, address: str, users: int) -> int | None:
        """Count a request; return None if it is allowed, else the users asked for within the window."""
        if not self._limit:
            return None
        now = time.monotonic()
        with self._lock:
            given = self._given.setdefault(address, deque())
            while given and given[0][0] < now - self._window:
                given.popleft()
            total = users + sum(count for _, count in given)
            if total > self._limit:
                return total
            given.append((now, users))
            return None


class Server(ThreadingHTTPServer):
    """The service: one thread per connection."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self, bind: str, port: int, *, control_token: str | None = None, rate_limit: int = RATE_LIMIT
    ) -> None:
        """Bind at once. Without a token there is no control endpoint; `rate_limit` 0 means none."""
        self.people = People()
        self.fault = FaultSwitch()
        self.rate = RateLimit(rate_limit)
        self.control_token = control_token
        super().__init__((bind, port), Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "millrace-source"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        """Answer /api/..., /healthz and the state of the control endpoint."""
        parts = urlsplit(self.path)
        if parts.path == "/healthz":
            self._send(HTTPStatus.OK, {"status": "ok"})
        elif parts.path == "/control/fault":
            self._control(lambda: None)
        elif parts.path.startswith("/api/") or parts.path == "/api":
            self._api(parts.path, parse_qs(parts.query))
        else:
            self._not_found()

    def do_PUT(self) -> None:
        """Switch a fault on."""
        self._control(self._set_fault)

    def do_DELETE(self) -> None:
        """Switch faults off."""
        self._control(lambda: self.server.fault.set(None))

    def log_message(self, format: str, *args: Any) -> None:
        """Log through logging, without the query's details."""
        log.info("%s %s", self.address_string(), format % args)

    def _api(self, path: str, query: dict[str, list[str]]) -> None:
        version = path.removeprefix("/api").strip("/") or VERSIONS[-1]
        if version not in VERSIONS:
            self._not_found()
            return
        results = _number(query, "results", 1)
        if not 1 <= results <= PAGE_SIZE:
            results = 1
        page = _number(query, "page", 1)
        if not 1 <= page <= LAST_PAGE:
            page = 1
        seed = query.get("seed", [""])[0] or f"{random.getrandbits(64):016x}"
        fault = self.server.fault.take()
        asked = self.server.rate.take(self.client_address[0], results)
        if asked is not None or fault == "429":
            self._send(
                HTTPStatus.TOO_MANY_REQUESTS,
                {
                    "error": f"Too many: {asked or 2 * RATE_LIMIT} users asked for within a few minutes. Slow down."
                },
            )
            return
        users = self.server.people.page(version, seed, page, results, datetime.now(UTC))
        if fault is not None:
            log.warning("misbehaving on request: %s", fault)
            self._misbehave(fault, users, _answer(users, seed, page, version))
            return
        self._send(HTTPStatus.OK, _answer(users, seed, page, version))

    def _misbehave(self, fault: str, users: list[dict[str, Any]], answer: dict[str, Any]) -> None:
        match fault:
            case "403":
                self._send_text(HTTPStatus.FORBIDDEN, "Forbidden")
            case "404":
                self._not_found()
            case "503":
                self._send_text(HTTPStatus.SERVICE_UNAVAILABLE, "Service Unavailable")
            case "html":
                self._send_text(
                    HTTPStatus.OK, "<!doctype html><title>Down for maintenance</title>", "text/html"
                )
            case "error":
                self._send(HTTPStatus.OK, {"error": "Something went wrong on our side."})
            case "empty":
                self._send(HTTPStatus.OK, {"results": [], "info": answer["info"]})
            case "half":
                # Of one user's half nothing is left: that is the empty answer.
                half = users[: len(users) // 2]
                self._send(HTTPStatus.OK, {"results": half, "info": {**answer["info"], "results": len(half)}})
            case "truncated":
                body = _encode(answer)
                self._head(HTTPStatus.OK, "application/json; charset=utf-8", len(body))
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            case "hang":
                # Until the client has gone, which makes the socket readable.
                select.select([self.connection], [], [], LONGEST_HANG)
                self.close_connection = True
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True

    def _control(self, act: Callable[[], str | None]) -> None:
        """Answer the control endpoint; `act` returns what is wrong with the request, or None."""
        token = self.server.control_token
        if token is None or urlsplit(self.path).path != "/control/fault":
            self._not_found()
            return
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            self.close_connection = True  # what follows on the connection is the body that was not read
            self._send_text(
                HTTPStatus.UNAUTHORIZED, "Send `Authorization: Bearer <control token>`", challenge=True
            )
            return
        wrong = act()
        if wrong is None:
            self._send(HTTPStatus.OK, self.server.fault.get())
        else:
            self._send(HTTPStatus.BAD_REQUEST, {"error": wrong})

    def _set_fault(self) -> str | None:
        try:
            length = int(self.headers.get("Content-Length", "0"))
            wish = json.loads(self.rfile.read(min(length, 10_000)))
            kind, count = wish["kind"], wish.get("count")
        except (ValueError, KeyError, TypeError, AttributeError):
            return 'the body must be {"kind": "<fault>", "count": <number of requests> or null}'
        if kind not in FAULTS:
            return f"unknown kind; one of {', '.join(FAULTS)}"
        if count is not None and (type(count) is not int or count < 1):
            return "count must be a positive integer or null"
        self.server.fault.set(kind, count)
        return None

    def _not_found(self) -> None:
        self._send_text(HTTPStatus.NOT_FOUND, "Not Found")

    def _send(self, status: HTTPStatus, document: dict[str, Any]) -> None:
        body = _encode(document)
        self._head(status, "application/json; charset=utf-8", len(body))
        self.wfile.write(body)

    def _send_text(
        self, status: HTTPStatus, text: str, kind: str = "text/plain", *, challenge: bool = False
    ) -> None:
        body = text.encode()
        self._head(status, f"{kind}; charset=utf-8", len(body), challenge=challenge)
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str, length: int, *, challenge: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        if challenge:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()


def _number(query: dict[str, list[str]], name: str, default: int) -> int:
    value = query.get(name, [""])[0]
    return int(value) if value.isdecimal() and len(value) < 10 else default


def _answer(users: list[dict[str, Any]], seed: str, page: int, version: str) -> dict[str, Any]:
    return {"results": users, "info": {"seed": seed, "results": len(users), "page": page, "version": version}}


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def serve(bind: str, port: int, *, control_token_file: Path | None, rate_limit: int) -> None:
    """Run the service until SIGTERM or SIGINT.

    Raises ControlTokenError when the token's file can't be read or is empty, and OfflineSourceError when the address
    is taken.
    """
    token = None
    if control_token_file is not None:
        try:
            token = control_token_file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ControlTokenError(f"the control token's file can't be read: {error}") from error
        if not token:
            raise ControlTokenError(f"the control token's file {control_token_file} is empty")
    try:
        server = Server(bind, port, control_token=token, rate_limit=rate_limit)
    except OSError as error:
        raise OfflineSourceError(f"can't listen on {bind}:{port}: {error}") from error
    for number in (signal.SIGTERM, signal.SIGINT):
        # From a thread of its own: shutdown waits for the loop that the handler interrupts.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    systemd.notify("READY=1")
    log.info(
        "answering %s on http://%s:%d", ", ".join(f"/api/{version}/" for version in VERSIONS), bind, port
    )
    with server:
        server.serve_forever()


def control(source: Source, kind: str | None, count: int | None = None) -> None:
    """Make a running service misbehave in the way `kind` for the next `count` requests, or behave again (None).

    Raises ControlTokenError when the connection has no token, and ControlError when the service refuses.
    """
    import requests

    from millrace import http

    if source.control_token is None:
        raise ControlTokenError(
            f"no control token for {source.url}: is it an offline source, and are these an operator's connections?"
        )
    address = urljoin(source.url, "/control/fault")
    try:
        with http.session() as session:
            answer = session.request(
                "DELETE" if kind is None else "PUT",
                address,
                json=None if kind is None else {"kind": kind, "count": count},
                headers={"Authorization": f"Bearer {source.control_token}"},
                timeout=10,
            )
    except requests.RequestException as error:
        raise ControlError(f"{address}: {error}") from error
    if answer.status_code != HTTPStatus.OK:
        raise ControlError(f"{address}: HTTP {answer.status_code} {answer.text[:300]}")
