"""Whatever dies: nothing that was committed is lost, and nothing counts twice."""

from __future__ import annotations

from tests.faults.conftest import ROLLUP, began, record
from tests.faults.run import rollup, run
from tests.faults.scenarios import named


def test_scenario(flow: float, round_: int, name: str) -> None:
    result = rollup(began(round_, flow)) if name == ROLLUP else run(named(name))
    record(round_, name, result)
    print(result)
    assert result.faults == []
