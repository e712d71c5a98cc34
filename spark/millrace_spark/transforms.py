"""Records of the topic -> users, dead letters, rows of each table. Pure functions of DataFrames.

Every expression stays in the JVM. What a record is worth is decided once, in `decode`; all others select.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from operator import or_
from typing import Any, Final

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro

from millrace_spark import schema as avro

# Confluent's wire format: a zero byte, the writer schema's id in 4 bytes (big endian), the Avro record.
MAGIC: Final = b"\x00"
HEADER_BYTES: Final = 5

# Texts that are part of a key. Cassandra refuses a key above 65,535 bytes, of which other parts and framing take a few, and
# one that is empty where it is a partition's whole key, as a country's is.
KEY_TEXTS: Final = ("country", "gender")
KEY_MAX_BYTES: Final = 65_000
_UUID: Final = r"\A[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\z"

WRITE_TIME: Final = "write_time"
# The first header of a record that was sent again on purpose, to bring back a row.
REPUBLISHED: Final = "republished"
_RECORD: Final = ("topic", "partition", "offset")
_SENT: Final = ("headers", "timestamp")


class Reason(StrEnum):
    """Why a record is a dead letter."""

    EMPTY = "empty"
    BAD_MAGIC = "bad_magic"
    UNKNOWN_SCHEMA_ID = "unknown_schema_id"
    UNDECODABLE = "undecodable"
    TRAILING_BYTES = "trailing_bytes"
    MISSING_FIELD = "missing_field"


@dataclass(frozen=True, slots=True)
class Event:
    """The event's schema (parsed Avro) and what the transforms derive from it."""

    schema: Mapping[str, Any]

    @property
    def fields(self) -> list[str]:
        """Names of the fields, in their one order."""
        return [field["name"] for field in self.schema["fields"]]


class Decoder:
    """Decodes each record by the writer schema that its id names.

    `writers`: schema id -> framed writer schema (`schema.writer`), None for a schema that is no Avro record. An id
    that is not in it counts as unknown. The expressions are made once and serve every batch: making them takes
    longer than decoding a small batch.
    """

    def __init__(self, event: Event, writers: Mapping[int, str | None]) -> None:
        payload = F.expr(f"substring(value, {HEADER_BYTES + 1})")
        self._framed = [
            *(F.col(name) for name in (*_RECORD, *_SENT, "value")),
            F.substring("value", 1, HEADER_BYTES).alias("header"),
            payload.alias("payload"),
            F.md5(payload).cast("binary").alias("mark"),
        ]
        self._decoded = [
            *(F.col(name) for name in (*_RECORD, *_SENT, "value", "header", "mark")),
            _user(event, writers).alias("user"),
        ]
        self._judged = [
            *(F.col(name) for name in (*_RECORD, *_SENT, "value", "header")),
            *(F.col(f"user.{name}").alias(name) for name in event.fields),
            _reason(event, writers).alias("reason"),
        ]
        bad = F.col("reason").isNotNull()
        self._kept = [
            *(F.col(name) for name in (*_RECORD, *event.fields, "reason")),
            F.when(bad, _schema_id()).alias("schema_id"),
            F.when(bad, F.col("value")).alias("value"),
            _write_time().alias(WRITE_TIME),
        ]

    def __call__(self, records: DataFrame) -> DataFrame:
        """Decode `records`: value (binary), topic, partition, offset, headers, timestamp (as of Kafka's source).

        Returns one row per record: topic, partition, offset; the event's fields; write_time (microseconds); and,
        null for a good record:
        `reason` (a Reason), `schema_id` (int, null if the record names none), `value` (the raw bytes).
        """
        return records.select(*self._framed).select(*self._decoded).select(*self._judged).select(*self._kept)


def tally(decoded: DataFrame) -> DataFrame:
    """Count a decoded batch by reason.

    Returns at most one row per reason (null: good records): reason, records, countries (of good records),
    schema_ids (of those whose id was not known).
    """
    good = F.col("reason").isNull()
    unknown = F.col("reason") == Reason.UNKNOWN_SCHEMA_ID.value
    return decoded.groupBy("reason").agg(
        F.count(F.lit(1)).alias("records"),
        F.collect_set(F.when(good, F.col("country"))).alias("countries"),
        F.collect_set(F.when(unknown, F.col("schema_id"))).alias("schema_ids"),
    )


