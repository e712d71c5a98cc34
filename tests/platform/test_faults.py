"""Some of the faults of tests/faults, while rows flow."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.run import flowing, rollup, run
from tests.faults.scenarios import QUICK, named
from tests.platform.conftest import members


@pytest.fixture(scope="module")
def flow() -> Iterator[float]:
    with flowing() as since:
        yield since


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Those that this topology can stand."""
    if "name" in metafunc.fixturenames:
        data_hosts = len(members("cassandra"))
        metafunc.parametrize("name", [name for name in QUICK if named(name).data_hosts <= data_hosts])


@pytest.mark.usefixtures("flow")
def test_nothing_is_lost_and_nothing_doubled(name: str) -> None:
    result = run(named(name))
    print(result)
    assert result.faults == []


def test_all_of_it_is_there_and_counted_once(flow: float) -> None:
    assert rollup(flow).faults == []
