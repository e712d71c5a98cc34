"""What becomes of a record: a user with the right values, or a dead letter with the right reason."""

import json

import pytest
from millrace_spark import schema as avro
from millrace_spark import transforms
from millrace_spark.transforms import Event
from pyspark.sql import Row, SparkSession
from records import SENT, framed, message, millis, payload, records, schema_with, user

from millrace import schemas

CURRENT = {1: avro.writer(schemas.users_created_text())}


def decode(
    spark: SparkSession, event: Event, *values: bytes | None, writers: dict | None = None
) -> list[Row]:
    """Decode the values as one batch; timestamps come back as milliseconds, beyond Python's calendar too."""
    decoder = transforms.Decoder(event, CURRENT if writers is None else writers)
    decoded = decoder(records(spark, *values)).select("*", transforms.error(event).alias("error"))
    columns = [
        f"unix_millis({name}) as {name}" if kind == "timestamp" else name for name, kind in decoded.dtypes
    ]
    return decoded.orderBy("offset").selectExpr(*columns).collect()


def values_of(row: Row, event: Event) -> dict[str, object]:
    return {name: row[name] for name in event.fields}


def test_every_value_arrives_as_written(spark: SparkSession, event: Event) -> None:
    users = [
        user(1),
        user(2, id_value="' OR 1=1 --", first_name="", country="Türkiye", postcode="SW1A 1AA"),
        user(3, date_of_birth=-(10**12), registered_at=0, street_number=-(2**31), latitude=1e-300),
        # Before the Gregorian calendar, and before time zones had whole minutes.
        user(4, date_of_birth=-14_000_000_000_000, registered_at=-4_000_000_000_000),
    ]
    rows = decode(spark, event, *(message(values) for values in users))
    assert [row.reason for row in rows] == [None] * 4
    assert [values_of(row, event) for row in rows] == users


def test_good_record_carries_nothing_of_a_dead_letter(spark: SparkSession, event: Event) -> None:
    (row,) = decode(spark, event, message(user()))
    assert (row.reason, row.schema_id, row.value) == (None, None, None)
    assert (row.topic, row.partition, row.offset) == ("users_created", 3, 0)


GOOD = payload(user())
HUGE_LENGTH = b"\xfe\xff\xff\xff\x0f"  # a text of 2 GiB - 1, says its length

