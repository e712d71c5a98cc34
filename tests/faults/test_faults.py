"""Whatever dies: nothing that was committed is lost, and nothing counts twice."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.conftest import ROLLUP, record
from tests.faults.run import Result, run
from tests.faults.scenarios import named


def test_scenario(flow: Callable[[], Result], round_: int, name: str) -> None:
    result = flow() if name == ROLLUP else run(named(name))
    record(round_, name, result)
    print(result)
    assert result.faults == []
