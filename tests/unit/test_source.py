"""The client against the offline source on loopback, behaving and misbehaving."""

import logging
import socket
import threading
import time
from contextlib import closing

import pytest

from millrace import offline_source, source
from millrace.limits import RATE_WINDOW
from millrace.source import Patience

SEED = "client-test-"


def fetch(url: str, patience: Patience, count: int = 20, seed: str = SEED) -> source.Batch:
    return source.fetch(url, "randomuser", seed, count, patience=patience)


def test_a_batch_is_whole_and_repeats(source_url, impatient) -> None:
    first, again = fetch(source_url, impatient), fetch(source_url, impatient)
    assert len(first.users) == 20
    assert len({user.user_id for user in first.users}) == 20
    assert first == again
    assert {user.batch_id for user in first.users} == {first.users[0].batch_id}
    assert str(first.users[0].batch_id) == first.batch_id


def test_asking_for_more_gives_the_same_first_users_and_more_pages(source_url) -> None:
    patience = Patience()
    few, many = fetch(source_url, patience, 30), fetch(source_url, patience, 5_010)
    assert many.users[:30] == few.users
    assert [(user.page, user.position) for user in many.users[4_999:5_001]] == [(1, 4_999), (2, 0)]
    assert len({user.user_id for user in many.users}) == 5_010


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("429", "HTTP 429: this address has asked for as many users as the source gives in 5 minutes"),
        ("503", "HTTP 503, text/plain; charset=utf-8, 19 bytes that are not JSON"),
        ("403", "HTTP 403"),
        ("404", "HTTP 404"),
        ("html", "HTTP 200, text/html; charset=utf-8, .* not JSON"),
        ("empty", "0 users instead of 20"),
        ("half", "10 users instead of 20"),
        ("truncated", "connection failed: "),
        ("hang", "no answer within"),
        ("reset", "connection failed: ConnectionResetError"),
        ("error", "HTTP 200, error document: Something went wrong"),
    ],
)
def test_a_source_that_stays_ill_is_an_error_with_the_reason(
    source_server, source_url, kind: str, reason: str
) -> None:
    source_server.fault.set(kind)
    patience = Patience(deadline=2.5, connect_timeout=1, answer_timeout=1, first_wait=0.05, longest_wait=0.4)
    began = time.monotonic()
    with pytest.raises(source.SourceError, match=reason) as failure:
        fetch(source_url, patience)
    assert time.monotonic() - began < 5
    assert "Nothing was stored" in str(failure.value)
    source_server.fault.set(None)
    assert len(fetch(source_url, Patience()).users) == 20


@pytest.mark.parametrize(
    "kind", ["429", "503", "html", "empty", "half", "truncated", "reset", "error", "403"]
)
def test_a_source_that_recovers_is_no_error(source_server, source_url, impatient, kind: str, caplog) -> None:
    source_server.fault.set(kind, 2)
    with caplog.at_level(logging.WARNING, "millrace.source"):
        assert len(fetch(source_url, impatient).users) == 20
    assert len([record for record in caplog.records if record.name == "millrace.source"]) == 2


def test_waits_grow_and_are_bounded(source_server, source_url) -> None:
    source_server.fault.set("503")
    waits: list[float] = []
    patience = Patience(deadline=0.8, first_wait=0.01, longest_wait=0.08)
    with pytest.raises(source.SourceError):
        source.fetch(
            source_url,
            "randomuser",
            SEED,
            1,
            patience=patience,
            sleep=lambda s: (waits.append(s), time.sleep(s))[0],
        )
    assert 0.0075 <= waits[0] <= 0.0125
    assert max(waits) <= 0.1
    assert waits[3] > waits[0] * 3


def test_a_try_that_the_deadline_cuts_short_does_not_hide_the_reason(source_server, source_url) -> None:
    source_server.fault.set("503")
    patience = Patience(deadline=1, first_wait=0.1)
    with pytest.raises(source.SourceError, match=r"HTTP 503.* attempt 2, given up after 1 s"):
        source.fetch(
            source_url,
            "randomuser",
            SEED,
            patience=patience,
            sleep=lambda s: (source_server.fault.set("hang"), time.sleep(s)),
        )
    source_server.fault.set(None)


