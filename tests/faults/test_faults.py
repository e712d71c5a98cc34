"""Whatever dies: nothing that was committed is lost, and nothing counts twice."""

from __future__ import annotations

import pytest

from tests.faults.conftest import record
from tests.faults.run import run
from tests.faults.scenarios import named


@pytest.mark.usefixtures("flow")
def test_scenario(round_: int, name: str) -> None:
    result = run(named(name))
    record(round_, name, result)
    print(result)
    assert result.faults == []
