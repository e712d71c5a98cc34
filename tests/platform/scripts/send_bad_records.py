"""Sends records that can't become users, one of each kind, and dead letters that are not the flow's.

Prints the place of each as JSON {reason: place}, as the dead letters have it.
"""

import json
import sys
import uuid

from kafka import KafkaProducer

from millrace import connections
from millrace.encoding import encoder
from millrace.registry import RegistryClient
from millrace.schemas import DEAD_LETTER_TOPIC, SUBJECT, TOPIC, users_created, users_created_text

UNKNOWN_ID = 999_999

way = connections.load(None)
with RegistryClient(way.registry) as registry:
    schema_id = registry.lookup(SUBJECT, users_created_text())
zero = {"string": "", "int": 0, "long": 0, "double": 0.0}
event = {
    field["name"]: zero[field["type"]["type"] if isinstance(field["type"], dict) else field["type"]]
    for field in users_created()["fields"]
    if field["name"] != "id_value"
} | {"user_id": str(uuid.uuid4()), "batch_id": str(uuid.uuid4()), "login_uuid": str(uuid.uuid4())}
good = encoder(users_created(), schema_id)(event)
bad = {
    "bad_magic": b"this is no Avro",
    "unknown_schema_id": b"\x00" + UNKNOWN_ID.to_bytes(4, "big") + good[5:],
    "undecodable": good[: len(good) // 2],
    "trailing_bytes": good + b"\x00",
    "empty": b"",
}
producer = KafkaProducer(**connections.kafka_config(way.kafka), acks="all")
sent = {
    reason: producer.send(TOPIC, key=str(uuid.uuid4()).encode(), value=value).get(timeout=30)
    for reason, value in bad.items()
}
# Of nobody that the flow knows, and of a record that is not there (any more): the topic was made anew.
sent["unknown"] = producer.send(DEAD_LETTER_TOPIC, key=b"\xff", value=b"x").get(timeout=30)
gone = f"{TOPIC}:0:{2**40}"
producer.send(DEAD_LETTER_TOPIC, key=gone.encode(), value=b"x", headers=[("reason", b"gone")]).get(timeout=30)
producer.close()
places = {reason: f"{place.topic}:{place.partition}:{place.offset}" for reason, place in sent.items()}
json.dump(places | {"gone": gone}, sys.stdout)
