"""Connections of one client identity to the platform's services.

Every client has one JSON file, owned by its unix user, that the deployment renders. It holds only the
sections that this client needs. Everything that connects (relay, tasks, checks, command line) reads it here.
"""

from __future__ import annotations

import json
import os
import socket
import ssl
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from millrace.errors import MillraceError
from millrace.limits import RATE_LIMIT

if TYPE_CHECKING:
    from cassandra.cluster import Session
    from kazoo.client import KazooClient
    from psycopg2.extensions import connection as PostgresqlConnection

ENVIRONMENT_VARIABLE: Final = "MILLRACE_CONNECTIONS"
RENDER_HINT: Final = "`ansible-playbook site.yml --tags connections` renders it"

# kafka-python gives a broker that does not answer at all the time of every other one. The kernel tells it: no answer to
# a first packet and its repetition, and data that nobody acknowledges, are a failure after 3 s.
_SOCKET_OPTIONS: Final = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_SYNCNT, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 3_000),
]


class ConnectionsError(MillraceError):
    """The connections file, or a section or a value of it, is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Kafka:
    """Kafka for clients, with SASL."""

    bootstrap_servers: list[str]
    security_protocol: str
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class ZooKeeper:
    """ZooKeeper's ensemble."""

    hosts: list[str]
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Registry:
    """The Schema Registry (Confluent API at the root of `url`)."""

    url: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class PostgreSQL:
    """PostgreSQL."""

    host: str
    dbname: str
    user: str
    password: str | None = field(default=None, repr=False)
    port: int = 5432
    sslmode: str = "prefer"


@dataclass(frozen=True, slots=True)
class Cassandra:
    """The Cassandra ring, for CQL."""

    hosts: list[str]
    local_dc: str
    keyspace: str
    port: int = 9042
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The users' source: base URL of the API's version, and the logical name that enters every id.

    `rate_limit`: how many users it gives an address in 5 minutes, 0 for any number. `proxy` is the way to a source outside,
    with the login to it; null where it is reached directly. `control_token` is the offline source's, for those who may make
    it misbehave.
    """

    url: str
    name: str
    control_token: str | None = field(default=None, repr=False)
    rate_limit: int = RATE_LIMIT
    proxy: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Spark:
    """The Spark standalone master, and the file that holds the authentication secret."""

    master: str
    secret_file: str


@dataclass(frozen=True, slots=True)
class SparkCluster:
    """The Spark master's page, for those who look after the cluster and the streaming job.

    `workers`: the hosts that are to be in it. `checkpoint`: the job's offset and commit log, on its own host.
    """

    url: str
    workers: list[str]
    checkpoint: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Airflow:
    """Airflow's API and user interface."""

    url: str
    username: str
    password: str = field(repr=False)


_Section = TypeVar("_Section")


class Connections:
    """The sections of one connections file; asking for one that is not there is an error that says so.

    Root's file says under `elsewhere` which hosts have the sections that it has not.
    """

    def __init__(self, sections: dict[str, Any], path: str) -> None:
        self._sections = sections
        self._path = path
        self._elsewhere: dict[str, list[str]] = sections.get("elsewhere", {})

    @property
    def kafka(self) -> Kafka:
        """Kafka's section."""
        return self._section("kafka", Kafka)

    @property
    def zookeeper(self) -> ZooKeeper:
        """ZooKeeper's section."""
        return self._section("zookeeper", ZooKeeper)

    @property
    def registry(self) -> Registry:
        """The Schema Registry's section."""
        return self._section("registry", Registry)

    @property
    def postgresql(self) -> PostgreSQL:
        """PostgreSQL's section."""
        return self._section("postgresql", PostgreSQL)

    @property
    def cassandra(self) -> Cassandra:
        """Cassandra's section."""
        return self._section("cassandra", Cassandra)

    @property
    def source(self) -> Source:
        """The source's section."""
        return self._section("source", Source)

    @property
    def spark(self) -> Spark:
        """Spark's section."""
        return self._section("spark", Spark)

    @property
    def spark_cluster(self) -> SparkCluster:
        """The section of Spark's master, workers and streaming job."""
        return self._section("spark_cluster", SparkCluster)

    @property
    def airflow(self) -> Airflow:
        """Airflow's section."""
        return self._section("airflow", Airflow)

    def _section(self, name: str, kind: type[_Section]) -> _Section:
        values = self._sections.get(name)
        if not isinstance(values, dict) and (hosts := self._elsewhere.get(name)):
            raise ConnectionsError(
                f"this command needs root's login to `{name}`, which is not on this host: run it on {' or '.join(hosts)}"
            )
        if not isinstance(values, dict):
            raise ConnectionsError(
                f"{self._path} has no section `{name}`, which this command needs: use the file of a client "
                f"that has it, or add it to this client's sections; {RENDER_HINT}"
            )
        known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
        if unknown := sorted(set(values) - known):
            raise ConnectionsError(
                f"{self._path}, section `{name}`: unknown {', '.join(unknown)}; {RENDER_HINT}"
            )
        # Text in the place of a number is what `-e name=value` of Ansible makes of it.
        numbers = [item.name for item in fields(kind) if item.type == "int" and item.name in values]  # type: ignore[arg-type]
        if wrong := [key for key in numbers if type(values[key]) is not int or values[key] < 0]:
            raise ConnectionsError(
                f"{self._path}, section `{name}`: {', '.join(wrong)} must be a whole number, from 0; {RENDER_HINT}"
            )
        try:
            return kind(**values)
        except TypeError as error:  # a required key is missing
            raise ConnectionsError(f"{self._path}, section `{name}`: {error}; {RENDER_HINT}") from error


