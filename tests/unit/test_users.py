"""The mapping from the API's document, with hostile values; and that they survive Avro byte for byte."""

import io
import json
import math
from datetime import UTC, datetime, timedelta

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millrace import encoding, events, identity, users
from millrace.schemas import event_fields, timestamp_fields, users_created
from millrace.users import User, UserFormatError

# Whatever JSON can carry and a database can hold, the unpleasant ones often.
texts = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    st.sampled_from(
        [
            "O'Neil",
            " edge ",
            "e\u0301",
            "\u200c",
            '"',
            "\\N",
            "\t\n\r",
            "",
            "\u0645\u062d\u0645\u062f\u200c\u0631\u0636\u0627",
            "😀",
            "\u202e",
        ]
    ),
)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1)).map(
    lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
)
ages = st.integers(0, 130)


def dates() -> st.SearchStrategy:
    return st.fixed_dictionaries({"date": moments, "age": ages})


documents = st.fixed_dictionaries(
    {
        "gender": texts,
        "name": st.fixed_dictionaries({"title": texts, "first": texts, "last": texts}),
        "location": st.fixed_dictionaries(
            {
                "street": st.fixed_dictionaries({"number": st.integers(-(2**31), 2**31 - 1), "name": texts}),
                "city": texts,
                "state": texts,
                "country": texts.filter(bool),
                "postcode": st.one_of(st.integers(0, 10**9), texts, st.just("0042")),
                "coordinates": st.fixed_dictionaries(
                    {
                        "latitude": st.floats(-90, 90).map(str),
                        "longitude": st.floats(-180, 180).map(str),
                    }
                ),
                "timezone": st.fixed_dictionaries({"offset": texts, "description": texts}),
            }
        ),
        "email": texts,
        "login": st.fixed_dictionaries(
            {
                "uuid": st.uuids().map(str),
                "username": texts,
                **{name: st.just("hunter2-secret") for name in ("password", "salt", "md5", "sha1", "sha256")},
            }
        ),
        "dob": dates(),
        "registered": dates(),
        "phone": texts,
        "cell": texts,
        "id": st.fixed_dictionaries({"name": texts, "value": st.one_of(st.none(), texts)}),
        "picture": st.fixed_dictionaries({"large": texts, "medium": texts, "thumbnail": texts}),
        "nat": texts,
    }
)


def parse(document: object) -> User:
    return users.parse(document, source="randomuser", seed="s-", page=2, position=7)


@given(documents)
def test_every_text_is_kept_and_no_secret_is(document: dict) -> None:
    user = parse(document)
    assert "hunter2-secret" not in json.dumps(user, default=str)
    assert "password" in document["login"], "the caller's document is left alone"
    assert user.received == {
        **document,
        "login": {key: document["login"][key] for key in ("uuid", "username")},
    }
    location = document["location"]
    assert (user.first_name, user.last_name, user.title) == tuple(
        document["name"][k] for k in ("first", "last", "title")
    )
    assert (user.street_number, user.street_name) == (
        location["street"]["number"],
        location["street"]["name"],
    )
    assert user.postcode == str(location["postcode"])
    assert user.latitude == float(location["coordinates"]["latitude"])
    assert user.id_value == document["id"]["value"]
    assert f"{user.date_of_birth:%Y-%m-%dT%H:%M:%S}" in document["dob"]["date"]
    assert user.date_of_birth.microsecond % 1000 == 0
    assert (user.user_id, user.batch_id) == (
        identity.user_id("randomuser", "s-", 2, 7),
        identity.batch_id("randomuser", "s-"),
    )


@given(documents)
def test_an_event_survives_the_wire_value_for_value(document: dict) -> None:
    values = parse(document)._asdict() | {"created_at": datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC)}
    event = events.normal(values[name] for name in event_fields())
    message = encoding.encoder(users_created(), 7)(dict(zip(event_fields(), event, strict=True)))
    schema_id, body = encoding.split(message)
    decoded = encoding.decode(body, users_created(), users_created())
    assert schema_id == 7
    assert events.differing_fields(event, events.normal(decoded[name] for name in event_fields())) == []


