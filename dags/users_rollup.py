"""
### Users per minute, country and gender

Recomputes `users_per_minute` in Cassandra from the users' rows with a Spark job, for the hour that ended a grace
period ago, or for any window: the cells are a pure function of the rows, so computing them again changes nothing.
Windows that `users_audit` found whole come here once more.

`conf` may hold `start` and `end` (ISO 8601, whole minutes).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param, dag, get_current_context, task


@dag(
    schedule="@hourly",
    catchup=False,
    max_active_runs=1,
    # Once more, because Spark's master or a worker may just be restarting.
    default_args={"retries": 1, "retry_delay": timedelta(minutes=1)},
    params={
        "start": Param(None, type=["null", "string"], format="date-time", description="Start of the window."),
        "end": Param(None, type=["null", "string"], format="date-time", description="End of the window."),
    },
    tags=["users"],
    doc_md=__doc__,
)
def users_rollup() -> None:
    @task(multiple_outputs=False, execution_timeout=timedelta(minutes=30))
    def recompute() -> dict[str, Any]:
        from airflow.sdk.exceptions import AirflowFailException

        from millrace import audit, flow
        from millrace.airflow import rollup, windows

        run = get_current_context()["dag_run"]
        try:
            start, end = windows.from_conf(run.conf) or windows.closed_hour(run.run_after, audit.GRACE)
        except flow.ConfError as error:  # which a second try does not mend
            raise AirflowFailException(str(error)) from None
        rollup.submit(start, end)
        return {"start": start.isoformat(), "end": end.isoformat()}

    recompute()


users_rollup()
