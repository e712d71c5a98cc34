"""The pages that a newcomer reads: each command in them is run by a test, and each file that they name is there."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.documented import (
    AT_THE_ROOT,
    ELSEWHERE,
    ON_A_HOST,
    PAGES,
    REFUSED,
    ROOT,
    SIMULATED,
    TESTS,
    commands,
)


def test_each_command_is_run_by_a_test() -> None:
    run = {*AT_THE_ROOT, *REFUSED, *ON_A_HOST, *ELSEWHERE, *TESTS, *SIMULATED}
    assert commands() - run == set(), "no test runs these"
    assert run - commands() == set(), "no page shows these"


@pytest.mark.parametrize("command", ELSEWHERE)
def test_another_test_runs_it(command: str) -> None:
    path, pattern = ELSEWHERE[command]
    assert re.search(pattern, (ROOT / path).read_text(), re.MULTILINE), f"{path} has no {pattern}"


@pytest.mark.parametrize("command", TESTS)
def test_a_target_is_there(command: str) -> None:
    subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("command", SIMULATED)
def test_packages_are_to_be_had(command: str) -> None:
    subprocess.run([*command.split(), "--simulate"], check=True, capture_output=True)


@pytest.mark.parametrize("page", PAGES)
def test_files_are_where_the_pages_say(page: str) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
