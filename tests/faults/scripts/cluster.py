"""Prints who leads each partition of the topic, and who is the controller, as JSON."""

import json
import sys

from kafka import KafkaAdminClient

from millrace import connections
from millrace.schemas import TOPIC

admin = KafkaAdminClient(**connections.kafka_config(connections.load().kafka))
cluster = admin.describe_cluster()
[topic] = admin.describe_topics([TOPIC])
hosts = {broker["broker_id"]: broker["host"] for broker in cluster["brokers"]}
json.dump(
    {
        "leaders": {item["partition_index"]: hosts.get(item["leader_id"]) for item in topic["partitions"]},
        "controller": hosts[cluster["controller_id"]],
    },
    sys.stdout,
)
