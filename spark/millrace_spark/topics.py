"""Kafka: where the records come from and where dead letters go."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pyspark.sql import DataFrame, SparkSession

from millrace.connections import Kafka

# Every consumer group of the job begins with it: the one group prefix that its login needs.
GROUP_PREFIX: Final = "users_stream"

_LOGIN_MODULES: Final = {
    "PLAIN": "org.apache.kafka.common.security.plain.PlainLoginModule",
    "SCRAM-SHA-256": "org.apache.kafka.common.security.scram.ScramLoginModule",
    "SCRAM-SHA-512": "org.apache.kafka.common.security.scram.ScramLoginModule",
}

_SOURCE_OPTIONS: Final = {
    "startingOffsets": "earliest",
    # Records that the topic no longer has are an error that a person must know of.
    "failOnDataLoss": "true",
    "groupIdPrefix": GROUP_PREFIX,
    "includeHeaders": "true",
    # Behind each fetch Spark asks for the offsets, over a connection on which the consumer has by then sent its next fetch.
    # The broker answers in order: without a row to give it would keep both waiting for half a second, for each partition.
    "kafka.fetch.max.wait.ms": "1",
    # Kafka's admin client sticks to the leader that it asked first, and waits for it to come back: an attempt ends before that
    # does, and the next one finds who leads now. While no broker can lead, an attempt fails at once, and two minutes of
    # those end the job. The journal tells of each.
    "kafka.default.api.timeout.ms": "5000",
    "fetchOffset.retryIntervalMs": "2000",
    "fetchOffset.numRetries": "60",
    # A task reads its partitions one after the other, each with a consumer of its own: where their leader says nothing,
    # such times add up. A fetch is so small that it comes through a slow link within them.
    "kafka.request.timeout.ms": "2500",
    "kafka.max.partition.fetch.bytes": str(256 * 1024),
    # A leader that is cut off answers the consumer of its own host, and has nothing new for it. A consumer that is made anew
    # may ask another broker who leads: that takes a failed task for each, of which spark.task.maxFailures make up two minutes.
    "kafkaConsumer.pollTimeoutMs": "3000",
    # A first record after a quiet time is taken at once. In a steady flow a batch waits for some company,
    # because small batches cost half as much again per row; and it is never so large that a failed one
    # costs more than seconds.
    "minOffsetsPerTrigger": "1000",
    "maxTriggerDelay": "500ms",
    "maxOffsetsPerTrigger": "20000",
}

_SINK_OPTIONS: Final = {
    "kafka.acks": "all",
    # A dead letter is a record of the topic plus headers: larger than the largest record.
    "kafka.max.request.size": str(4 * 1024 * 1024),
}


def client_options(kafka: Kafka) -> dict[str, str]:
    """Return the connection as options of Spark's Kafka source and sink."""
    options = {
        "kafka.bootstrap.servers": ",".join(kafka.bootstrap_servers),
        "kafka.security.protocol": kafka.security_protocol,
        # A broker that can't be reached holds a batch up for so long.
        "kafka.request.timeout.ms": "5000",
        "kafka.socket.connection.setup.timeout.ms": "1500",
        "kafka.socket.connection.setup.timeout.max.ms": "3000",
    }
    if kafka.sasl_mechanism is not None:
        options["kafka.sasl.mechanism"] = kafka.sasl_mechanism
        options["kafka.sasl.jaas.config"] = (
            f"{_LOGIN_MODULES[kafka.sasl_mechanism]} required"
            f" username={_quoted(kafka.username or '')} password={_quoted(kafka.password or '')};"
        )
    if kafka.ca_file is not None:
        # By content, so that executors need no file.
        options["kafka.ssl.truststore.type"] = "PEM"
        options["kafka.ssl.truststore.certificates"] = Path(kafka.ca_file).read_text(encoding="ascii")
    return options


def read_stream(spark: SparkSession, kafka: Kafka, topic: str) -> DataFrame:
    """Return the topic from its earliest record (or from the checkpoint) on, as `transforms.Decoder` takes it."""
    return (
        spark.readStream.format("kafka")
        .options(**(client_options(kafka) | _SOURCE_OPTIONS))
        .option("subscribe", topic)
        .load()
        .select("value", "topic", "partition", "offset", "headers", "timestamp")
    )


def write_dead_letters(letters: DataFrame, kafka: Kafka, topic: str) -> None:
    """Append key, value and headers to the topic; returns when all brokers in sync have them."""
    letters.write.format("kafka").options(**client_options(kafka), **_SINK_OPTIONS).option(
        "topic", topic
    ).save()


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
