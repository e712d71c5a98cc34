"""Roles are tested with the hosts of the platform's own tests."""

from tests.platform.conftest import first_of, host, last_of, pytest_generate_tests  # noqa: F401
