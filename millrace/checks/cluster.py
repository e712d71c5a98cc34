"""Whether a cluster is whole: every member is there, every copy is in step, and an operation with a login works.

A rollout asks this between two hosts, a role at its end, and a person by ``millrace health``.
"""

from __future__ import annotations

import json
import re
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from millrace.checks.airflow import airflow, airflow_api
from millrace.checks.spark import spark_master, spark_worker, users_stream
from millrace.checks.status import units_active
from millrace.connections import (
    Cassandra,
    Connections,
    Kafka,
    ZooKeeper,
    cassandra_session,
    kafka_config,
    zookeeper_client,
)
from millrace.errors import NotWhole

if TYPE_CHECKING:
    from cassandra.cluster import Session
    from cassandra.pool import Host

# Every topic and table is the platform's own; these are there to be written and read by checks alone.
PROBE_TOPIC = "millrace.probe"
PROBE_TABLE = "probe"
# What producers and topics may choose to have records packed by.
CODECS: Final = ("gzip", "snappy", "lz4", "zstd")
_PREFERRED_LEADERS: Final = 0


def zookeeper(connections: Connections) -> str:
    """Every server follows one leader, and a znode is written, read and removed with a login."""
    section = connections.zookeeper
    modes = {host: _mode(host) for host in section.hosts}
    expected = ["standalone"] if len(modes) == 1 else ["follower"] * (len(modes) - 1) + ["leader"]
    if sorted(modes.values()) != expected:
        raise NotWhole("ZooKeeper: " + ", ".join(f"{host} is {mode}" for host, mode in modes.items()))
    _write_and_read_znode(section)
    return "ZooKeeper: " + ", ".join(f"{host} {mode}" for host, mode in modes.items())


def zookeeper_leader(connections: Connections) -> str:
    """Return the host whose server leads the ensemble."""
    for host in connections.zookeeper.hosts:
        if _mode(host) in ("leader", "standalone"):
            return host.rsplit(":", 1)[0]
    raise NotWhole("ZooKeeper has no leader: `millrace health zookeeper` says more")


def _mode(host: str) -> str:
    """Ask one server for its part in the ensemble."""
    name, port = host.rsplit(":", 1)
    try:
        with socket.create_connection((name, int(port)), timeout=5) as connection:
            connection.sendall(b"srvr")
            connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(4096), b"")).decode(errors="replace")
    except OSError as error:
        return f"unreachable ({error})"
    found = re.search(r"^Mode: (\w+)$", answer, re.MULTILINE)
    return found.group(1) if found else f"without a quorum ({answer.strip() or 'no answer'})"


def _write_and_read_znode(section: ZooKeeper) -> None:
    from kazoo.exceptions import KazooException
    from kazoo.handlers.threading import KazooTimeoutError
    from kazoo.security import make_acl

    client = zookeeper_client(section)
    path, value = f"/millrace-probe-{uuid.uuid4()}", uuid.uuid4().bytes
    try:
        client.start(timeout=15)
        client.create(path, value, ephemeral=True, acl=[make_acl("sasl", section.username, all=True)])
        if client.get(path)[0] != value:
            raise NotWhole(f"ZooKeeper gave {path} back with another value")
        client.delete(path)
    except (KazooException, KazooTimeoutError) as error:
        raise NotWhole(f"ZooKeeper, user {section.username}: {error!r}") from error
    finally:
        client.stop()
        client.close()


