"""Waits until services are whole: health.py SECONDS SERVICE... Prints what is not, as JSON."""

import json
import logging
import sys
import time

from millrace import connections
from millrace.checks.cluster import CHECKS
from millrace.errors import MillraceError

for chatty in ("kafka", "cassandra", "kazoo"):
    logging.getLogger(chatty).setLevel(logging.CRITICAL)
way = connections.load()
deadline = time.monotonic() + float(sys.argv[1])
missing = dict.fromkeys(sys.argv[2:], "")
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
