"""Offers the registry a schema that breaks its readers; prints the HTTP status of its answer and what it says."""

import copy
import json
import sys

from millrace import connections, http
from millrace.schemas import SUBJECT, users_created

registry = connections.load(None).registry
schema = copy.deepcopy(users_created())
schema["fields"].append({"name": "shoe_size", "type": "int"})
with http.session(ca_file=registry.ca_file) as session:
    session.auth = (registry.username, registry.password)
    answer = session.post(
        f"{registry.url}/subjects/{SUBJECT}/versions", json={"schema": json.dumps(schema)}, timeout=30
    )
json.dump({"status": answer.status_code, "body": answer.text}, sys.stdout)