def kafka(connections: Connections) -> str:
    """Every broker is there, every partition has all its copies in step, and records of every codec come back from each."""
    section = connections.kafka
    with _kafka_admin(section) as admin:
        brokers = {broker["broker_id"]: str(broker["host"]) for broker in admin.describe_cluster()["brokers"]}
        topics = admin.describe_topics()
        if len(brokers) != len(section.bootstrap_servers):
            raise NotWhole(
                f"Kafka: {len(brokers)} of {len(section.bootstrap_servers)} brokers are there: {', '.join(brokers.values())}"
            )
        behind = [
            f"{topic['name']}-{partition['partition_index']}"
            for topic in topics
            for partition in topic["partitions"]
            if len(partition["isr_nodes"]) < len(partition["replica_nodes"]) or partition["leader_id"] < 0
        ]
        if behind:
            raise NotWhole(f"Kafka: {len(behind)} partitions lack copies in step: {', '.join(behind[:10])}")
        leaders = {
            partition: brokers.get(leader, f"broker {leader}")
            for partition, leader in _probe_leaders(admin, brokers).items()
        }
    if leaders:
        _write_and_read_records(section, leaders)
    partitions = sum(len(topic["partitions"]) for topic in topics)
    probed = f", {', '.join(CODECS)} came back from {len(set(leaders.values()))}" if leaders else ""
    return f"Kafka: {len(brokers)} brokers, {partitions} partitions in step{probed}"


def kafka_controller(connections: Connections) -> str:
    """Return the host whose broker is the controller."""
    with _kafka_admin(connections.kafka) as admin:
        cluster = admin.describe_cluster()
    for broker in cluster["brokers"]:
        if broker["broker_id"] == cluster["controller_id"]:
            return str(broker["host"])
    raise NotWhole("Kafka has no controller: `millrace health kafka` says more")


@contextmanager
def _kafka_admin(section: Kafka) -> Iterator[Any]:
    """Give an administrator's session; what Kafka refuses or doesn't answer in it is NotWhole."""
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(
            **kafka_config(section), request_timeout_ms=10000, client_id="millrace-health"
        )
        try:
            yield admin
        finally:
            admin.close()
    except KafkaError as error:
        raise NotWhole(
            f"Kafka at {', '.join(section.bootstrap_servers)}, user {section.username}: {error!r}"
        ) from error


def _probe_leaders(admin: Any, brokers: Collection[int]) -> dict[int, int]:
    """Return who leads each partition of the probe's topic; nothing as long as there is no such topic.

    It has as many partitions as there are brokers. One that has just restarted leads none until it is elected again.
    """

    def leaders() -> dict[int, int]:
        return {
            partition["partition_index"]: partition["leader_id"]
            for topic in admin.describe_topics()
            if topic["name"] == PROBE_TOPIC
            for partition in topic["partitions"]
        }

    found = leaders()
    if found and set(found.values()) != set(brokers):
        admin.elect_leaders(_PREFERRED_LEADERS, {PROBE_TOPIC: list(found)}, timeout_ms=10000)
        found = leaders()
    return found


def _write_and_read_records(section: Kafka, leaders: Mapping[int, str]) -> None:
    """Have the leader of each partition of the probe's topic take a record in every codec, and read all of them back.

    `leaders`: partition -> its leader's name. A broker unpacks what it takes, some codecs by native code that the JVM must
    be able to load; readers unpack it again.
    """
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    from millrace import topics

    places: dict[int, list[int]] = {partition: [] for partition in leaders}
    values = set()
    for codec in CODECS:
        # So long, and so much the same, that it is smaller when it is packed.
        value = uuid.uuid4().bytes * 64
        values.add(value)
        try:
            producer = KafkaProducer(
                **kafka_config(section),
                acks="all",
                compression_type=codec,
                delivery_timeout_ms=15000,
                request_timeout_ms=10000,
            )
        except KafkaError as error:
            raise NotWhole(f"Kafka, user {section.username}: {error!r}") from error
        try:
            sent = {
                partition: producer.send(PROBE_TOPIC, value, partition=partition) for partition in leaders
            }
            for partition, record in sent.items():
                try:
                    places[partition].append(record.get(timeout=20).offset)
                except KafkaError as error:
                    raise NotWhole(
                        f"Kafka: {leaders[partition]} takes no record in {codec}: {error!r}; see `journalctl -u kafka` there"
                    ) from error
        finally:
            producer.close(timeout=5)
    try:
        with topics.consumer(section) as consumer:
            start = {partition: min(offsets) for partition, offsets in places.items()}
            end = {partition: max(offsets) + 1 for partition, offsets in places.items()}
            came_back = {
                (record.partition, record.value)
                for record in topics.records(consumer, start, end, PROBE_TOPIC)
            }
    except topics.TopicReadError as error:
        raise NotWhole(f"Kafka, topic {PROBE_TOPIC}, user {section.username}: {error}") from error
    for partition, name in leaders.items():
        if values - {value for place, value in came_back if place == partition}:
            raise NotWhole(f"Kafka: {name} gave another value back from {PROBE_TOPIC}-{partition}")


