"""The session of the jobs."""

import pytest
from millrace_spark import session
from pyspark.sql import SparkSession


def test_a_session_without_executors_is_given_up_after_a_while(spark: SparkSession) -> None:
    """A local session has none: as one that a master has forgotten."""
    assert not session.ExecutorWatch(spark, patience=60.0).there()
    with pytest.raises(session.NoExecutorsError, match="no executors for 0 s"):
        session.ExecutorWatch(spark, patience=0.0).there()
