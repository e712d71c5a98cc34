"""Reads the topic of the health checks; prints how many records hold each of the texts that are given."""

import json
import sys

from millrace import connections, topics
from millrace.checks.cluster import PROBE_TOPIC

texts = sys.argv[1:]
with topics.consumer(connections.load(None).kafka) as consumer:
    ends = topics.end_offsets(consumer, PROBE_TOPIC)
    values = [record.value for record in topics.records(consumer, {}, ends, PROBE_TOPIC)]
json.dump({text: sum(text.encode() in value for value in values) for text in texts}, sys.stdout)