@given(documents, st.binary(min_size=1, max_size=5))
def test_bytes_after_an_event_are_refused(document: dict, rest: bytes) -> None:
    values = parse(document)._asdict() | {"created_at": datetime.now(UTC)}
    message = encoding.encoder(users_created(), 1)({name: values[name] for name in event_fields()})
    with pytest.raises(ValueError, match="follow the event"):
        encoding.decode(message[5:] + rest, users_created(), users_created())


OTHERS = [
    {"type": "string"},
    {"type": "enum", "name": "Colour", "symbols": ["RED"]},
    {"type": "record", "name": "Other", "fields": [{"name": "a", "type": "string"}]},
    {"type": "nothing of Avro"},
]


@pytest.mark.parametrize("writer", OTHERS, ids=lambda schema: schema["type"])
@given(body=st.binary(max_size=40))
def test_what_another_producer_wrote_is_no_event(writer: dict, body: bytes) -> None:
    """Whatever its schema: one error, which quotes none of it."""
    for schema in (writer, users_created()):
        with pytest.raises(encoding.WireFormatError) as told:
            encoding.decode(body, schema, users_created())
        assert told.value.__cause__ is None
        assert told.value.__suppress_context__ or told.value.__context__ is None


def without(path: str):
    def remove(document: dict) -> None:
        *parents, last = path.split(".")
        for key in parents:
            document = document[key]
        del document[last]

    return remove


def changed(path: str, value: object):
    def change(document: dict) -> None:
        *parents, last = path.split(".")
        for key in parents:
            document = document[key]
        document[last] = value

    return change


@pytest.fixture
def document() -> dict:
    return json.loads(
        """{"gender": "female", "name": {"title": "Ms", "first": "A", "last": "B"},
        "location": {"street": {"number": 1, "name": "S"}, "city": "C", "state": "T", "country": "N", "postcode": 1,
        "coordinates": {"latitude": "1.5", "longitude": "-2.5"}, "timezone": {"offset": "0:00", "description": "D"}},
        "email": "e", "login": {"uuid": "02c169b1-cf8b-43d5-9d30-6f4bb473a3fb", "username": "u", "password": "secret"},
        "dob": {"date": "1950-06-24T17:49:24.631Z", "age": 1}, "registered": {"date": "2007-12-17T16:25:02.786Z", "age": 1},
        "phone": "p", "cell": "c", "id": {"name": "", "value": null}, "picture": {"large": "l"}, "nat": "XX"}"""
    )


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (without("name.first"), r"`name\.first` is missing"),
        (without("location"), r"`location\.street\.number` is missing"),
        (without("login"), r"`login\.username` is missing"),
        (changed("name", "no object"), r"`name\.title` is missing"),
        (changed("name.last", None), r"`name\.last` must be text and is null"),
        (changed("location.street.number", "12"), r"`location\.street\.number` must be an integer"),
        (changed("location.street.number", True), r"`location\.street\.number` must be an integer"),
        (changed("location.street.number", 2**31), r"`location\.street\.number` must be an integer"),
        (changed("location.postcode", 1.5), r"`location\.postcode` must be text"),
        (changed("location.coordinates.latitude", "91"), r"latitude` must be a number within ±90"),
        (changed("location.coordinates.longitude", "nan"), r"longitude` must be a number"),
        (changed("location.coordinates.longitude", 10**400), r"longitude` must be a number"),
        (changed("location.coordinates.longitude", True), r"longitude` must be a number"),
        (changed("location.country", ""), r"`location\.country` must be text and is empty"),
        (changed("email", "é" * 16_001), r"`email` must be text of at most 32,000 bytes"),
        (changed("login.uuid", "no"), r"`login\.uuid` must be a UUID"),
        (changed("dob.date", "1950-13-01T00:00:00Z"), r"`dob\.date` must be a timestamp"),
        (changed("dob.date", "1950-01-01T00:00:00"), r"`dob\.date` must be a timestamp with a zone"),
        (changed("dob.date", "0001-01-01T00:00:00+01:00"), r"`dob\.date` must be a timestamp"),
        (changed("name.first", "a\0b"), r"`name\.first` holds a character"),
        (changed("picture.thumbnail", "\ud800"), r"`picture\.thumbnail` holds a character"),
        (changed("dob.age", math.inf), r"`dob\.age` holds a number beyond"),
        (
            changed("id.secret", [{"secret": "\0"}]),
            r"`id\.\(unknown\)\.\(item\)\.\(unknown\)` holds a character",
        ),
        (
            changed("id.secret", json.loads("[" * 500 + "]" * 500)),
            r"`id\.\(unknown\)` holds more than 32 levels",
        ),
    ],
)
def test_a_wrong_document_is_refused_by_name(document: dict, damage, named: str) -> None:
    damage(document)
    with pytest.raises(UserFormatError, match=named) as refused:
        parse(document)
    assert "page 2, position 7" in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("document", [None, [], "text", 7])
