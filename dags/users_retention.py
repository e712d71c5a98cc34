"""
### PostgreSQL forgets old users

Deletes the users that are older than the declared retention. What was not audited yet, waits for the relay or sits in
quarantine is kept, whatever its age: an audit could no longer tell such a user from a stranger.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.sdk import dag, task


@dag(
    schedule="@daily",
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 0},
    tags=["users"],
    doc_md=__doc__,
)
def users_retention() -> None:
    @task(execution_timeout=timedelta(hours=1))
    def delete_old_users() -> int:
        from millrace import audit, flow
        from millrace.airflow import client, users_retention

        before = min(datetime.now(UTC) - users_retention(), audit.audited_until(client("audit")))
        return flow.delete_older(client("ingest"), before)

    delete_old_users()


users_retention()
