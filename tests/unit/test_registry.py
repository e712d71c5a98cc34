"""The registry's client against a server that answers as it is told; the real registry is the platform's test."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from millrace import registry
from millrace.connections import Registry

LOGIN = {"username": "relay", "password": "pass:word"}


@pytest.fixture
def server():
    """A server with `answers` by "METHOD path": (status, document or text), and the `requests` that came."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            instance.requests.append((f"{self.command} {self.path}", self.headers, body))
            status, content = instance.answers[f"{self.command} {self.path}"]
            if instance.lost_sessions:
                instance.lost_sessions -= 1
                status, content = 500, {"message": "FATAL: terminating connection"}
            payload = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as instance:
        instance.answers = {}
        instance.requests = []
        instance.lost_sessions = 0
        threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.05}).start()
        yield instance
        instance.shutdown()


@pytest.fixture
def client(server):
    with registry.RegistryClient(Registry(url=f"http://127.0.0.1:{server.server_port}/", **LOGIN)) as made:
        yield made


def test_a_schema_is_registered_with_the_login(server, client) -> None:
    server.answers["POST /subjects/users_created-value/versions"] = (200, {"id": 3})
    assert client.register("users_created-value", '{"type": "string"}') == 3
    _, headers, body = server.requests[0]
    assert json.loads(body) == {"schema": '{"type": "string"}'}
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"relay:pass:word").decode()


def test_an_incompatible_schema_is_refused_with_the_reason(server, client) -> None:
    server.answers["POST /subjects/s/versions"] = (409, {"error_code": 409, "message": "incompatible"})
    server.answers["POST /compatibility/subjects/s/versions/latest?verbose=true"] = (
        200,
        {"is_compatible": False, "messages": ["field x has no default"]},
    )
    with pytest.raises(
        registry.IncompatibleSchemaError, match="HTTP 409 incompatible; field x has no default"
    ):
        client.register("s", "{}")


def test_a_schema_is_found_by_its_text_and_by_its_id(server, client) -> None:
    server.answers["POST /subjects/s"] = (200, {"id": 5, "version": 1, "subject": "s", "schema": "{}"})
    server.answers["GET /schemas/ids/5"] = (200, {"schema": '{"type": "string"}'})
    assert client.lookup("s", "{}") == 5
    assert client.schema(5) == {"type": "string"}


def test_levels(server, client) -> None:
    server.answers["PUT /config"] = server.answers["PUT /config/s"] = (200, {"compatibility": "BACKWARD"})
    server.answers["GET /config/s"] = (200, {"compatibilityLevel": "BACKWARD"})
    server.answers["GET /config/t"] = (404, {"message": "t has none of its own"})
    client.set_compatibility("BACKWARD")
    client.set_compatibility("BACKWARD", "s")
    assert [json.loads(body) for _, _, body in server.requests] == [{"compatibility": "BACKWARD"}] * 2
    assert client.compatibility("s") == "BACKWARD"
    assert client.compatibility("t") is None


@pytest.mark.parametrize(
    ("status", "content", "expected", "reason"),
    [
        (404, {"message": "no such schema"}, registry.SchemaNotFoundError, "HTTP 404 no such schema"),
        (401, "", registry.RegistryError, "refuses this login"),
        (403, {"message": "no"}, registry.RegistryError, "refuses this login"),
        (422, {"message": "bad schema"}, registry.RegistryError, "HTTP 422 bad schema"),
        (500, "oops", registry.RegistryUnavailableError, "HTTP 500"),
        (503, "", registry.RegistryUnavailableError, "HTTP 503"),
        (429, "", registry.RegistryUnavailableError, "HTTP 429"),
        (200, "<html>", registry.RegistryUnavailableError, "is that a registry"),
    ],
)
def test_what_went_wrong_is_told(
    server, client, status: int, content: object, expected: type, reason: str
) -> None:
    server.answers["GET /schemas/ids/1"] = (status, content)
    with pytest.raises(expected, match=reason) as error:
        client.schema(1)
    assert type(error.value) is expected
    assert "pass:word" not in str(error.value)


def test_a_database_that_was_restarted_goes_unnoticed(server, client) -> None:
    server.answers["POST /subjects/s/versions"] = (200, {"id": 3})
    server.lost_sessions = 2
    assert client.register("s", "{}") == 3
    assert [body for _, _, body in server.requests] == [b'{"schema": "{}"}'] * 3


def test_no_registry_is_an_outage() -> None:
    with (
        registry.RegistryClient(Registry(url="http://127.0.0.1:1")) as client,
        pytest.raises(registry.RegistryUnavailableError, match="refused"),
    ):
        client.schema(1)