def test_what_is_no_object_is_refused(document: object) -> None:
    with pytest.raises(UserFormatError):
        parse(document)


def test_ids_stay_what_they_are() -> None:
    """Every known user would be unknown if these changed."""
    assert str(identity.batch_id("randomuser", "abc-")) == "b1dd4c23-a2ee-56ed-8930-fda985371803"
    assert str(identity.user_id("randomuser", "abc-", 1, 0)) == "e4c83d25-8363-5b51-b2bb-4ccaaadfa387"


def test_the_schema_fits_the_user() -> None:
    assert set(event_fields()) <= set(User._fields) | {"created_at"}
    assert [name for name in User._fields if name in event_fields()] == [
        name for name in event_fields() if name != "created_at"
    ]
    assert timestamp_fields() == {"created_at", "date_of_birth", "registered_at"}
    nullable = [field["name"] for field in users_created()["fields"] if isinstance(field["type"], list)]
    assert nullable == ["id_value"]
    fastavro.parse_schema(dict(users_created()))


def test_moments_are_exact_before_and_after_1970() -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for value in (-1, 0, 1, -801_234_567_891, 1_700_000_000_123):
        moment = epoch + timedelta(milliseconds=value)
        assert events.milliseconds(moment) == value
        assert events.milliseconds(moment.replace(tzinfo=None)) == value
    assert events.minute(-1) == epoch - timedelta(minutes=1)


def test_a_schema_with_a_new_field_is_read_by_its_writer() -> None:
    """What a message of a newer version is to a reader of this one."""
    newer = {
        **users_created(),
        "fields": [{"name": "nickname", "type": "string", "default": ""}, *users_created()["fields"]],
    }
    event = dict.fromkeys(event_fields(), "x") | {
        "nickname": "first in the record",
        "street_number": 1,
        "latitude": 1.0,
        "longitude": 2.0,
        **dict.fromkeys(timestamp_fields(), 1),
        **dict.fromkeys(("user_id", "batch_id", "login_uuid"), "02c169b1-cf8b-43d5-9d30-6f4bb473a3fb"),
    }
    buffer = io.BytesIO()
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(newer), event)
    decoded = encoding.decode(buffer.getvalue(), newer, users_created())
    assert decoded["city"] == "x"
    assert "nickname" not in decoded


@pytest.mark.parametrize(
    ("key", "murmur"),
    # Kafka's own test vectors of its murmur2 (org.apache.kafka.common.utils.UtilsTest).
    [(b"21", -973932308), (b"foobar", -790332482), (b"a-little-bit-long-string", -985981536)],
)
def test_the_partition_is_the_one_of_kafkas_default_partitioner(key: bytes, murmur: int) -> None:
    for partitions in (1, 6, 50, 2**31 - 1):
        assert encoding.partition(key, partitions) == (murmur & 0x7FFFFFFF) % partitions


@pytest.mark.parametrize("message", [b"", b"\0\0\0\0", b"\1\0\0\0\7x"])
def test_what_is_not_in_the_wire_format_is_refused(message: bytes) -> None:
    with pytest.raises(encoding.WireFormatError):
        encoding.split(message)