def test_a_server_that_trickles_is_cut_off(impatient) -> None:
    """Each byte comes well within any read timeout; the answer as a whole does not."""
    stop = threading.Event()

    def trickle(listener: socket.socket) -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
                try:
                    while not stop.wait(0.05):
                        connection.sendall(b" ")
                except OSError:
                    continue

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(0.1)
        thread = threading.Thread(target=trickle, args=(listener,))
        thread.start()
        began = time.monotonic()
        try:
            with pytest.raises(source.SourceError, match="not complete within"):
                fetch(f"http://127.0.0.1:{listener.getsockname()[1]}/", impatient)
        finally:
            stop.set()
            thread.join()
    assert time.monotonic() - began < 5


def test_nothing_listens(impatient) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(source.SourceError, match="ConnectionRefusedError"):
        fetch(f"http://127.0.0.1:{port}/", impatient)


def test_an_answer_for_another_seed_is_refused(source_server, source_url, impatient) -> None:
    """The query that the URL has already wins over the client's."""
    with pytest.raises(source.SourceError, match="another seed or page"):
        fetch(f"{source_url}?seed=other-", impatient)


def test_no_secret_reaches_a_log_or_an_error(source_server, source_url, impatient, caplog) -> None:
    from millrace.offline_source import PASSWORDS

    source_server.fault.set("half")
    with caplog.at_level(logging.DEBUG), pytest.raises(source.SourceError) as failure:
        fetch(source_url, impatient)
    source_server.fault.set(None)
    with caplog.at_level(logging.DEBUG):
        batch = fetch(source_url, impatient)
    everything = caplog.text + str(failure.value) + repr(batch.users)
    assert not [word for word in (*PASSWORDS, "sha256", "salt") if word in everything]


@pytest.mark.parametrize("run_id", ["", "manual__2026-11-21T08:00:00+00:00", "x" * 500, "ü/?&\n"])
def test_a_runs_seed_is_valid_and_its_own(run_id: str) -> None:
    seed = source.seed_for(run_id)
    assert source.check_seed(seed) == seed == source.seed_for(run_id)
    assert seed != source.seed_for(run_id + "1")


@pytest.mark.parametrize(
    ("seed", "reason"),
    [
        ("", "non-digit"),
        ("abc1", "page 11 of `a`"),
        ("has space-", "A-Z"),
        ("x" * 65, "1 to 64"),
        ("x" * 18, "not 18 of them"),
        ("x" * 17 + "\n", "A-Z"),
        ("abc-\n", "A-Z"),
        ("é-", "A-Z"),
    ],
)
def test_a_seed_that_the_source_would_misread_is_refused(
    source_url, seed: str, reason: str, impatient
) -> None:
    with pytest.raises(source.SeedError, match=reason):
        fetch(source_url, impatient, seed=seed)


@pytest.mark.parametrize(
    ("count", "rate_limit", "reason"),
    [
        (0, 20_000, "ask for 1 to 20,000 users"),
        (-1, 0, "ask for 1 to 50,000,000 users"),
        (20_001, 20_000, "gives an address 20,000 users in 5 minutes.*several runs"),
        (100_000, 20_000, "gives an address 20,000 users in 5 minutes.*several runs"),
        (31, 30, "30 users in 5 minutes"),
        (50_000_001, 0, "50,000,000 users"),
    ],
)
def test_more_than_the_source_gives_is_refused_before_it_is_asked(
    impatient, count: int, rate_limit: int, reason: str
) -> None:
    with pytest.raises(source.BatchSizeError, match=reason):
        source.fetch(
            "http://nobody.invalid/", "randomuser", SEED, count, rate_limit=rate_limit, patience=impatient
        )


def test_what_a_source_without_a_limit_gives_is_not_refused() -> None:
    assert source.check_count(100_000, rate_limit=0) == 100_000
    assert source.check_count(20_000) == 20_000


def test_a_limit_that_others_have_used_up_is_waited_for(
    source_server, source_url, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(source_server, "rate", offline_source.RateLimit(30, window=1.5))
    patience = Patience(deadline=30, first_wait=0.3, longest_wait=0.3)
    fetch(source_url, patience, 30)
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "millrace.source"):
        assert len(fetch(source_url, patience, 30, "other-").users) == 30
    assert time.monotonic() - began > 0.5
    assert "this address has asked for as many users as the source gives" in caplog.text


def test_patience_outlasts_the_window_of_the_limit() -> None:
    patience = Patience()
    assert patience.deadline - patience.longest_wait * 1.25 > RATE_WINDOW
