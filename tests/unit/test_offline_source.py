"""The offline source: the real server's format, rules and traps."""

import json
import os
import subprocess
import sys
import time
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests

from millrace import offline_source
from millrace.connections import Source

HASH_OF_PAGE = """
import hashlib, json
from datetime import UTC, datetime
from millrace.offline_source import People
page = People().page("1.4", "abc-", 3, 50, datetime(2026, 1, 1, tzinfo=UTC))
print(hashlib.sha256(json.dumps(page).encode()).hexdigest())
"""
NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def people() -> offline_source.People:
    return offline_source.People()


@pytest.fixture(scope="module")
def crowd(people) -> list[dict]:
    return people.page("1.4", "crowd-", 1, 5_000, NOW)


def get(url: str, **query: object) -> requests.Response:
    return requests.get(url, params=query, timeout=10)


def test_every_process_gives_the_same_people() -> None:
    hashes = {
        subprocess.run(
            [sys.executable, "-c", HASH_OF_PAGE],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": str(Path(offline_source.__file__).parents[1]),
            },
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1


def test_only_ages_depend_on_the_moment(people) -> None:
    page = people.page("1.4", "abc-", 1, 40, NOW)
    later = people.page("1.4", "abc-", 1, 40, NOW + timedelta(days=366))
    assert [user["dob"]["age"] + 1 for user in page] == [user["dob"]["age"] for user in later]
    for users in (page, later):
        for user in users:
            del user["dob"]["age"], user["registered"]["age"]
    assert page == later


def test_the_page_is_appended_to_the_seed(people) -> None:
    assert people.page("1.4", "a1", 1, 5, NOW) == people.page("1.4", "a", 11, 5, NOW)
    assert people.page("1.4", "a-", 1, 5, NOW) != people.page("1.4", "a-", 2, 5, NOW)


def test_a_seed_of_18_characters_names_a_nationality(people) -> None:
    assert {user["nat"] for user in people.page("1.4", "0123456789abcdef01", 1, 50, NOW)} == {"BR"}


def test_the_format_is_the_real_ones(crowd) -> None:
    user = crowd[0]
    assert list(user) == [
        "gender", "name", "location", "email", "login", "dob", "registered", "phone", "cell", "id", "picture", "nat",
    ]  # fmt: skip
    assert list(user["login"]) == ["uuid", "username", "password", "salt", "md5", "sha1", "sha256"]
    assert isinstance(user["location"]["coordinates"]["latitude"], str)
    assert datetime.fromisoformat(user["dob"]["date"]).tzinfo is not None
    assert all(user["email"].isascii() for user in crowd)


def test_the_traps_are_there(crowd) -> None:
    def share(trap) -> float:
        return sum(map(bool, map(trap, crowd))) / len(crowd)

    def names(user: dict) -> str:
        return user["name"]["first"] + user["name"]["last"]

    def street(user: dict) -> str:
        return user["location"]["street"]["name"]

    assert 0.14 < share(lambda user: not names(user).isascii()) < 0.26
    assert 0.42 < share(lambda user: user["dob"]["date"] < "1970") < 0.48
    assert 0.14 < share(lambda user: user["id"]["value"] is None) < 0.24
    assert 0.80 < share(lambda user: isinstance(user["location"]["postcode"], int)) < 0.90
    # Often enough for a batch of 500 to hold each.
    for trap in (
        lambda user: "'" in names(user) + street(user),
        lambda user: '"' in street(user),
        lambda user: "\\" in street(user),
        lambda user: "\u200c" in user["location"]["city"],
        lambda user: any(map(unicodedata.combining, names(user))),
        lambda user: street(user) != street(user).strip(),
        lambda user: str(user["location"]["postcode"]).startswith("0"),
    ):
        assert share(trap) > 0.01
    assert len({user["login"]["uuid"] for user in crowd}) < 0.99 * len(crowd)


@pytest.mark.parametrize("results", ["5001", "0", "-1", "many", "9" * 30])
def test_what_the_server_does_not_take_gives_one(source_url, results: str) -> None:
    answer = get(source_url, seed="x-", results=results).json()
    assert len(answer["results"]) == 1
    assert answer["info"] == {"seed": "x-", "results": 1, "page": 1, "version": "1.4"}


def test_without_a_seed_everybody_is_new(source_url) -> None:
    first, second = get(source_url).json(), get(source_url).json()
    assert first["info"]["seed"] != second["info"]["seed"]


def test_an_unknown_version_is_a_404_in_text(source_url) -> None:
    answer = get(source_url.replace("1.4", "9.9"))
    assert (answer.status_code, answer.text) == (404, "Not Found")


def test_the_newest_version_is_the_default(source_url) -> None:
    bare = source_url.replace("1.4/", "")
    assert (
        get(bare, seed="x-").json()["results"][0]["login"]
        == get(source_url, seed="x-").json()["results"][0]["login"]
    )


def test_too_many_users_are_a_429_until_the_window_has_passed() -> None:
    limit = offline_source.RateLimit(100, window=0.3)
    assert limit.take("10.0.0.1", 60) is None
    assert limit.take("10.0.0.1", 60) == 120
    assert limit.take("10.0.0.2", 60) is None, "another address"
    time.sleep(0.35)
    assert limit.take("10.0.0.1", 60) is None


def test_the_rate_limit_holds_over_http() -> None:
    import threading

    with offline_source.Server("127.0.0.1", 0, rate_limit=100) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        url = f"http://127.0.0.1:{server.server_port}/api/1.4/"
        answers = [get(url, results=60) for _ in range(2)]
        no_control = requests.get(f"http://127.0.0.1:{server.server_port}/control/fault", timeout=10)
        server.shutdown()
    assert [answer.status_code for answer in answers] == [200, 429]
    assert "error" in answers[1].json()
    assert no_control.status_code == 404, "without a token there is no control"


def test_control_needs_the_token(source_server, source_url, control_token) -> None:
    url = source_url.replace("api/1.4/", "control/fault")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {control_token}"}):
        for method in ("GET", "PUT", "DELETE"):
            answer = requests.request(method, url, headers=headers, json={"kind": "503"}, timeout=10)
            assert answer.status_code == 401
    assert source_server.fault.get() == {"kind": None, "count": None}


def test_control_switches_a_fault_for_a_number_of_requests(source_url, control_token) -> None:
    url = source_url.replace("api/1.4/", "control/fault")
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {control_token}"
        assert session.put(url, data=json.dumps({"kind": "503", "count": 2}), timeout=10).json() == {
            "kind": "503",
            "count": 2,
        }
        assert [get(source_url).status_code for _ in range(3)] == [503, 503, 200]
        session.put(url, data=json.dumps({"kind": "403", "count": None}), timeout=10)
        assert [get(source_url).status_code for _ in range(3)] == [403] * 3
        assert session.delete(url, timeout=10).json() == {"kind": None, "count": None}
        assert get(source_url).status_code == 200
        assert session.get(url, timeout=10).json() == {"kind": None, "count": None}


def test_an_operator_switches_faults(source_server, source_url, control_token) -> None:
    operator = Source(source_url, "randomuser", control_token)
    offline_source.control(operator, "503", 1)
    assert [get(source_url).status_code for _ in range(2)] == [503, 200]
    offline_source.control(operator, "empty")
    assert source_server.fault.get() == {"kind": "empty", "count": None}
    offline_source.control(operator, None)
    assert source_server.fault.get() == {"kind": None, "count": None}
    with pytest.raises(offline_source.ControlError, match=r"HTTP 400 .*unknown kind"):
        offline_source.control(operator, "flood")
    with pytest.raises(offline_source.ControlError, match="HTTP 401"):
        offline_source.control(Source(source_url, "randomuser", "wrong"), None)
    with pytest.raises(offline_source.ControlTokenError, match="no control token"):
        offline_source.control(Source(source_url, "randomuser"), None)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{}",
        "[]",
        "null",
        '{"kind": "unknown"}',
        '{"kind": "503", "count": 0}',
        '{"kind": "503", "count": "1"}',
    ],
)
def test_control_refuses_what_it_does_not_understand(
    source_server, source_url, control_token, body: str
) -> None:
    url = source_url.replace("api/1.4/", "control/fault")
    answer = requests.put(url, data=body, headers={"Authorization": f"Bearer {control_token}"}, timeout=10)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert source_server.fault.get()["kind"] is None


def test_it_is_fast_enough(people) -> None:
    began = time.process_time()
    people.page("1.4", "speed-", 1, 5_000, NOW)
    assert time.process_time() - began < 3
