"""Some of the faults of tests/faults, while rows flow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.run import flowing, run
from tests.faults.scenarios import QUICK, named


@pytest.fixture(scope="module")
def flow() -> Iterator[None]:
    with flowing():
        yield


@pytest.mark.usefixtures("flow")
@pytest.mark.parametrize("name", QUICK)
def test_nothing_is_lost_and_nothing_counts_twice(name: str) -> None:
    result = run(named(name))
    print(result)
    assert result.faults == []
