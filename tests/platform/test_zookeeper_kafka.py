"""ZooKeeper and Kafka as their users meet them: logins, ACLs, one record from end to end."""

from __future__ import annotations

import uuid
from typing import Any

from millrace.checks.cluster import CODECS
from tests.platform.conftest import members, run_script, secrets


def test_a_record_crosses_the_cluster(first_of: Any, last_of: Any) -> None:
    text = f"record {uuid.uuid4()}"
    # Compressed by a native library, which both commands have to unpack and run.
    producer = "kafka-console-producer --topic millrace.probe --compression-codec zstd"
    produced = first_of("kafka").run(f"echo '{text}' | {producer}")
    assert produced.rc == 0, produced.stderr
    consumed = last_of("kafka").run(
        "timeout 60 kafka-console-consumer --topic millrace.probe --from-beginning --timeout-ms 8000"
    )
    # Health checks write bytes that are no text into the same topic.
    assert text.encode() in consumed.stdout_bytes.splitlines(), consumed.stderr


def test_our_readers_read_what_other_producers_pack(first_of: Any) -> None:
    host = first_of("kafka")
    texts = {codec: f"{codec} {uuid.uuid4()}" for codec in CODECS}
    host.check_output(
        "\n".join(
            f"(yes '{text}' | head -n 99 | paste -sd ' ' | kafka-console-producer --topic millrace.probe --compression-codec {codec}) &"
            for codec, text in texts.items()
        )
        + "\nwait"
    )
    assert run_script(host, "read_probe", *texts.values()) == dict.fromkeys(texts.values(), 1)


def test_zookeeper_refuses_a_client_without_a_login(first_of: Any) -> None:
    host = first_of("zookeeper")
    server = f"{members('zookeeper')[0]}:2181"
    answer = host.run(f"timeout 60 /opt/zookeeper/current/bin/zkCli.sh -server {server} ls /")
    assert answer.rc != 0 or "brokers" not in answer.stdout + answer.stderr
    assert "kafka" not in answer.stdout


def test_znodes_of_kafka_are_closed(first_of: Any) -> None:
    acl = first_of("zookeeper").run("zkCli getAcl /kafka").stdout
    assert "'sasl,'kafka" in acl
    assert "world" not in acl


def test_kafka_denies_what_is_not_declared(first_of: Any) -> None:
    """The relay may write users_created; it may not read it, nor write another topic."""
    host = first_of("kafka")
    login = (
        "security.protocol=SASL_PLAINTEXT\\nsasl.mechanism=SCRAM-SHA-512\\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required "
        f'username=\\"relay\\" password=\\"{secrets()["kafka_relay"]}\\";\\n'
    )
    host.run(f'umask 077; printf "{login}" >/run/test-relay.properties')
    server = f"--bootstrap-server {members('kafka')[0]}:9092"
    try:
        refused = host.run(
            f"echo x | timeout 60 kafka-console-producer {server} --topic millrace.probe"
            " --producer.config /run/test-relay.properties"
        )
        assert "TopicAuthorizationException" in refused.stdout + refused.stderr
        reading = host.run(
            f"timeout 60 kafka-console-consumer {server} --topic users_created --timeout-ms 5000"
            " --consumer.config /run/test-relay.properties"
        )
        assert "AuthorizationException" in reading.stdout + reading.stderr
    finally:
        host.run("rm /run/test-relay.properties")


def test_topics_keep_two_copies_in_step(first_of: Any) -> None:
    described = first_of("kafka").check_output("kafka-topics --describe --topic users_created")
    copies = min(3, len(members("kafka")))
    assert f"ReplicationFactor: {copies}" in described
    settings = first_of("kafka").check_output(
        "kafka-configs --describe --all --entity-type topics --entity-name users_created"
    )
    assert f"min.insync.replicas={max(1, copies - 1)} " in settings


def test_a_cluster_names_its_leader_on_every_host(first_of: Any, last_of: Any) -> None:
    for service in ("zookeeper", "kafka"):
        leader = first_of(service).check_output(f"millrace leader {service}")
        assert leader in members(service)
        assert last_of(service).check_output(f"millrace leader {service}") == leader
