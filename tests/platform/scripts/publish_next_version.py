"""Publishes what the outbox holds as a relay of the schema's next version would; prints its id and the count as JSON.

The next version begins with a new field, so that a reader that trusts positions instead of the writer's schema
puts every value into the wrong column. The relay must be stopped.
"""

import copy
import json
import sys
from contextlib import closing

from kafka import KafkaProducer

from millrace import connections, store
from millrace.encoding import encoder
from millrace.registry import RegistryClient
from millrace.schemas import SUBJECT, TOPIC, event_fields, users_created

batch_id = sys.argv[1]
way = connections.load(None)
schema = copy.deepcopy(users_created())
schema["fields"].insert(0, {"name": "nickname", "type": ["null", "string"], "default": None})
with RegistryClient(way.registry) as registry:
    schema_id = registry.register(SUBJECT, json.dumps(schema))
encode = encoder(schema, schema_id)
with closing(connections.postgresql_connect(way.postgresql, application_name="test")) as session:
    events = store.batch_events(session, batch_id)
    producer = KafkaProducer(**connections.kafka_config(way.kafka), acks="all")
    sent = [
        producer.send(
            TOPIC,
            key=event[0].encode(),
            value=encode({"nickname": "nobody", **dict(zip(event_fields(), event, strict=True))}),
        )
        for event in events
    ]
    for future in sent:
        future.get(timeout=30)
    producer.close()
    with session, session.cursor() as cursor:
        cursor.execute("DELETE FROM millrace.users_outbox WHERE batch_id = %s", (batch_id,))
json.dump({"schema_id": schema_id, "sent": len(sent)}, sys.stdout)
