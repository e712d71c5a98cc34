"""
### PostgreSQL, the topic and Cassandra hold the same users

Compares the stations, value by value, over the next window that is closed: it begins where the last window without a
difference ended, and ends a grace period ago. A difference is red and named, and stays so until it is mended.

A window that is whole is then counted once more by `users_rollup`: users that came late are in its counts.

`conf` may hold `start` and `end` (ISO 8601, whole minutes) to audit any window.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, dag, get_current_context, task


@dag(
    schedule="@hourly",
    catchup=False,
    max_active_runs=1,
    # The next run looks at the same window again.
    default_args={"retries": 0},
    params={
        "start": Param(None, type=["null", "string"], format="date-time", description="Start of the window."),
        "end": Param(None, type=["null", "string"], format="date-time", description="End of the window."),
    },
    tags=["users"],
    doc_md=__doc__,
)
def users_audit() -> None:
    @task(multiple_outputs=False, execution_timeout=timedelta(minutes=50))
    def audit() -> dict[str, Any]:
        from airflow.sdk.exceptions import AirflowSkipException

        from millrace import audit as audits
        from millrace.airflow import client, windows

        window = windows.from_conf(get_current_context()["dag_run"].conf)
        result = audits.audit(client("audit"), *(window or ()))
        if result.start == result.end:
            raise AirflowSkipException("no window is closed yet")
        return {
            "start": result.start.isoformat(),
            "end": result.end.isoformat(),
            "users": result.users,
            "topic_records": result.topic_records,
        }

    audit() >> TriggerDagRunOperator(
        task_id="count_again",
        trigger_dag_id="users_rollup",
        conf={key: f"{{{{ ti.xcom_pull(task_ids='audit')['{key}'] }}}}" for key in ("start", "end")},
    )


users_audit()