def postgresql(connections: Connections) -> str:
    """The server takes writes, keeps checksums, has this version's schema, and a row comes back."""
    from contextlib import closing

    import psycopg2

    from millrace import migrate
    from millrace.connections import postgresql_connect

    section = connections.postgresql
    value = str(uuid.uuid4())
    with (
        closing(postgresql_connect(section, application_name="health")) as session,
        session.cursor() as cursor,
    ):
        try:
            cursor.execute("SELECT pg_is_in_recovery(), current_setting('data_checksums'), version()")
            recovering, checksums, version = cursor.fetchone()
            cursor.execute("SELECT count(*) FROM millrace.schema_migrations")
            (applied,) = cursor.fetchone()
            cursor.execute("CREATE TEMPORARY TABLE probe (value text) ON COMMIT DROP")
            cursor.execute("INSERT INTO probe VALUES (%s)", (value,))
            cursor.execute("SELECT value FROM probe")
            came_back = cursor.fetchall()
        except psycopg2.Error as error:
            raise NotWhole(
                f"PostgreSQL at {section.host}, user {section.user}: {str(error).strip()}"
            ) from error
    known = len(migrate.postgresql_migrations())
    if recovering:
        raise NotWhole(f"PostgreSQL at {section.host} recovers and takes no writes")
    if checksums != "on":
        raise NotWhole(
            f"PostgreSQL at {section.host} keeps no checksums of its pages: run pg_checksums --enable"
        )
    if applied != known:
        raise NotWhole(
            f"PostgreSQL at {section.host} has {applied} of {known} migrations: run `millrace migrate postgresql`"
        )
    if came_back != [(value,)]:
        raise NotWhole(f"PostgreSQL at {section.host} gave another row back: {came_back}")
    return f"PostgreSQL: {' '.join(version.split()[:2])}, {applied} migrations, a row came back"


def schema_registry(connections: Connections) -> str:
    """It answers to the login and to nobody else, and refuses a schema that breaks readers."""
    import requests

    from millrace import http
    from millrace.registry import RegistryClient, RegistryError, RegistryUnavailableError, SchemaNotFoundError
    from millrace.schemas import SUBJECT, users_created, users_created_text

    section = connections.registry
    try:
        with http.session(ca_file=section.ca_file) as session:
            stranger = session.get(f"{section.url}/subjects", timeout=10)
        if stranger.status_code != requests.codes.unauthorized:
            raise NotWhole(
                f"Schema Registry at {section.url} answers {stranger.status_code} without a login, not 401"
            )
        with RegistryClient(section) as client:
            level = client.compatibility()
            try:
                schema_id = client.lookup(SUBJECT, users_created_text())
            except SchemaNotFoundError:
                return (
                    f"Schema Registry: serves; {SUBJECT} is not registered yet (`millrace registry register`)"
                )
            event = users_created()
            breaking = {**event, "fields": [*event["fields"], {"name": "probe", "type": "string"}]}
            if not client.incompatibilities(SUBJECT, json.dumps(breaking)):
                raise NotWhole(
                    f"Schema Registry takes a schema that breaks readers of {SUBJECT}: run `millrace registry register`"
                )
    except (requests.RequestException, RegistryError, RegistryUnavailableError) as error:
        raise NotWhole(f"Schema Registry, user {section.username}: {error}") from error
    return f"Schema Registry: {SUBJECT} has id {schema_id}, {level}; a breaking schema is refused"