def users_by_id(decoded: DataFrame, event: Event) -> DataFrame:
    """Select the rows of `users_by_id`: the event's fields, and the write time in microseconds."""
    return _good(decoded).select(*event.fields, WRITE_TIME)


def users_by_country(decoded: DataFrame, event: Event) -> DataFrame:
    """Select the rows of `users_by_country`: as by id, and the minute of `created_at`."""
    return _good(decoded).select(
        *event.fields, F.date_trunc("minute", F.col("created_at")).alias("minute"), WRITE_TIME
    )


def dead_letters(decoded: DataFrame, event: Event) -> DataFrame:
    """Select the dead letters as Kafka's sink takes them: key, value (raw bytes), headers."""
    key = F.concat_ws(":", "topic", F.col("partition").cast("string"), F.col("offset").cast("string"))
    schema_id = F.col("schema_id").cast("string")
    always = F.array(_header("reason", F.col("reason")), _header("error", error(event)))
    headers = F.when(schema_id.isNull(), always).otherwise(
        F.concat(always, F.array(_header("schema_id", schema_id)))
    )
    return decoded.where(F.col("reason").isNotNull()).select(
        key.cast("binary").alias("key"), "value", headers.alias("headers")
    )


def users_per_minute(rows: DataFrame) -> DataFrame:
    """Count the rows of `users_by_country` (country, minute, gender, ...) per country, minute and gender.

    Returns the cells of `users_per_minute`: country, day, minute, gender, users (long).
    """
    return (
        rows.groupBy("country", "minute", "gender")
        .agg(F.count(F.lit(1)).alias("users"))
        .select("country", F.to_date("minute").alias("day"), "minute", "gender", "users")
    )


def vanished_cells(existing: DataFrame, cells: DataFrame) -> DataFrame:
    """Select the keys of existing cells that the rows no longer give, with users = 0."""
    keys = ["country", "day", "minute", "gender"]
    return existing.join(cells, keys, "left_anti").select(*keys, F.lit(0).cast("long").alias("users"))


def _user(event: Event, writers: Mapping[int, str | None]) -> Column:
    """Decode `payload` by the writer schema of its header: one branch per schema id."""
    options = {
        "mode": "PERMISSIVE",
        "avroSchema": avro.reader(dict(event.schema)),
        # As in the data: without it a timestamp before 1900 counts as unreadable.
        "datetimeRebaseMode": "CORRECTED",
    }
    framed = F.concat("payload", "mark")
    # Without any schema the column still has its type.
    user = from_avro(F.lit(None).cast("binary"), options["avroSchema"], options)
    for schema_id, schema in writers.items():
        if schema is not None:
            user = F.when(
                F.col("header") == _header_of(schema_id), from_avro(framed, schema, options)
            ).otherwise(user)
    return user


def _reason(event: Event, writers: Mapping[int, str | None]) -> Column:
    mark = F.col(f"user.{avro.END_MARK}")
    known = reduce(or_, (F.col("header") == _header_of(i) for i in writers), F.lit(False))
    missing = reduce(
        or_, (F.col(f"user.{name}").isNull() for name in avro.required_fields(dict(event.schema)))
    )
    unfit = reduce(or_, (condition for _, condition in _unfit(event, "user.")))
    return (
        F.when(F.coalesce(F.length("value"), F.lit(0)) == 0, Reason.EMPTY.value)
        .when(F.substring("value", 1, 1) != F.lit(bytearray(MAGIC)), Reason.BAD_MAGIC.value)
        .when(F.length("value") < HEADER_BYTES, Reason.UNDECODABLE.value)
        .when(~known, Reason.UNKNOWN_SCHEMA_ID.value)
        .when(mark.isNull(), Reason.UNDECODABLE.value)
        .when(mark != F.col("mark"), Reason.TRAILING_BYTES.value)
        .when(missing, Reason.MISSING_FIELD.value)
        .when(unfit, Reason.UNDECODABLE.value)
    )


