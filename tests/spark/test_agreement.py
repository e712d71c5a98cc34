"""One list of fields: Avro, Spark's select, CQL's columns, PostgreSQL's columns."""

import re
from pathlib import Path

import pytest
from millrace_spark import schema as avro
from millrace_spark import transforms
from millrace_spark.transforms import Event
from pyspark.sql import SparkSession
from records import message, records, user

from millrace import schemas

MIGRATIONS = Path(schemas.__file__).parent.parent / "migrations"
SPARK_TO_CQL = {
    "string": "text",
    "int": "int",
    "double": "double",
    "timestamp": "timestamp",
    "bigint": "bigint",
}
CQL_TO_SPARK = {"text": "string", "uuid": "string"}


def cql_columns(table: str) -> dict[str, str]:
    """Columns of a table, in the order of its CREATE TABLE (and of ALTER TABLE ... ADD after it)."""
    columns: dict[str, str] = {}
    for file in sorted((MIGRATIONS / "cassandra").glob("*.cql")):
        text = re.sub(r"--.*", "", file.read_text(encoding="utf-8"))
        for body in re.findall(rf"CREATE TABLE IF NOT EXISTS {table} \((.*?)PRIMARY KEY", text, re.DOTALL):
            columns |= dict(line.strip().rstrip(",").split() for line in body.splitlines() if line.strip())
        for name, type_ in re.findall(rf"ALTER TABLE {table} ADD (?:IF NOT EXISTS )?(\w+) (\w+)", text):
            columns[name] = type_
    assert columns, f"no CREATE TABLE {table}"
    return columns


@pytest.mark.parametrize(
    ("table", "select", "extra"),
    [
        ("users_by_id", transforms.users_by_id, []),
        ("users_by_country", transforms.users_by_country, ["minute"]),
    ],
)
def test_select_fits_table(spark: SparkSession, event: Event, table: str, select, extra: list[str]) -> None:
    writers = {1: avro.writer(schemas.users_created_text())}
    rows = select(transforms.Decoder(event, writers)(records(spark, message(user()))), event)
    selected = {name: type_ for name, type_ in rows.dtypes if name != transforms.WRITE_TIME}
    columns = cql_columns(table)
    assert list(selected) == [*event.fields, *extra] == list(columns)
    assert selected == {name: CQL_TO_SPARK.get(type_, type_) for name, type_ in columns.items()}
    uuids = set(avro.logical_fields(schemas.users_created(), "uuid"))
    assert {name for name, type_ in columns.items() if type_ == "uuid"} == uuids


def test_cells_fit_table(spark: SparkSession, event: Event) -> None:
    rows = spark.createDataFrame([], "country string, minute timestamp, gender string")
    cells = transforms.users_per_minute(rows)
    assert dict(cells.dtypes) == {
        name: CQL_TO_SPARK.get(type_, type_) for name, type_ in cql_columns("users_per_minute").items()
    }


def test_fields_fit_postgresql(event: Event) -> None:
    files = sorted((MIGRATIONS / "postgresql").glob("*.sql"))
    if not files:
        pytest.skip("no PostgreSQL migrations yet")
    text = re.sub(r"--.*", "", "\n".join(file.read_text(encoding="utf-8") for file in files))
    (body,) = re.findall(
        r"CREATE TABLE (?:IF NOT EXISTS )?(?:millrace\.)?users\s*\((.*?)\n\);", text, re.DOTALL
    )
    columns = [line.split()[0] for line in body.splitlines() if line.strip()]
    positions = [columns.index(name) for name in event.fields]
    assert positions == sorted(positions), "the same fields in another order"


def test_event_lists_agree(event: Event) -> None:
    assert tuple(event.fields) == schemas.event_fields()
    assert avro.required_fields(schemas.users_created()) == [
        name for name in event.fields if name != "id_value"
    ]
