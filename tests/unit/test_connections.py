"""Connections files: what is missing or wrong is told with the fix, and no secret is printed."""

import json
import socket
from pathlib import Path

import pytest

from millrace import connections
from millrace.connections import ConnectionsError

KAFKA = {
    "bootstrap_servers": ["mill-data1:9092"],
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "SCRAM-SHA-512",
    "username": "relay",
    "password": "very-secret",
    "ca_file": None,
}


@pytest.fixture
def write(tmp_path: Path):
    def write_file(content: object) -> Path:
        path = tmp_path / "relay.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write_file


def test_the_environment_names_the_file(write, monkeypatch) -> None:
    monkeypatch.setenv("MILLRACE_CONNECTIONS", str(write({"kafka": KAFKA})))
    assert connections.load().kafka.username == "relay"


def test_no_file_is_named(monkeypatch) -> None:
    monkeypatch.delenv("MILLRACE_CONNECTIONS", raising=False)
    with pytest.raises(ConnectionsError, match=r"MILLRACE_CONNECTIONS.*--tags connections"):
        connections.load()


def test_the_file_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConnectionsError, match=r"does not exist.*--tags connections"):
        connections.load(tmp_path / "none.json")


def test_the_file_may_not_be_read(write, monkeypatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError

    path = write({})
    monkeypatch.setattr(Path, "read_text", refuse)  # root, who may run the tests, may read everything
    with pytest.raises(ConnectionsError, match="may not be read"):
        connections.load(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConnectionsError, match="can't be read"):
        connections.load(tmp_path)


@pytest.mark.parametrize("content", ["{", "", "[]", "null"])
def test_the_file_is_not_what_it_should_be(write, content: str) -> None:
    with pytest.raises(ConnectionsError, match=r"not (JSON|a JSON object)"):
        connections.load(write(content))


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({}, "no section `kafka`"),
        ({"kafka": []}, "no section `kafka`"),
        ({"kafka": {**KAFKA, "pasword": "x"}}, "unknown pasword"),
        ({"kafka": {"username": "x"}}, "bootstrap_servers"),
    ],
)
def test_a_section_is_missing_or_wrong(write, sections: dict, reason: str) -> None:
    path = write(sections)
    with pytest.raises(ConnectionsError, match=reason) as error:
        _ = connections.load(path).kafka
    assert str(path) in str(error.value)
    assert "very-secret" not in str(error.value)


@pytest.mark.parametrize("wrong", ["0", -1, 1.5, True, None])
def test_a_limit_that_is_no_number_is_told(write, wrong: object) -> None:
    path = write({"source": {"url": "http://nobody.invalid/", "name": "mine", "rate_limit": wrong}})
    with pytest.raises(ConnectionsError, match="rate_limit must be a whole number"):
        _ = connections.load(path).source


def test_no_password_is_printed(write) -> None:
    sections = {
        "kafka": KAFKA,
        "registry": {"url": "http://r", "username": "u", "password": "very-secret"},
        "postgresql": {"host": "h", "dbname": "d", "user": "u", "password": "very-secret"},
        "cassandra": {
            "hosts": ["h"],
            "local_dc": "dc1",
            "keyspace": "k",
            "username": "u",
            "password": "very-secret",
        },
        "zookeeper": {"hosts": ["h"], "username": "u", "password": "very-secret"},
    }
    loaded = connections.load(write(sections))
    for section in (loaded.kafka, loaded.registry, loaded.postgresql, loaded.cassandra, loaded.zookeeper):
        assert section.password == "very-secret"  # noqa: S105
        assert "very-secret" not in repr(section)


def test_kafkas_arguments(write) -> None:
    config = connections.kafka_config(connections.Kafka(**KAFKA))
    # A broker that does not answer is given up within seconds.
    assert (socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1) in config.pop("socket_options")
    assert config == {
        "bootstrap_servers": ["mill-data1:9092"],
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "relay",
        "sasl_plain_password": "very-secret",
    }
    plain = connections.Kafka(bootstrap_servers=["a:1"], security_protocol="SSL", ca_file="/ca.pem")
    config = connections.kafka_config(plain)
    del config["socket_options"]
    assert config == {
        "bootstrap_servers": ["a:1"],
        "security_protocol": "SSL",
        "ssl_cafile": "/ca.pem",
    }


def test_postgresql_that_is_not_there_is_named() -> None:
    target = connections.PostgreSQL(host="127.0.0.1", port=1, dbname="d", user="u", password="very-secret")  # noqa: S106
    with pytest.raises(
        ConnectionsError, match=r"PostgreSQL at 127\.0\.0\.1:1, database d, user u: .*refused"
    ) as error:
        connections.postgresql_connect(target, application_name="test")
    assert "very-secret" not in str(error.value)


def test_a_session_is_in_utc_and_utf8(connect) -> None:
    with connect("ingest") as session, session.cursor() as cursor:
        cursor.execute("SELECT current_setting('timezone'), current_setting('client_encoding')")
        assert cursor.fetchone() == ("UTC", "UTF8")


def test_cassandra_that_is_not_there_is_named() -> None:
    target = connections.Cassandra(hosts=["127.0.0.1"], port=1, local_dc="dc1", keyspace="k")
    with pytest.raises(ConnectionsError, match=r"Cassandra at 127\.0\.0\.1 \(port 1.*refused"):
        connections.cassandra_session(target)


def test_a_login_of_another_host_names_that_host(write) -> None:
    found = connections.load(write({"kafka": KAFKA, "elsewhere": {"postgresql": ["mill-control"]}}))
    with pytest.raises(
        ConnectionsError, match=r"login to `postgresql`.*not on this host: run it on mill-control$"
    ):
        _ = found.postgresql
    with pytest.raises(ConnectionsError, match="has no section `cassandra`"):
        _ = found.cassandra
