"""What the checks make of the master's page and of the job's offset log, as Spark writes them."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from millrace.checks import spark
from millrace.connections import Connections
from millrace.errors import NotWhole

LOGIN = "Basic " + base64.b64encode(b"admin:secret").decode()


def worker(host: str, state: str = "ALIVE") -> dict[str, Any]:
    return {"host": host, "state": state, "cores": 2, "coresused": 1}


@contextmanager
def master(closed: bool = True, **page: Any) -> Iterator[Connections]:
    """Serve a master's page, behind a login; give connections to it."""
    state = {"url": "spark://control:7077", "status": "ALIVE", "workers": [], "activeapps": []} | page

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = not closed or self.headers["Authorization"] == LOGIN
            body = json.dumps(state).encode() if allowed else b""
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        section = {
            "url": f"http://127.0.0.1:{server.server_port}",
            "workers": ["data1", "data2"],
            "checkpoint": "/nowhere",
            "username": "admin",
            "password": "secret",
        }
        yield Connections({"spark_cluster": section}, "test")
        server.shutdown()


def test_a_master_that_leads_behind_its_login() -> None:
    with master(workers=[worker("data1")]) as connections:
        assert "1 workers" in spark.spark_master(connections)


def test_a_master_that_still_recovers() -> None:
    with master(status="RECOVERING") as connections, pytest.raises(NotWhole, match="RECOVERING"):
        spark.spark_master(connections)


def test_a_page_open_to_everybody() -> None:
    with master(closed=False) as connections, pytest.raises(NotWhole, match="200 without a login"):
        spark.spark_master(connections)


def test_every_worker_is_there_though_the_master_remembers_its_former_self() -> None:
    workers = [worker("data1", "DEAD"), worker("data1"), worker("data2")]
    with master(workers=workers) as connections:
        assert spark.spark_worker(connections) == "Spark: 2 workers, 2 of 4 cores in use"


def test_a_worker_that_was_lost() -> None:
    workers = [worker("data1"), worker("data2", "DEAD")]
    with master(workers=workers) as connections, pytest.raises(NotWhole, match=r"1 of 2 .* data2"):
        spark.spark_worker(connections)


def test_the_offset_log(tmp_path: Path) -> None:
    for folder in ("commits", "offsets"):
        (tmp_path / folder).mkdir()
    for batch in (8, 9, 10):
        source = json.dumps({"users_created": {"0": 100 * batch, "1": batch}})
        (tmp_path / "offsets" / str(batch)).write_text(f'v1\n{{"batchWatermarkMs":0}}\n{source}')
    for name in ("8", "9", ".9.crc", ".10.0f3c.tmp"):
        (tmp_path / "commits" / name).write_text('v1\n{"nextBatchWatermarkMs":0}')
    last = spark._last_batch(tmp_path)
    assert last == 9
    assert spark._offsets(tmp_path, last) == {0: 900, 1: 9}


def test_a_job_that_has_committed_nothing_yet(tmp_path: Path) -> None:
    last = spark._last_batch(tmp_path)
    assert spark._offsets(tmp_path, last) == {}
