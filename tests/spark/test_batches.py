"""What a batch does with a registry that knows, denies, is down or comes late, and in which order it writes."""

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from millrace_spark import registry
from millrace_spark.batches import Batches, Sinks, StalledError
from millrace_spark.registry import StoppedError, WriterSchemas
from millrace_spark.transforms import Event
from pyspark.sql import DataFrame, SparkSession
from records import framed, message, payload, records, schema_with, user

from millrace import schemas
from millrace.connections import Registry

NEWER = schema_with(added=[{"name": "nickname", "type": "string", "default": "none"}], reverse=True)


class RegistryServer:
    """A registry on HTTP: what it answers to each id, and what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str]] = {
            "1": (200, json.dumps({"schema": schemas.users_created_text()}))
        }
        self.otherwise = (404, '{"error_code": 40403, "message": "Schema not found"}')
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                schema_id = self.path.removeprefix("/schemas/ids/")
                outer.asked.append(schema_id)
                status, body = outer.answers.get(schema_id, outer.otherwise)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    started = RegistryServer()
    yield started
    started.close()


class Written:
    """Sinks that keep what they are given, in the order in which they finish."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.rows: dict[str, list] = {}
        self.broken: str | None = None
        self.hangs: str | None = None
        self.released = threading.Event()

    def sinks(self) -> Sinks:
        return Sinks(
            *(self._sink(name) for name in ("users_by_id", "users_by_country", "countries", "dead_letters"))
        )

    def _sink(self, name: str) -> Callable[[DataFrame], None]:
        def write(rows: DataFrame) -> None:
            if self.broken == name:
                raise OSError(f"{name} is down")
            if self.hangs == name:
                self.released.wait(60)
            self.rows.setdefault(name, []).extend(rows.drop("date_of_birth").collect())
            self.order.append(name)

        return write


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def stop() -> threading.Event:
    return threading.Event()


@pytest.fixture
def batches(server: RegistryServer, written: Written, stop: threading.Event) -> Batches:
    fetch = registry.fetcher(Registry(url=server.url))
    return Batches(
        Event(schemas.users_created()), WriterSchemas(fetch, stop), written.sinks(), stop, write_again=0
    )


def ids(written: Written, table: str) -> list[str]:
    return sorted(row.user_id for row in written.rows.get(table, []))


def reasons(written: Written) -> list[bytes]:
    return [bytes(row.headers[0].value) for row in written.rows.get("dead_letters", [])]


def test_each_schema_is_fetched_once(
    spark, batches: Batches, server: RegistryServer, written: Written
) -> None:
    server.answers["2"] = (200, json.dumps({"schema": json.dumps(NEWER)}))
    batches(records(spark, message(user(1)), message(user(2) | {"nickname": "x"}, NEWER, 2)), 0)
    batches(records(spark, message(user(3)), message(user(4) | {"nickname": "y"}, NEWER, 2)), 1)
    assert server.asked == ["1", "2"]
    expected = [user(number)["user_id"] for number in (1, 2, 3, 4)]
    assert ids(written, "users_by_id") == ids(written, "users_by_country") == expected
    assert "dead_letters" not in written.rows


def test_denied_id_is_a_dead_letter_and_the_rest_arrives(
    spark, batches: Batches, server: RegistryServer, written: Written
) -> None:
    batches(records(spark, message(user(1)), framed(payload(user(2)), 77), framed(b"x", -1)), 0)
    assert ids(written, "users_by_id") == [user(1)["user_id"]]
    assert reasons(written) == [b"unknown_schema_id"] * 2
    assert server.asked == ["1", "77"]
    # Registered since: the next record that names it is good.
    server.answers["77"] = server.answers["1"]
    batches(records(spark, framed(payload(user(2)), 77)), 1)
    assert ids(written, "users_by_id") == [user(1)["user_id"], user(2)["user_id"]]


def test_schema_that_is_no_record(spark, batches: Batches, server: RegistryServer, written: Written) -> None:
    server.answers["9"] = (200, json.dumps({"schema": "message Proto {}", "schemaType": "PROTOBUF"}))
    batches(records(spark, message(user(1)), framed(b"x", 9)), 0)
    assert reasons(written) == [b"undecodable"]
    assert ids(written, "users_by_country") == [user(1)["user_id"]]


