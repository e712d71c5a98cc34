"""
### Users, from the source until they can be read in Cassandra

1. **fetch_and_store** asks the source for a batch and stores it in PostgreSQL, with the outbox rows that the relay
   publishes, in one transaction. Nothing is stored unless the whole batch is valid.
2. **wait_until_published** and **wait_until_readable** hold no worker while they wait. They are red at once when a user
   of the batch sits in quarantine or is a dead letter, and at the deadline they name where each missing user was last.

A green run means that every user of its batch can be read. A red one is healed by clearing it: it asks for the same
people, and what of them can't be read is sent again.

`conf` may hold `seed`, `count` and `deadline`; the same seed asks for the same people.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, get_current_context, task

from millrace import limits
from millrace.airflow import most_users
from millrace.airflow.waiting import BatchWait


@dag(
    schedule="@hourly",
    catchup=False,
    max_active_runs=1,
    params={
        "seed": Param(
            None,
            type=["null", "string"],
            pattern=limits.SEED,
            description="Names the people. Empty: made from the run's id. Ends in a non-digit, and is not 18 characters long.",
        ),
        "count": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=most_users(),
            description=f"How many. Empty: {limits.DEFAULT_COUNT}. At most what the source gives an address in 5 minutes, "
            f"{most_users():,}: more are several runs.",
        ),
        "deadline": Param(
            None,
            type=["null", "number"],
            exclusiveMinimum=0,
            maximum=limits.LONGEST_DEADLINE,
            description=f"Seconds that it may take to each station. Empty: {limits.DEFAULT_DEADLINE:g}.",
        ),
    },
    tags=["users"],
    doc_md=__doc__,
)
def users_ingest() -> None:
    # The source's client has tried for as long as that makes sense.
    @task(multiple_outputs=False, retries=0)
    def fetch_and_store() -> dict[str, Any]:
        from millrace import flow
        from millrace.airflow import client

        context = get_current_context()
        run = context["dag_run"]
        stored = flow.fetch_and_store(client("ingest"), run.run_id, run.conf)
        return {**stored, "attempt": context["ti"].try_number}

    published = BatchWait(task_id="wait_until_published", station="published", batch=fetch_and_store())
    BatchWait(task_id="wait_until_readable", station="readable", batch=published.output)


users_ingest()
