"""Drops every record that the topic has now, as retention does; prints how many offsets went, as JSON."""

import json
import sys

from kafka import KafkaAdminClient, TopicPartition

from millrace import connections, topics
from millrace.schemas import TOPIC

way = connections.load()
with topics.consumer(way.kafka) as client:
    firsts, ends = topics.first_offsets(client), topics.end_offsets(client)
admin = KafkaAdminClient(**connections.kafka_config(way.kafka))
admin.delete_records({TopicPartition(TOPIC, partition): offset for partition, offset in ends.items()})
admin.close()
json.dump(sum(ends.values()) - sum(firsts.values()), sys.stdout)
