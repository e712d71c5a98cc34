"""Users and outbox in a real PostgreSQL."""

import threading
import time

import pytest

from millrace import source, store
from millrace.users import User

SEED = "store-test-"


@pytest.fixture
def users(source_url: str) -> list[User]:
    return source.fetch(source_url, "randomuser", SEED, 200).users


def rows(connection, query: str) -> list[tuple]:
    with connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_users_arrive_value_for_value(connect, users) -> None:
    ingest = connect("ingest")
    assert store.store(ingest, users) == store.Stored(inserted=200, existing=0)
    columns = ", ".join(User._fields)
    stored = rows(ingest, f"SELECT {columns} FROM millrace.users ORDER BY position")  # noqa: S608
    for given, got in zip(users, stored, strict=True):
        expected = given._replace(
            user_id=str(given.user_id), batch_id=str(given.batch_id), login_uuid=str(given.login_uuid)
        )
        assert User(*got) == expected


def test_hostile_text_survives_copy(connect, users) -> None:
    hostile = [
        "\\N",
        "\\.",
        "\\",
        "a\tb\nc\rd",
        "'\"\\\\'",
        "",
        " edge ",
        "e\u0301\u200c",
        "{},\\t",
        "\x7f\x1b",
    ]
    named = [
        user._replace(first_name=text, id_value=text) for user, text in zip(users, hostile, strict=False)
    ]
    ingest = connect("ingest")
    store.store(ingest, named)
    assert rows(ingest, "SELECT first_name, id_value FROM millrace.users ORDER BY position") == [
        (text, text) for text in hostile
    ]


def test_an_outbox_row_for_each_inserted_user_and_none_for_a_replay(connect, users) -> None:
    ingest = connect("ingest")
    store.store(ingest, users[:150])
    assert store.store(ingest, users) == store.Stored(inserted=50, existing=150)
    assert store.store(ingest, users) == store.Stored(inserted=0, existing=200)
    queued = rows(ingest, "SELECT user_id FROM millrace.users_outbox")
    assert sorted(queued) == sorted((str(user.user_id),) for user in users)


def test_ages_may_differ_in_a_replay(connect, users) -> None:
    ingest = connect("ingest")
    store.store(ingest, users)
    older = [
        user._replace(received={**user.received, "dob": {**user.received["dob"], "age": 1000}})
        for user in users
    ]
    assert store.store(ingest, older) == store.Stored(inserted=0, existing=200)


def test_a_replay_that_differs_stores_nothing_and_names_users_and_fields(connect, users) -> None:
    ingest = connect("ingest")
    store.store(ingest, users[:10])
    changed = users[3]._replace(city="Elsewhere", received={**users[3].received, "nat": "XX"})
    with pytest.raises(store.ReplayDiffersError, match=rf"{changed.user_id}: city, received"):
        store.store(ingest, [changed, *users[10:]])
    assert rows(ingest, "SELECT count(*) FROM millrace.users") == [(10,)]


def test_a_secret_is_refused_by_the_database_too(connect, users) -> None:
    leaking = users[0]._replace(received={**users[0].received, "login": {"uuid": "", "password": "p"}})
    ingest = connect("ingest")
    with pytest.raises(store.RefusedUserError, match=r"page 1, position 0: .*received_holds_no_secret"):
        store.store(ingest, [leaking])
    assert rows(ingest, "SELECT count(*) FROM millrace.users_outbox") == [(0,)]


def test_two_at_once_store_a_batch_once(connect, users) -> None:
    results: list[store.Stored] = []
    sessions = [connect("ingest") for _ in range(2)]
    threads = [
        threading.Thread(target=lambda session=session: results.append(store.store(session, users)))
        for session in sessions
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.inserted for result in results) == [0, 200]
    assert rows(sessions[0], "SELECT count(*) FROM millrace.users_outbox") == [(200,)]


def test_status_of_a_batch_and_putting_it_back(connect, users) -> None:
    ingest, owner = connect("ingest"), connect("millrace")
    batch = str(users[0].batch_id)
    with pytest.raises(store.UnknownBatchError):
        store.batch_users(ingest, batch)
    with pytest.raises(store.UnknownBatchError):
        store.republish(ingest, batch)
    store.store(ingest, users)
    ids = [str(user.user_id) for user in users]
    assert [row.user_id for row in store.batch_users(ingest, batch)] == ids
    assert sorted(store.unpublished(ingest, batch)) == sorted(ids)
    assert store.republish(ingest, batch) == 0, "all of them wait already"
    with owner, owner.cursor() as cursor:
        cursor.execute("DELETE FROM millrace.users_outbox")
        cursor.execute(
            "INSERT INTO millrace.users_quarantine (user_id, batch_id, error) VALUES (%s, %s, 'bad')",
            (ids[0], batch),
        )
    assert store.quarantined(ingest, batch) == {ids[0]: "bad"}
    assert store.republish(ingest, batch, ids[:2]) == 2
    assert store.quarantined(ingest, batch) == {}
    assert sorted(store.unpublished(ingest, batch)) == sorted(ids[:2])


def test_retention_keeps_what_is_not_published(connect, users) -> None:
    ingest, owner = connect("ingest"), connect("millrace")
    store.store(ingest, users)
    assert rows(ingest, "SELECT millrace.delete_users(now() + interval '1 day')") == [(0,)]
    with owner, owner.cursor() as cursor:
        cursor.execute("DELETE FROM millrace.users_outbox WHERE id % 2 = 0")
        gone = cursor.rowcount
    assert rows(ingest, "SELECT millrace.delete_users(now() + interval '1 day', 60)") == [(60,)]
    assert rows(ingest, "SELECT millrace.delete_users(now() + interval '1 day')") == [(gone - 60,)]
    assert rows(ingest, "SELECT millrace.delete_users(now() - interval '1 day')") == [(0,)]


def test_the_speed_that_the_design_counts_on(connect, source_url) -> None:
    """A tenth of what the store does on an idle machine: slower than this is per-row work that crept in."""
    users = source.fetch(source_url, "randomuser", "store-speed-", 5000).users
    began = time.monotonic()
    store.store(connect("ingest"), users)
    assert len(users) / (time.monotonic() - began) > 3000
