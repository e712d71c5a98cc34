"""Whether a cluster is whole: every member is there, every copy is in step, and an operation with a login works.

A rollout asks this between two hosts, a role at its end, and a person by ``millrace health``.
"""

from __future__ import annotations

import re
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

from millrace.connections import Connections, Kafka, ZooKeeper, kafka_config, zookeeper_client
from millrace.errors import MillraceError

# Every topic is the platform's own; this one is there to be written and read by checks alone.
PROBE_TOPIC = "millrace.probe"


class NotWhole(MillraceError):
    """A cluster lacks a member or a copy, or an operation failed."""


def zookeeper(connections: Connections) -> str:
    """Every server follows one leader, and a znode is written, read and removed with a login."""
    section = connections.zookeeper
    modes = {host: _mode(host) for host in section.hosts}
    expected = ["standalone"] if len(modes) == 1 else ["follower"] * (len(modes) - 1) + ["leader"]
    if sorted(modes.values()) != expected:
        raise NotWhole("ZooKeeper: " + ", ".join(f"{host} is {mode}" for host, mode in modes.items()))
    _write_and_read_znode(section)
    return "ZooKeeper: " + ", ".join(f"{host} {mode}" for host, mode in modes.items())


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
    """Every broker is there, every partition has all its copies in step, and a record is written and read back."""
    section = connections.kafka
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(
            **kafka_config(section), request_timeout_ms=10000, client_id="millrace-health"
        )
    except KafkaError as error:
        raise NotWhole(
            f"Kafka at {', '.join(section.bootstrap_servers)}, user {section.username}: {error!r}"
        ) from error
    try:
        brokers = admin.describe_cluster()["brokers"]
        topics = admin.describe_topics()
    except KafkaError as error:
        raise NotWhole(f"Kafka, user {section.username}: {error!r}") from error
    finally:
        admin.close()
    if len(brokers) != len(section.bootstrap_servers):
        there = ", ".join(f"{broker['host']}" for broker in brokers)
        raise NotWhole(
            f"Kafka: {len(brokers)} of {len(section.bootstrap_servers)} brokers are there: {there}"
        )
    behind = [
        f"{topic['name']}-{partition['partition_index']}"
        for topic in topics
        for partition in topic["partitions"]
        if len(partition["isr_nodes"]) < len(partition["replica_nodes"]) or partition["leader_id"] < 0
    ]
    if behind:
        raise NotWhole(f"Kafka: {len(behind)} partitions lack copies in step: {', '.join(behind[:10])}")
    probed = any(topic["name"] == PROBE_TOPIC for topic in topics)
    if probed:
        _write_and_read_record(section)
    partitions = sum(len(topic["partitions"]) for topic in topics)
    return f"Kafka: {len(brokers)} brokers, {partitions} partitions in step{', a record came back' if probed else ''}"


def _write_and_read_record(section: Kafka) -> None:
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition
    from kafka.errors import KafkaError

    value = uuid.uuid4().bytes
    try:
        producer = KafkaProducer(
            **kafka_config(section), acks="all", delivery_timeout_ms=15000, request_timeout_ms=10000
        )
        try:
            place = producer.send(PROBE_TOPIC, value).get(timeout=20)
        finally:
            producer.close(timeout=5)
        consumer = KafkaConsumer(**kafka_config(section), enable_auto_commit=False)
        try:
            partition = TopicPartition(PROBE_TOPIC, place.partition)
            consumer.assign([partition])
            consumer.seek(partition, place.offset)
            deadline = time.monotonic() + 15
            while not (records := consumer.poll(timeout_ms=1000).get(partition)):
                if time.monotonic() > deadline:
                    raise NotWhole(f"Kafka took a record of {PROBE_TOPIC} and does not give it back")
        finally:
            consumer.close()
    except KafkaError as error:
        raise NotWhole(f"Kafka, topic {PROBE_TOPIC}, user {section.username}: {error!r}") from error
    if records[0].value != value:
        raise NotWhole(f"Kafka gave another value back from {PROBE_TOPIC}, offset {place.offset}")


CHECKS: dict[str, Callable[[Any], str]] = {"zookeeper": zookeeper, "kafka": kafka}
