"""kill -9 of PostgreSQL's postmaster with a batch copied and not committed: postmaster_at_ingest.py UNIT.

A lock on the users lets the load copy its batch into its temporary table and holds up the INSERT. Prints JSON.
"""

import json
import subprocess
import sys
import time
from contextlib import closing

from millrace import connections

way = connections.load()
session = connections.postgresql_connect(way.postgresql, application_name="faults")
lock = connections.postgresql_connect(way.postgresql, application_name="faults-lock")
with closing(session), closing(lock):
    with lock.cursor() as cursor:
        cursor.execute("LOCK TABLE millrace.users IN SHARE MODE")
    deadline = time.monotonic() + 30
    stuck = 0
    while not stuck:
        with session, session.cursor() as cursor:
            cursor.execute(
                "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted "
                "AND application_name = 'faults-load' AND relation = 'millrace.users'::regclass"
            )
            (stuck,) = cursor.fetchone()
        if time.monotonic() > deadline:
            sys.exit("no ingest came to its INSERT within 30 s")
        time.sleep(0.05)
    subprocess.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", sys.argv[1]], check=True)
json.dump({"killed_with_open_ingests": stuck}, sys.stdout)