DEAD_LETTERS = {
    "tombstone": (None, "empty", None, "no value"),
    "no bytes": (b"", "empty", None, "no value"),
    "json": (b'{"user_id": 1}', "bad_magic", None, "0x7B"),
    "one wrong byte": (b"\x01" + framed(GOOD)[1:], "bad_magic", None, "0x01"),
    "magic alone": (b"\x00", "undecodable", None, "header"),
    "cut in the id": (b"\x00\x00\x00\x01", "undecodable", None, "header"),
    "unknown id": (framed(GOOD, 99), "unknown_schema_id", 99, "id 99"),
    "negative id": (framed(GOOD, -2), "unknown_schema_id", -2, "id -2"),
    "id alone": (framed(b""), "undecodable", 1, "schema id 1"),
    "garbage": (framed(b"\xff" * 40), "undecodable", 1, "schema id 1"),
    "huge length": (framed(HUGE_LENGTH + b"x" * 100), "undecodable", 1, "schema id 1"),
    "negative length": (framed(b"\x01" + b"x" * 100), "undecodable", 1, "schema id 1"),
    "last byte cut": (framed(GOOD[:-1]), "undecodable", 1, "schema id 1"),
    "half": (framed(GOOD[: len(GOOD) // 2]), "undecodable", 1, "schema id 1"),
    "one byte more": (framed(GOOD + b"\x00"), "trailing_bytes", 1, "schema id 1"),
    "32 bytes more": (framed(GOOD + b"0123456789abcdef0123456789abcdef"), "trailing_bytes", 1, "schema id 1"),
    "twice": (framed(GOOD + GOOD), "trailing_bytes", 1, "schema id 1"),
    "not a uuid": (message(user(user_id="me")), "undecodable", 1, "user_id is not a UUID"),
    "uuid and newline": (
        message(user(login_uuid=user()["login_uuid"] + "\n")),
        "undecodable",
        1,
        "login_uuid",
    ),
    "year 10000": (message(user(created_at=253_402_300_800_000)), "undecodable", 1, "created_at is outside"),
    "no such time": (message(user(date_of_birth=2**63 - 1)), "undecodable", 1, "schema id 1"),
    "not utf-8": (
        framed(payload(user(city="Oslo#")).replace(b"Oslo#", b"Oslo\xc3")),
        "undecodable",
        1,
        "not UTF-8",
    ),
    "key too long": (message(user(country="x" * 65_536)), "undecodable", 1, "country is longer"),
    "rollup's key too long": (message(user(gender="x" * 65_536)), "undecodable", 1, "gender is longer"),
    "no key": (message(user(country="")), "undecodable", 1, "country is empty"),
}


@pytest.fixture(scope="module")
def dead(spark: SparkSession) -> dict[str, Row]:
    """All of them in one batch, each between two good records."""
    event = Event(schemas.users_created())
    values = [value for bad, *_ in DEAD_LETTERS.values() for value in (message(user()), bad)]
    rows = decode(spark, event, *values, message(user()))
    assert all(row.reason is None for row in rows[::2]), "a good record suffered from its neighbour"
    return dict(zip(DEAD_LETTERS, rows[1::2], strict=True))


@pytest.mark.parametrize("name", DEAD_LETTERS)
def test_dead_letter(dead: dict[str, Row], name: str) -> None:
    value, reason, schema_id, text = DEAD_LETTERS[name]
    row = dead[name]
    assert (row.reason, row.schema_id) == (reason, schema_id)
    assert text in row.error
    assert (bytes(row.value) if row.value is not None else None) == value


@pytest.mark.parametrize("name", [field["name"] for field in schemas.users_created()["fields"]])
def test_null_is_missing_unless_allowed(spark: SparkSession, event: Event, name: str) -> None:
    (field,) = [field for field in schemas.users_created()["fields"] if field["name"] == name]
    branch = field["type"] if not isinstance(field["type"], list) else "string"
    loose = schema_with(types={name: ["null", branch]})
    (row,) = decode(
        spark, event, message(user(**{name: None}), loose, 5), writers={5: avro.writer(json.dumps(loose))}
    )
    if name == "id_value":
        assert row.reason is None
    else:
        assert row.reason == "missing_field"
        assert f"absent: {name};" in row.error


def test_writer_without_a_required_field(spark: SparkSession, event: Event) -> None:
    old = schema_with(without=("email", "phone"))
    values = {key: value for key, value in user().items() if key not in ("email", "phone")}
    (row,) = decode(spark, event, message(values, old, 4), writers={4: avro.writer(json.dumps(old))})
    assert row.reason == "missing_field"
    assert "email, phone" in row.error


def test_newer_writer_with_added_field_and_another_order(spark: SparkSession, event: Event) -> None:
    newer = schema_with(added=[{"name": "nickname", "type": "string", "default": "none"}], reverse=True)
    values = user(9, id_value="x")
    writers = CURRENT | {2: avro.writer(json.dumps(newer))}
    rows = decode(
        spark,
        event,
        message(user(8)),
        message(values | {"nickname": "Z"}, newer, 2),
        message(user(10)),
        writers=writers,
    )
    assert [row.reason for row in rows] == [None] * 3
    assert [row.user_id for row in rows] == [user(n)["user_id"] for n in (8, 9, 10)]
    assert values_of(rows[1], event) == values


def test_older_writer_under_newer_reader(spark: SparkSession) -> None:
    newer = schema_with(
        added=[
            {"name": "nickname", "type": "string", "default": "none"},
            {"name": "height", "type": ["null", "double"], "default": None},
        ]
    )
    event = Event(newer)
    (row,) = decode(spark, event, message(user()))
    assert (row.reason, row.nickname, row.height, row.last_name) == (None, "none", None, user()["last_name"])


def test_trailing_bytes_are_seen_under_every_writer(spark: SparkSession, event: Event) -> None:
    # Under a longer schema than the reader's, bytes behind the reader's last field are no excess.
    newer = schema_with(
        added=[{"name": "notes", "type": {"type": "array", "items": "string"}, "default": []}]
    )
    good = payload(user() | {"notes": ["a", "b"]}, newer)
    rows = decode(
        spark, event, framed(good, 2), framed(good + b"\x00", 2), writers={2: avro.writer(json.dumps(newer))}
    )
    assert [row.reason for row in rows] == [None, "trailing_bytes"]


@pytest.mark.parametrize(
    "text", ["not json", '"string"', '{"type": "enum", "name": "E", "symbols": ["A"]}', "[]"]
)
def test_schema_that_is_no_record(spark: SparkSession, event: Event, text: str) -> None:
    assert avro.writer(text) is None
    (row,) = decode(spark, event, message(user(), schema_id=6), writers={6: None})
    assert (row.reason, row.schema_id) == ("undecodable", 6)


def test_record_of_another_subject(spark: SparkSession, event: Event) -> None:
    other = {"type": "record", "name": "Order", "fields": [{"name": "amount", "type": "int"}]}
    (row,) = decode(spark, event, framed(b"\x02", 6), writers={6: avro.writer(json.dumps(other))})
    assert row.reason in ("undecodable", "missing_field")


def test_no_schema_known_yet(spark: SparkSession, event: Event) -> None:
    rows = decode(spark, event, message(user()), b"x", None, writers={})
    assert [row.reason for row in rows] == ["unknown_schema_id", "bad_magic", "empty"]


def test_each_record_is_decoded_once(spark: SparkSession, event: Event) -> None:
    writers = dict.fromkeys((1, 2), CURRENT[1])
    decoded = transforms.Decoder(event, writers)(records(spark, message(user())))
    plan = decoded._jdf.queryExecution().executedPlan().toString()
    # One branch per writer, whatever the number of fields taken from it; no Python at all.
    assert plan.count("from_avro(concat") == 2
    assert "Python" not in plan


def test_tally(spark: SparkSession, event: Event) -> None:
    decoded = transforms.Decoder(event, CURRENT)(
        records(
            spark,
            message(user(1)),
            message(user(2, country="Iran")),
            message(user(3)),
            b"x",
            framed(b"", 70),
            framed(b"", 71),
        )
    )
    counts = {row.reason: row for row in transforms.tally(decoded).collect()}
    assert {reason: row.records for reason, row in counts.items()} == {
        None: 3,
        "bad_magic": 1,
        "unknown_schema_id": 2,
    }
    assert set(counts[None].countries) == {"Norway", "Iran"}
    assert set(counts["unknown_schema_id"].schema_ids) == {70, 71}
    assert not counts["bad_magic"].schema_ids


def test_dead_letters_as_kafka_takes_them(spark: SparkSession, event: Event) -> None:
    decoded = transforms.Decoder(event, CURRENT)(
        records(spark, message(user()), b"\x07", framed(GOOD + b"!", 1), None)
    )
    letters = [
        (
            bytes(row.key),
            row.value and bytes(row.value),
            {header.key: bytes(header.value) for header in row.headers},
        )
        for row in transforms.dead_letters(decoded, event).collect()
    ]
    assert [(key, value) for key, value, _ in letters] == [
        (b"users_created:3:1", b"\x07"),
        (b"users_created:3:2", framed(GOOD + b"!", 1)),
        (b"users_created:3:3", None),
    ]
    assert [headers["reason"] for *_, headers in letters] == [b"bad_magic", b"trailing_bytes", b"empty"]
    assert [headers.get("schema_id") for *_, headers in letters] == [None, b"1", None]
    assert all(headers["error"] for *_, headers in letters)


def test_rows_of_the_tables(spark: SparkSession, event: Event) -> None:
    moment = user()["created_at"]
    decoded = transforms.Decoder(event, CURRENT)(records(spark, message(user()), b"bad"))
    (by_id,) = transforms.users_by_id(decoded, event).collect()
    (by_country,) = (
        transforms.users_by_country(decoded, event).selectExpr("*", "unix_millis(minute) as m").collect()
    )
    assert by_id.write_time == by_country.write_time == moment * 1000
    assert by_country.m == moment - moment % 60_000


def test_minute_before_1970_is_the_minute_below(spark: SparkSession, event: Event) -> None:
    decoded = transforms.Decoder(event, CURRENT)(records(spark, message(user(created_at=-1))))
    (row,) = (
        transforms.users_by_country(decoded, event)
        .selectExpr("unix_millis(minute) as m", "write_time")
        .collect()
    )
    assert (row.m, row.write_time) == (-60_000, -1000)


@pytest.mark.parametrize(
    ("headers", "sent_time"),
    [
        (None, False),
        ([], False),
        ([("trace", b"republished")], False),
        ([("republished", b"")], True),
        ([("republished", b"1"), ("republished", b"2")], True),
    ],
)
def test_row_sent_again_on_purpose_is_younger_than_its_deletion(
    spark: SparkSession, event: Event, headers: list[tuple[str, bytes]] | None, sent_time: bool
) -> None:
    decoded = transforms.Decoder(event, CURRENT)(records(spark, message(user()), headers=headers))
    (row,) = transforms.users_by_id(decoded, event).collect()
    expected = millis(SENT) if sent_time else user()["created_at"]
    assert row.write_time == expected * 1000
