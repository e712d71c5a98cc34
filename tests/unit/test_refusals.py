"""Who refuses a person that can't be kept: the mapping, by field, before a database is asked; and nobody is told a value.

The database is the judge: what the mapping lets through, PostgreSQL takes and every later station can hold.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from millrace import connections, encoding, flow, relay, source, store, users
from millrace.cli import main
from millrace.schemas import event_fields, users_created

# In every value of the person; some are no texts.
MARK = "Zq7"
PERSON: dict[str, Any] = {
    "gender": f"{MARK}gender",
    "name": {"title": f"{MARK}title", "first": f"{MARK}first", "last": f"{MARK}last"},
    "location": {
        "street": {"number": 76_543_217, "name": f"{MARK}street"},
        "city": f"{MARK}city",
        "state": f"{MARK}state",
        "country": f"{MARK}country",
        "postcode": 76_543_217,
        "coordinates": {"latitude": "76.543217", "longitude": "-76.543217"},
        "timezone": {"offset": f"{MARK}offset", "description": f"{MARK}zone"},
    },
    "email": f"{MARK}@example.com",
    "login": {
        "uuid": "76543217-0000-4000-8000-000000000000",
        "username": f"{MARK}user",
        "password": f"{MARK}pw",
    },
    "dob": {"date": "1976-05-04T03:02:17.654Z", "age": 76_543_217},
    "registered": {"date": "2017-06-05T04:03:21.765Z", "age": 76_543_217},
    "phone": f"{MARK}phone",
    "cell": f"{MARK}cell",
    "id": {"name": f"{MARK}id", "value": f"{MARK}value"},
    "picture": {"large": f"{MARK}large", "medium": f"{MARK}medium", "thumbnail": f"{MARK}thumbnail"},
    "nat": f"{MARK}nat",
    f"{MARK}key": {f"{MARK}key": f"{MARK}extra"},
}
VALUES = re.compile(rf"{MARK}|6\D?543\D?217|1976-05-04|2017-06-05", re.IGNORECASE)

# Columns of millrace.users, and where the document has them. The others are the flow's own.
PATHS = {
    "gender": "gender",
    "title": "name.title",
    "first_name": "name.first",
    "last_name": "name.last",
    "street_number": "location.street.number",
    "street_name": "location.street.name",
    "city": "location.city",
    "state": "location.state",
    "country": "location.country",
    "postcode": "location.postcode",
    "latitude": "location.coordinates.latitude",
    "longitude": "location.coordinates.longitude",
    "timezone_offset": "location.timezone.offset",
    "timezone_description": "location.timezone.description",
    "email": "email",
    "username": "login.username",
    "login_uuid": "login.uuid",
    "date_of_birth": "dob.date",
    "registered_at": "registered.date",
    "phone": "phone",
    "cell": "cell",
    "id_name": "id.name",
    "id_value": "id.value",
    "picture": "picture.large",
    "nationality": "nat",
}
OWN = {"user_id", "batch_id", "created_at", "seed", "page", "position", "received"}
# What breaks a constraint of the table, as a value of the document. None: only the flow itself could.
BREAKS: dict[str, tuple[str, Any] | None] = {
    "users_pkey": None,
    "users_seed_check": None,
    "users_page_check": None,
    "users_position_check": None,
    "received_holds_no_secret": None,  # the secrets are dropped first
    "users_country_check": ("location.country", ""),
    "users_latitude_check": ("location.coordinates.latitude", "90.0001"),
    "users_longitude_check": ("location.coordinates.longitude", "-180.0001"),
}
# What each type of a column does not hold.
BEYOND: dict[str, list[Any]] = {
    "text": ["a\0", "\ud800", 1, [], {}],
    "integer": [2**31, -(2**31) - 1, 1.5, "1"],
    "double precision": ["NaN", "Infinity", "1e999", 10**400],
    "uuid": ["76543217", 1],
    "timestamp with time zone": ["294277-01-01T00:00:00Z", "0000-01-01T00:00:00Z", "infinity", 0],
}
HOSTILE: list[Any] = [
    *(None, True, 0, -1, 1.5, 1e308, -1e-320, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 10**30, 10**400),
    *(json.loads("1e999"), "NaN", "-Infinity", "1e999", "91", "-90", "180", "181", " 1 ", "-0"),
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "\ud800",
        "x\udfff",
        "\\N",
        "\\.",
        "\\",
        "\t\n\r",
        "'\"\\\\'",
        "\u200c",
        "\uffff",
        "😀",
    ),
    *("x" * 32_000, "x" * 32_001, "é" * 16_000, "é" * 16_001, "😀" * 8_000, "x" * 70_000, "x" * 1_100_000),
    *(
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "0050-12-31T00:00:00.0009Z",
    ),
    *(
        "9999-12-31T23:59:59.999999Z",
        "9999-12-31T23:59:59-00:01",
        "10000-01-01T00:00:00Z",
        "1950-02-30T00:00:00Z",
    ),
    *("2000-06-30T23:59:60Z", "2000-01-01T24:00:00Z", "infinity", "now", "1900-01-01T00:00:00+00:19:32"),
    *("00000000-0000-0000-0000-000000000000", "{76543217-0000-4000-8000-000000000000}", "76543217"),
    *([], {}, ["a"], {"a": "b"}, ["\0"], {"\0": 1}, {"a": "\ud800"}, [json.loads("-1e999")]),
    *(json.loads("[" * 33 + "]" * 33), json.loads('{"a":' * 900 + "1" + "}" * 900)),
]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if not isinstance(value, dict):
        yield path
        return
    for key, item in value.items():
        yield from leaves(item, (*path, key))


def person(path: str | tuple[str, ...] = (), value: Any = None) -> dict[str, Any]:
    """The person, with one value changed."""
    document = deepcopy(PERSON)
    *parents, last = path.split(".") if isinstance(path, str) else path or ("nat",)
    inner = document
    for key in parents:
        inner = inner[key]
    inner[last] = value if path else inner[last]
    return document


def parse(document: Any, position: int = 0) -> users.User:
    return users.parse(document, source="randomuser", seed="refusals-", page=3, position=position)


def test_what_the_mapping_lets_through_every_station_holds(connect) -> None:
    """Every hostile value in every field: refused by the mapping in words of ours, or kept by all."""
    taken = []
    for path in leaves(PERSON):
        for value in HOSTILE:
            try:
                taken.append(parse(person(path, value), len(taken)))
            except users.UserFormatError as error:
                # What is nested too deeply is named by its beginning.
                named = ".".join(key if MARK not in key else "(unknown)" for key in path[:2])
                assert f"page 3, position {len(taken)}: `{named}" in str(error), "refused by its field"
                assert not VALUES.search(str(error))
    assert 500 < len(taken) < len(HOSTILE) * len(list(leaves(PERSON))) - 500
    ingest = connect("ingest")
    assert store.store(ingest, taken) == store.Stored(len(taken), 0)
    assert store.store(ingest, taken) == store.Stored(0, len(taken))
    encode = encoding.encoder(users_created(), 1)
    for values in store.batch_events(ingest, str(taken[0].batch_id)):
        event = dict(zip(event_fields(), values, strict=True))
        assert len(encode(event)) < 1_000_000, "more than a message of Kafka"
        assert 0 < len(event["country"].encode()) < 65_000, "no key of Cassandra"
        assert len(event["gender"].encode()) < 65_000, "no key of Cassandra"


def test_the_largest_person_fits_a_message() -> None:
    document = deepcopy(PERSON)
    for path in PATHS.values():
        *parents, last = path.split(".")
        inner = document
        for key in parents:
            inner = inner[key]
        if isinstance(inner[last], str) and MARK in inner[last]:
            inner[last] = "x" * users.LONGEST_TEXT
    values = parse(document)._asdict() | {"created_at": parse(document).registered_at}
    size = len(encoding.encoder(users_created(), 1)({name: values[name] for name in event_fields()}))
    assert 500_000 < size < 1_000_000


@pytest.fixture
def catalogue(connect) -> Callable[[str], list[tuple[Any, ...]]]:
    def select(query: str) -> list[tuple[Any, ...]]:
        with connect("millrace") as owner, owner.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    return select


def test_every_constraint_of_the_table_is_one_of_the_mapping(catalogue) -> None:
    """A new constraint comes with what refuses its field first, and stands here."""
    found = catalogue("SELECT conname FROM pg_constraint WHERE conrelid = 'millrace.users'::regclass")
    found += catalogue(
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'millrace.users'::regclass "
        "AND indisunique AND NOT indisprimary"
    )
    found += catalogue(
        "SELECT tgname FROM pg_trigger WHERE tgrelid = 'millrace.users'::regclass AND NOT tgisinternal"
    )
    assert {name for (name,) in found} == set(BREAKS)
    for broken in filter(None, BREAKS.values()):
        with pytest.raises(users.UserFormatError, match=f"`{re.escape(broken[0])}` must be"):
            parse(person(*broken))


def test_every_column_refuses_what_its_type_does_not_hold(catalogue) -> None:
    columns = {
        name: (kind, required)
        for name, kind, required in catalogue(
            "SELECT attname, format_type(atttypid, atttypmod), attnotnull FROM pg_attribute "
            "WHERE attrelid = 'millrace.users'::regclass AND attnum > 0 AND NOT attisdropped"
        )
    }
    assert set(columns) == set(PATHS) | OWN
    for column, path in PATHS.items():
        kind, required = columns[column]
        beyond = [value for value in BEYOND[kind] if (column, type(value)) != ("postcode", int)]
        for value in [*beyond, None] if required else beyond:
            with pytest.raises(users.UserFormatError, match=f"page 3, position 0: `{re.escape(path)}"):
                parse(person(path, value))


@pytest.fixture
def ingest_file(as_role, source_url, tmp_path, monkeypatch) -> Path:
    """The connections of the ingest; Kafka is not asked."""
    server = as_role("ingest")
    sections = {
        "postgresql": {"host": server.host, "dbname": server.dbname, "user": server.user},
        "source": {"url": source_url, "name": "randomuser"},
    }
    monkeypatch.setattr(flow, "_dead_letters_end", lambda _: None)
    path = tmp_path / "ingest.json"
    path.write_text(json.dumps(sections))
    return path


@pytest.fixture
def told(
    ingest_file, source_server, monkeypatch, caplog, capfd
) -> Callable[[dict[str, Any]], tuple[int, str]]:
    """Store a batch whose second user is this one; return the exit code and all that anybody was told of it."""
    log = Path(connections.load(ingest_file).postgresql.host) / "log"

    def store_batch(document: dict[str, Any]) -> tuple[int, str]:
        monkeypatch.setattr(source_server.people, "page", lambda *_: [PERSON, document])
        caplog.clear()
        before = log.stat().st_size
        with caplog.at_level(logging.DEBUG):
            arguments = ["--connections", str(ingest_file), "batch", "store", "--run-id", "x", "--count", "2"]
            result = CliRunner().invoke(main, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), "no traceback"
        with log.open() as lines:
            lines.seek(before)
            journal = lines.read()
        out, err = capfd.readouterr()
        return result.exit_code, f"{result.output}\n{caplog.text}\n{journal}\n{out}\n{err}"

    return store_batch


def stored(connect) -> int:
    with connect("audit") as session, session.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM millrace.users")
        return cursor.fetchone()[0]


@pytest.mark.parametrize("path", [".".join(path) for path in leaves(PERSON) if MARK not in path[0]])
def test_a_fault_in_any_field_is_told_by_its_place_and_quotes_nothing(told, connect, path: str) -> None:
    code, text = told(person(path, f"{MARK}\0"))
    if path == "login.password":
        assert (code, stored(connect)) == (0, 2), "a secret is dropped, whatever it is"
    else:
        assert code == 1
        assert f"page 1, position 1: `{path}` holds" in text
        assert stored(connect) == 0
    assert not VALUES.search(text)


LATER = {
    "a check": ("ADD CONSTRAINT later CHECK (position = 0)", r"page 1, position 1: .*CheckViolation.*later"),
    "a unique index": (
        "ADD CONSTRAINT later UNIQUE (email)",
        r"PostgreSQL refuses a user: UniqueViolation.*later",
    ),
    "a type": (
        "ALTER phone TYPE varchar(3)",
        r"page 1, position 0: .*StringDataRightTruncation.*column phone",
    ),
    "a missing value": ("ADD later text NOT NULL", r"page 1, position 0: .*NotNullViolation.*later"),
}


@pytest.mark.parametrize("name", LATER)
def test_what_only_the_database_refuses_is_told_without_the_row(told, connect, name: str) -> None:
    """As it would be with a constraint that the mapping does not know yet."""
    change, expected = LATER[name]
    owner = connect("millrace")
    with owner.cursor() as cursor:
        cursor.execute(f"ALTER TABLE millrace.users {change}")
    owner.commit()
    try:
        code, text = told(person())
    finally:
        with owner.cursor() as cursor:
            cursor.execute(
                "ALTER TABLE millrace.users DROP CONSTRAINT IF EXISTS later, DROP COLUMN IF EXISTS later"
            )
            cursor.execute("ALTER TABLE millrace.users ALTER phone TYPE text")
        owner.commit()
    assert code == 1
    assert re.search(expected, text)
    assert "ERROR:" in text, "the server's log is among what was looked at"
    assert not VALUES.search(text)
    assert stored(connect) == 0


def test_an_outage_in_the_middle_is_told_in_a_line(told, connect, monkeypatch) -> None:
    administrator = connect("postgres")
    administrator.autocommit = True

    def cut_off(cursor: Any, batch: Any) -> None:
        with administrator.cursor() as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'flow'"
            )
        cursor.execute("SELECT %s", (batch[0].email,))

    monkeypatch.setattr(store, "_store", cut_off)
    code, text = told(person())
    assert code == 1
    assert re.search(r"Error: PostgreSQL at .*terminat", text)
    assert not VALUES.search(text)


@pytest.mark.parametrize(
    "answer",
    [
        f'{{"results": [{{"name": "{MARK}"}}',
        f'{{"error": {{"name": "{MARK}"}}}}',
        f'{{"error": "{MARK}", "results": []}}',
        f'{{"results": [{{"{MARK}": "{MARK}"}}], "info": {{"seed": "{MARK}", "page": 1}}}}',
        "[" * 100_000,
    ],
)
@pytest.mark.parametrize(
    "framing",
    [
        "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
        "{}\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n{}\r\nConnection: close\r\n\r\n",
    ],
)
def test_an_answer_that_is_not_understood_is_not_quoted(impatient, caplog, answer: str, framing: str) -> None:
    def serve() -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            with accepted:
                accepted.recv(65_536)
                accepted.sendall(framing.format(answer).encode())

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        patience = source.Patience(deadline=0.1, first_wait=1)
        with caplog.at_level(logging.DEBUG), pytest.raises(source.SourceError) as failure:
            source.fetch(url, "randomuser", "s-", 1, patience=patience)
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert not VALUES.search(str(failure.value) + caplog.text)


def test_a_value_that_is_no_avro_is_not_quoted(connect, as_role, monkeypatch, caplog) -> None:
    """The relay's quarantine, its journal, and what waits for the user: the field alone."""
    narrow = deepcopy(users_created())
    for field in narrow["fields"]:
        if field["name"] == "id_value":
            field["type"] = ["null", "int"]

    class Producer:
        def partitions_for(self, _: str) -> set[int]:
            return {0}

        def flush(self, timeout: float) -> None:
            """Nothing was sent."""

        def close(self, timeout: float) -> None:
            """Do nothing."""

    monkeypatch.setattr(relay, "users_created", lambda: narrow)
    monkeypatch.setattr(relay.Relay, "_encoder", lambda _: encoding.encoder(narrow, 1))
    monkeypatch.setattr(relay.Relay, "_connect_kafka", lambda _: Producer())
    user = parse(person())
    store.store(connect("ingest"), [user])
    server = as_role("relay")
    sections = {
        "kafka": {"bootstrap_servers": [], "security_protocol": "PLAINTEXT"},
        "registry": {"url": ""},
        "postgresql": {"host": server.host, "dbname": server.dbname, "user": server.user},
    }
    with caplog.at_level(logging.DEBUG):
        instance = relay.Relay(connections.Connections(sections, "test"), batch_size=10)
        assert instance.publish_batch() == 1
        instance._disconnect()
    (error,) = store.quarantined(connect("ingest"), str(user.batch_id)).values()
    assert error == "ValueError in id_value"
    assert "ValueError in id_value" in caplog.text
    assert not VALUES.search(error + caplog.text)
