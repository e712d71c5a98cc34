"""The hosts under test are found as those of the platform's own tests."""

import pytest

from millrace import environment as environments
from tests.platform.conftest import first_of, host, last_of, pytest_generate_tests  # noqa: F401

ENVIRONMENT = "apart"


def pytest_configure() -> None:
    name = environments.name_from_environment()
    if name != ENVIRONMENT:
        raise pytest.UsageError(
            f"this is for environment {ENVIRONMENT!r}, not {name!r}: run `make test-apart`"
        )