@pytest.mark.parametrize(
    "trouble",
    [
        (503, "down"),
        (404, "<html>no such page</html>"),
        (401, '{"error_code": 40101}'),
        (200, "<html>"),
        (500, "{}"),
    ],
    ids=str,
)
def test_batch_waits_for_a_registry_in_trouble(
    spark,
    batches: Batches,
    server: RegistryServer,
    written: Written,
    trouble: tuple[int, str],
    caplog,
    monkeypatch,
) -> None:
    monkeypatch.setattr(registry, "_FIRST_WAIT_SECONDS", 0.05)
    good = server.answers.pop("1")
    server.otherwise = trouble
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(batches, records(spark, message(user(1))), 0)
        deadline = time.monotonic() + 60
        while len(server.asked) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not batch.done()
        assert not written.order
        server.answers["1"] = good
        batch.result(60)
    assert ids(written, "users_by_id") == [user(1)["user_id"]]
    assert not reasons(written)
    assert any("waits for the schema registry" in record.message for record in caplog.records)


def test_nobody_listens_at_the_registry(stop: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_FIRST_WAIT_SECONDS", 0.05)
    writers = WriterSchemas(registry.fetcher(Registry(url="http://127.0.0.1:9")), stop)
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(StoppedError):
        writers.learn({1})
    assert writers.known == {}


def test_waits_grow_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0)
            return len(waits) == 8

    def unavailable(schema_id: int) -> str:
        raise registry.RegistryUnavailableError("down")

    with pytest.raises(StoppedError):
        WriterSchemas(unavailable, Stop()).learn({1})
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_country_is_listed_before_its_rows_and_once(spark, batches: Batches, written: Written) -> None:
    batches(records(spark, message(user(1)), message(user(2, country="Iran")), message(user(3))), 0)
    assert written.order[0] == "countries"
    batches(records(spark, message(user(4))), 1)
    assert sorted(row.country for row in written.rows["countries"]) == ["Iran", "Norway"]


def test_batch_of_dead_letters_alone(spark, batches: Batches, written: Written) -> None:
    batches(records(spark, b"x", None), 0)
    assert written.order == ["dead_letters"]


@pytest.mark.parametrize("table", ["users_by_id", "users_by_country", "countries", "dead_letters"])
def test_a_table_that_refuses_fails_the_batch(spark, batches: Batches, written: Written, table: str) -> None:
    written.broken = table
    batch = records(spark, message(user(1)), b"x")
    with pytest.raises(OSError, match=f"{table} is down"):
        batches(batch, 0)
    assert str(batches.failure) == f"{table} is down"
    written.broken = None
    batches(batch, 0)
    assert set(ids(written, "users_by_id")) == set(ids(written, "users_by_country")) == {user(1)["user_id"]}
    assert reasons(written)[-1:] == [b"bad_magic"]
    assert {row.country for row in written.rows["countries"]} == {"Norway"}


def test_a_table_that_refuses_for_a_while_is_written_when_it_is_back(
    spark, batches: Batches, written: Written, caplog: pytest.LogCaptureFixture
) -> None:
    written.broken, batches.write_again = "users_by_id", 60
    threading.Timer(2, setattr, (written, "broken", None)).start()
    batches(records(spark, message(user(1))), 0)
    assert ids(written, "users_by_id") == ids(written, "users_by_country") == [user(1)["user_id"]]
    assert "users_by_id could not be written, and is begun again: users_by_id is down" in caplog.text


def test_a_stop_ends_the_wait_for_a_table_that_refuses(
    spark, batches: Batches, written: Written, stop: threading.Event
) -> None:
    written.broken, batches.write_again = "users_by_id", 60
    threading.Timer(1, stop.set).start()
    with pytest.raises(OSError, match="users_by_id is down"):
        batches(records(spark, message(user(1))), 0)
    assert "users_by_id" not in written.rows


def test_a_write_that_hangs_fails_the_batch(spark, batches: Batches, written: Written) -> None:
    # On a machine that has other things to do, the other table is written within this time, too.
    written.hangs, batches.write_deadline = "users_by_country", 5.0
    with pytest.raises(StalledError, match="within 5 s while writing users_by_country: is the cluster up"):
        batches(records(spark, message(user(1))), 0)
    written.released.set()


def test_a_write_that_fails_does_not_wait_for_one_that_hangs(
    spark, batches: Batches, written: Written
) -> None:
    written.hangs, written.broken = "users_by_country", "users_by_id"
    with pytest.raises(OSError, match="users_by_id is down"):
        batches(records(spark, message(user(1))), 0)
    written.released.set()


def test_nothing_stays_in_memory(spark: SparkSession, batches: Batches, written: Written) -> None:
    batches(records(spark, message(user(1)), b"x"), 0)
    assert spark.sparkContext._jsc.getPersistentRDDs().isEmpty()
