"""Waits until every service that root has a way to is whole: health.py SECONDS. Prints what is not, as JSON."""

import json
import logging
import sys
import time

from millrace import connections
from millrace.checks.cluster import CHECKS
from millrace.errors import MillraceError

# A check of its own is `airflow`, of all parts; what a source does is up to the scenario.
LEFT_OUT = {"airflow_api", "offline_source"}

for chatty in ("kafka", "cassandra", "kazoo"):
    logging.getLogger(chatty).setLevel(logging.CRITICAL)
way = connections.load()
deadline = time.monotonic() + float(sys.argv[1])
missing = dict.fromkeys(CHECKS.keys() - LEFT_OUT, "")
while True:
    for name in list(missing):
        try:
            CHECKS[name](way)
        except MillraceError as error:
            missing[name] = str(error)
        else:
            del missing[name]
    if not missing or time.monotonic() > deadline:
        break
    time.sleep(2)
json.dump(sorted(missing.values()), sys.stdout)