def load(path: str | os.PathLike[str] | None = None) -> Connections:
    """Read a connections file.

    Without `path`, the file that the environment variable MILLRACE_CONNECTIONS names is read.
    Raises ConnectionsError when there is none, it may not be read, or it is not a JSON object.
    """
    chosen = os.fspath(path) if path is not None else os.environ.get(ENVIRONMENT_VARIABLE, "")
    if not chosen:
        raise ConnectionsError(
            f"no connections file is named: set {ENVIRONMENT_VARIABLE} to "
            f"/etc/millrace/connections/<client>.json ({RENDER_HINT})"
        )
    try:
        sections = json.loads(Path(chosen).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConnectionsError(f"the connections file {chosen} does not exist: {RENDER_HINT}") from error
    except PermissionError as error:
        raise ConnectionsError(
            f"the connections file {chosen} may not be read by this user: run as the client that owns it, "
            "or as root"
        ) from error
    except OSError as error:
        raise ConnectionsError(f"the connections file {chosen} can't be read: {error}") from error
    except ValueError as error:
        raise ConnectionsError(
            f"the connections file {chosen} is not JSON ({error}): {RENDER_HINT}"
        ) from error
    if not isinstance(sections, dict):
        raise ConnectionsError(f"the connections file {chosen} is not a JSON object: {RENDER_HINT}")
    return Connections(sections, chosen)


def kafka_config(kafka: Kafka) -> dict[str, Any]:
    """Return the arguments that every kafka-python client of this connection takes."""
    config: dict[str, Any] = {
        "bootstrap_servers": list(kafka.bootstrap_servers),
        "security_protocol": kafka.security_protocol,
        "socket_options": _SOCKET_OPTIONS,
    }
    if kafka.sasl_mechanism is not None:
        config |= {
            "sasl_mechanism": kafka.sasl_mechanism,
            "sasl_plain_username": kafka.username,
            "sasl_plain_password": kafka.password,
        }
    if kafka.ca_file is not None:
        config["ssl_cafile"] = kafka.ca_file
    return config


def postgresql_connect(
    postgresql: PostgreSQL, *, application_name: str, settings: dict[str, str] | None = None
) -> PostgresqlConnection:
    """Open a session in UTF-8 and UTC, whose errors quote no row.

    `settings` are server settings of the session, for instance {"statement_timeout": "20s"}.
    Raises ConnectionsError with the server's reason when it can't be opened within 10 s.
    """
    import psycopg2

    from millrace.postgresql import Cursor

    options = {"timezone": "UTC", **(settings or {})}
    try:
        return psycopg2.connect(
            host=postgresql.host,
            port=postgresql.port,
            dbname=postgresql.dbname,
            user=postgresql.user,
            password=postgresql.password,
            sslmode=postgresql.sslmode,
            application_name=application_name,
            client_encoding="UTF8",
            cursor_factory=Cursor,
            connect_timeout=10,
            # A peer that vanished without a word is noticed within about half a minute.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=4,
            options=" ".join(f"-c {name}={value}" for name, value in options.items()),
        )
    except psycopg2.OperationalError as error:
        raise ConnectionsError(
            f"PostgreSQL at {postgresql.host}:{postgresql.port}, database {postgresql.dbname}, "
            f"user {postgresql.user}: {str(error).strip()}"
        ) from error


def cassandra_session(cassandra: Cassandra, *, use_keyspace: bool = True) -> Session:
    """Open a session at LOCAL_QUORUM that talks to the local data centre's owners of a row first.

    The caller ends it with `session.cluster.shutdown()`. `use_keyspace=False` is for the migrations, which
    create the keyspace. Raises ConnectionsError with the driver's reason when no node can be reached.
    """
    from cassandra import ConsistencyLevel
    from cassandra.auth import PlainTextAuthProvider
    from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, NoHostAvailable
    from cassandra.policies import DCAwareRoundRobinPolicy, ExponentialReconnectionPolicy, TokenAwarePolicy

    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc=cassandra.local_dc)),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        serial_consistency_level=ConsistencyLevel.LOCAL_SERIAL,
        request_timeout=20,
    )
    login = (
        PlainTextAuthProvider(cassandra.username, cassandra.password)
        if cassandra.username is not None
        else None
    )
    cluster = Cluster(
        contact_points=list(cassandra.hosts),
        port=cassandra.port,
        auth_provider=login,
        ssl_context=ssl.create_default_context(cafile=cassandra.ca_file) if cassandra.ca_file else None,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        reconnection_policy=ExponentialReconnectionPolicy(1, 30),
        protocol_version=5,
        connect_timeout=10,
        control_connection_timeout=10,
        max_schema_agreement_wait=30,
    )
    try:
        return cluster.connect(cassandra.keyspace if use_keyspace else None)
    except NoHostAvailable as error:
        cluster.shutdown()
        reasons = "; ".join(f"{host}: {reason}" for host, reason in error.errors.items())
        raise ConnectionsError(
            f"Cassandra at {', '.join(cassandra.hosts)} (port {cassandra.port}, user {cassandra.username}): "
            f"{reasons or error}"
        ) from error
    except BaseException:
        cluster.shutdown()
        raise


def zookeeper_client(zookeeper: ZooKeeper) -> KazooClient:
    """Return a client that is not started yet; it gives up after a few tries instead of retrying for ever."""
    from kazoo.client import KazooClient

    return KazooClient(
        hosts=",".join(zookeeper.hosts),
        timeout=10,
        sasl_options={
            "mechanism": "DIGEST-MD5",
            "username": zookeeper.username,
            "password": zookeeper.password,
        },
        connection_retry={"max_tries": 3},
        command_retry={"max_tries": 2},
    )