# Seconds: no user waits longer for a relay that has nothing else to do.
RELAY_PATIENCE = 60.0


def relay(connections: Connections) -> str:
    """It holds a session with PostgreSQL, which it opens once it has its schema id and Kafka, and users don't wait.

    Behind an outage they do: then it is well as long as the oldest of them goes.
    """
    from contextlib import closing

    import psycopg2

    from millrace.connections import postgresql_connect

    first_of_all = None
    deadline = time.monotonic() + 30
    with closing(postgresql_connect(connections.postgresql, application_name="health")) as session:
        session.autocommit = True
        while True:
            try:
                with session.cursor() as cursor:
                    cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'relay'")
                    (sessions,) = cursor.fetchone()
                    cursor.execute(
                        "SELECT count(*), min(id), coalesce(extract(epoch FROM now() - min(enqueued_at)), 0)::float8 "
                        "FROM millrace.users_outbox"
                    )
                    waiting, first, oldest = cursor.fetchone()
            except psycopg2.Error as error:
                raise NotWhole(
                    f"PostgreSQL at {connections.postgresql.host}: {str(error).strip()}"
                ) from error
            first_of_all = first_of_all or first
            if sessions and (oldest < RELAY_PATIENCE or first != first_of_all):
                return f"Relay: {sessions} connected, {waiting} users wait"
            if time.monotonic() > deadline:
                raise NotWhole(
                    f"Relay: {sessions} connected, {waiting} users wait, the oldest for {oldest:.0f} s: what it waits"
                    " for is in `journalctl -u relay`"
                )
            time.sleep(0.5)


def offline_source(connections: Connections) -> str:
    """It gives the users that are asked for, the same ones twice."""
    import requests

    from millrace import http

    section = connections.source
    parameters = {"results": "3", "seed": "health-probe", "page": "1"}
    try:
        with http.session() as session:
            answers = [
                [
                    user["login"]["uuid"]
                    for user in session.get(section.url, params=parameters, timeout=10).json()["results"]
                ]
                for _ in range(2)
            ]
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise NotWhole(
            f"Source at {section.url}: {error!r}; if it misbehaves on request: `millrace source well`"
        ) from error
    if len(answers[0]) != 3 or answers[0] != answers[1]:
        raise NotWhole(f"Source at {section.url}: 3 users asked for twice gave {answers}")
    return f"Source: {section.url} gives users"


def cassandra(connections: Connections) -> str:
    """Every node serves clients and reaches all others, all agree on the schema, and rows come back from each."""
    section = connections.cassandra
    session = cassandra_session(section, use_keyspace=False)
    try:
        nodes = _nodes(session, section)
        schemas = {
            str(_ask(session, node, "SELECT schema_version FROM system.local")[0][0])
            for node in nodes.values()
        }
        if len(schemas) > 1:
            raise NotWhole(f"Cassandra: the nodes have {len(schemas)} versions of the schema")
        rows = _write_and_read_rows(session, section, nodes)
    finally:
        session.cluster.shutdown()
    return (
        f"Cassandra: {len(nodes)} nodes up, one schema{f', {rows} rows came back from each' if rows else ''}"
    )