def _unfit(event: Event, prefix: str = "") -> Sequence[tuple[str, Column]]:
    """Conditions under which a decoded value fits no column: (what is wrong, condition).

    `prefix` leads to the event's fields. Without the conditions one such record would make the tables refuse its whole batch, again and again.
    """
    schema = dict(event.schema)
    texts = [F.col(prefix + name) for name in avro.text_fields(schema)]
    # One pass over all texts. The separator is ASCII, so halves of two texts can't join to a valid whole.
    joined = F.concat_ws("|", *texts)
    return [
        *(
            (f"{name} is not a UUID", ~F.col(prefix + name).rlike(_UUID))
            for name in avro.logical_fields(schema, "uuid")
        ),
        *(
            (
                f"{name} is outside the years 1 to 9999",
                ~F.col(prefix + name).between(
                    F.timestamp_micros(F.lit(_YEAR_1)), F.timestamp_micros(F.lit(_YEAR_10000 - 1))
                ),
            )
            for name in avro.logical_fields(schema, "timestamp-millis")
        ),
        (
            "a text is not UTF-8",
            F.encode(F.decode(joined.cast("binary"), "UTF-8"), "UTF-8") != joined.cast("binary"),
        ),
        ("country is empty", F.col(prefix + "country") == ""),
        *(
            (f"{name} is longer than {KEY_MAX_BYTES} bytes", F.octet_length(prefix + name) > KEY_MAX_BYTES)
            for name in KEY_TEXTS
        ),
    ]


# Microseconds since 1970-01-01 UTC, proleptic Gregorian.
_YEAR_1: Final = -62_135_596_800_000_000
_YEAR_10000: Final = 253_402_300_800_000_000


def error(event: Event) -> Column:
    """Say what is wrong with a dead letter, from what `Decoder` keeps of it."""
    size = F.coalesce(F.length("value"), F.lit(0)).cast("string")
    required = avro.required_fields(dict(event.schema))
    missing = F.concat_ws(", ", *(F.when(F.col(name).isNull(), F.lit(name)) for name in required))
    unfit = F.coalesce(*(F.when(condition, F.lit(text)) for text, condition in _unfit(event)))
    schema_id = F.col("schema_id").cast("string")
    texts = {
        Reason.EMPTY: F.lit("the record has no value"),
        Reason.BAD_MAGIC: F.concat(
            F.lit("the first byte is 0x"), F.hex(F.substring("value", 1, 1)), F.lit(", not 0x00")
        ),
        Reason.UNKNOWN_SCHEMA_ID: F.concat(F.lit("the registry has no schema with id "), schema_id),
        Reason.TRAILING_BYTES: F.concat(
            F.lit("bytes follow the record of schema id "),
            schema_id,
            F.lit(" within "),
            size,
            F.lit(" bytes"),
        ),
        Reason.MISSING_FIELD: F.concat(
            F.lit("required and null or absent: "), missing, F.lit("; schema id "), schema_id
        ),
    }
    undecodable = F.coalesce(
        unfit,
        F.concat(F.lit("the "), size, F.lit(" bytes are no user in Avro by schema id "), schema_id),
        F.concat(F.lit("the "), size, F.lit(f" bytes are less than the header of {HEADER_BYTES}")),
    )
    chosen = undecodable
    for reason, text in texts.items():
        chosen = F.when(F.col("reason") == reason.value, text).otherwise(chosen)
    return chosen


def _schema_id() -> Column:
    """Read the schema id (signed, as the wire format's 4 bytes) from the header; null if there is none."""
    unsigned = F.conv(F.hex(F.expr("substring(header, 2)")), 16, 10).cast("long")
    has_one = (F.length("header") == HEADER_BYTES) & (F.substring("header", 1, 1) == F.lit(bytearray(MAGIC)))
    return F.when(has_one, F.when(unsigned >= 2**31, unsigned - 2**32).otherwise(unsigned).cast("int"))


def _header_of(schema_id: int) -> Column:
    return F.lit(bytearray(MAGIC + schema_id.to_bytes(4, "big")))


def _header(name: str, value: Column) -> Column:
    return F.struct(F.lit(name).alias("key"), value.cast("binary").alias("value"))


def _good(decoded: DataFrame) -> DataFrame:
    return decoded.where(F.col("reason").isNull())


def _write_time() -> Column:
    """Give the time under which the tables keep the row, in microseconds: that of `created_at`.

    So an event that comes twice writes the same cells, and does not undo a deletion. Under that time a row that was
    deleted could never come back either, as its deletion is younger: an event that is sent again on purpose says so
    in its first header, and is kept under the time at which it was sent.
    """
    created = F.unix_micros("created_at")
    return F.when(
        F.col("headers")[0]["key"] == REPUBLISHED, F.greatest(created, F.unix_micros("timestamp"))
    ).otherwise(created)