def _nodes(session: Session, section: Cassandra) -> dict[str, Host]:
    """Return every node by its name; raises NotWhole unless exactly the expected ones are there and serve."""
    known = {host.endpoint.address: host for host in session.cluster.metadata.all_hosts()}
    addresses = {name: socket.gethostbyname(name) for name in section.hosts}
    faults = [f"{name} is not in the ring" for name, address in addresses.items() if address not in known]
    faults += [
        f"{address} is in the ring and should not be: remove it with `nodetool decommission` there, or"
        " `nodetool removenode` where it is dead"
        for address in known
        if address not in addresses.values()
    ]
    nodes = {name: known[address] for name, address in addresses.items() if address in known}
    _wait_for_connections(session, nodes)
    for name, node in nodes.items():
        try:
            peers = len(_ask(session, node, "SELECT peer FROM system.peers_v2"))
        except NotWhole as error:
            faults.append(f"{name} is down ({error})")
            continue
        if peers != len(known) - 1:
            faults.append(f"{name} knows {peers} other nodes of {len(known) - 1}")
    if faults:
        raise NotWhole("Cassandra: " + "; ".join(faults))
    return nodes


def _wait_for_connections(session: Session, nodes: dict[str, Host]) -> None:
    """Wait until the driver has a connection to each node, or has found it down; it begins with only one."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        connected = {pool.host for pool in session.get_pools()}
        if all(node in connected or node.is_up is False for node in nodes.values()):
            return
        time.sleep(0.05)


def _ask(session: Session, node: Host, statement: Any, parameters: Any = None) -> list[Any]:
    """Return the rows that one node, as coordinator, answers with."""
    from cassandra import DriverException
    from cassandra.cluster import NoHostAvailable

    try:
        return list(session.execute(statement, parameters, timeout=10, host=node))
    except NoHostAvailable as error:
        raise NotWhole(
            f"no connection: {'; '.join(str(cause) for cause in error.errors.values()) or error}"
        ) from error
    except DriverException as error:
        raise NotWhole(str(error)) from error


def _write_and_read_rows(session: Session, section: Cassandra, nodes: dict[str, Host]) -> int:
    """Write rows that lie on all nodes, and read them through each at consistency ALL: it must reach every other.

    Returns how many rows; none as long as there is no table for them.
    """
    from cassandra import ConsistencyLevel
    from cassandra.query import SimpleStatement

    metadata = session.cluster.metadata
    keyspace = metadata.keyspaces.get(section.keyspace)
    if keyspace is None or PROBE_TABLE not in keyspace.tables:
        return 0
    table, left, keys = f"{section.keyspace}.{PROBE_TABLE}", set(nodes.values()), []
    while left:
        key = uuid.uuid4()
        if left & (owners := set(metadata.get_replicas(section.keyspace, key.bytes))):
            keys.append(key)
            left -= owners
    value = uuid.uuid4()
    read = SimpleStatement(
        f"SELECT value FROM {table} WHERE id = %s",  # noqa: S608
        consistency_level=ConsistencyLevel.ALL,
    )
    coordinators = list(nodes.items())
    for key in keys:
        _ask(session, coordinators[0][1], f"INSERT INTO {table} (id, value) VALUES (%s, %s)", (key, value))  # noqa: S608
        for name, node in coordinators:
            try:
                found = [row.value for row in _ask(session, node, read, (key,))]
            except NotWhole as error:
                raise NotWhole(f"Cassandra: {name} does not reach every copy of a row: {error}") from error
            if found != [value]:
                raise NotWhole(f"Cassandra: {name} gave {found} back for {key}, not {value}")
    return len(keys)


CHECKS: dict[str, Callable[[Any], str]] = {
    "units": units_active,
    "zookeeper": zookeeper,
    "kafka": kafka,
    "postgresql": postgresql,
    "schema_registry": schema_registry,
    "relay": relay,
    "offline_source": offline_source,
    "cassandra": cassandra,
    "spark_master": spark_master,
    "spark_worker": spark_worker,
    "users_stream": users_stream,
    "airflow": airflow,
    "airflow_api": airflow_api,
}

# Clusters of which one member leads the others, and moves its task to another when it ends.
LEADERS: dict[str, Callable[[Any], str]] = {"zookeeper": zookeeper_leader, "kafka": kafka_controller}
