"""What an error of the database means: whether waiting may mend it."""

import os
import sqlite3
from pathlib import Path

import pytest
from pg8000 import exceptions as pg
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from icestream.errors import SessionError, StoreUnavailable
from icestream.flow.storage import schema
from icestream.flow.storage.copying import copy_store
from icestream.flow.storage.location import Server
from icestream.flow.storage.store import Store, append_command
from icestream.flow.storage.store_trouble import explain
from services.postgres import ThrowawayServer

SERVER = Server("127.0.0.1", 9, "me", "em", "lyso", "disable")  # the port that discards: nobody listens


@pytest.mark.parametrize(
    ("code", "heals"),
    [
        ("08006", True),
        ("25006", True),
        ("25P03", True),
        ("40001", True),
        ("40P01", True),
        ("53100", True),
        ("53300", True),
        ("55P03", True),
        ("57014", True),
        ("57P01", True),
        ("57P03", True),
        ("58030", True),
        ("22021", False),
        ("23505", False),
        ("28P01", False),
        ("3D000", False),
        ("42501", False),
        ("42P01", False),
        ("XX001", False),
    ],
)
def test_what_a_server_answers_says_whether_it_may_heal(code: str, heals: bool) -> None:
    error = DBAPIError("COMMIT", {}, pg.DatabaseError({"S": "ERROR", "C": code, "M": "something is wrong"}))
    trouble = explain(SERVER, error, "cannot be written")
    assert f"cannot be written: something is wrong (SQLSTATE {code})" in str(trouble)
    assert isinstance(trouble, StoreUnavailable) is heals


@pytest.mark.parametrize(
    ("message", "heals"),
    [
        ("network error", True),
        ("connection is closed", True),
        ("Server refuses SSL", False),
        ("server requesting MD5 password authentication, but no password was provided", False),
    ],
)
def test_a_connection_that_is_lost_may_heal_and_one_that_is_refused_does_not(message: str, heals: bool) -> None:
    trouble = explain(SERVER, DBAPIError("", {}, pg.InterfaceError(message)), "cannot be written")
    assert isinstance(trouble, StoreUnavailable) is heals


def test_a_server_that_is_not_there_is_unavailable() -> None:
    for act in (lambda: Store(SERVER).claim(), lambda: append_command(SERVER, "retry", {}, author="me")):
        with pytest.raises(StoreUnavailable, match=r"Can't create a connection to host 127\.0\.0\.1 and port 9"):
            act()


def claimed(tmp_path: Path) -> Store:
    store = Store(tmp_path / "icestream.db")
    store.claim()
    return store


def fill(store: Store, n_bytes: int) -> None:
    with store.transaction() as connection:
        values = {"seq": store.next_seq(), "level": "info", "message": "x" * n_bytes, "at": 0.0}
        connection.execute(insert(schema.notice).values(values))


def test_a_full_disk_is_unavailable_and_heals(tmp_path: Path) -> None:
    store = claimed(tmp_path)
    with store.transaction() as connection:
        pages = connection.execute(text("PRAGMA page_count")).scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(StoreUnavailable, match="cannot be written: database or disk is full"):
        fill(store, 10**6)
    fill(store, 10**6)  # the next transaction connects anew, and by now there is room
    store.close("done")


def test_a_store_that_may_only_be_read_is_unavailable(tmp_path: Path) -> None:
    store = claimed(tmp_path)
    with pytest.raises(StoreUnavailable, match="readonly database"), store.transaction() as connection:
        connection.exec_driver_sql("PRAGMA query_only = ON")
    fill(store, 1)
    store.close("done")


def test_a_store_that_was_replaced_is_unavailable(tmp_path: Path) -> None:
    store = claimed(tmp_path)
    store.location.rename(tmp_path / "old.db")
    sqlite3.connect(tmp_path / "icestream.db").close()
    (tmp_path / "icestream.db").touch()
    with pytest.raises(StoreUnavailable, match="is missing"):
        fill(store, 1)
    os.replace(tmp_path / "old.db", tmp_path / "icestream.db")  # noqa: PTH105
    fill(store, 1)
    store.close("done")


def test_a_damaged_store_does_not_heal(tmp_path: Path) -> None:
    store = claimed(tmp_path)
    store.close("done")
    content = bytearray((tmp_path / "icestream.db").read_bytes())
    content[4096:] = b"\xee" * (len(content) - 4096)
    (tmp_path / "icestream.db").write_bytes(content)
    with pytest.raises(SessionError, match=r"cannot be used as a store: .*(malformed|corrupt)") as refused:
        Store(tmp_path / "icestream.db").claim()
    assert not isinstance(refused.value, StoreUnavailable)


def test_a_store_that_cannot_be_copied_says_why(tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_bytes(b"no database " * 1000)
    with pytest.raises(SessionError, match=r"letter\.db: cannot be copied to .*copy\.db: file is not a database"):
        copy_store(tmp_path / "letter.db", tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_a_command_for_a_session_that_was_never_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="has not been run yet"):
        append_command(tmp_path / "icestream.db", "retry", {}, author="me")
    assert not (tmp_path / "icestream.db").exists()


@pytest.mark.services
def test_a_wrong_password_and_a_missing_one_do_not_heal(
    postgres_server: ThrowawayServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server = Server("127.0.0.1", postgres_server.port, "icestream", "postgres", "lyso")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGPASSWORD", "wrong-secret")
    with pytest.raises(SessionError, match="password authentication failed") as refused:
        Store(server).claim()
    assert not isinstance(refused.value, StoreUnavailable)
    assert "wrong-secret" not in str(refused.value)
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(SessionError, match="a password comes from ~/") as refused:
        Store(server).claim()
    assert not isinstance(refused.value, StoreUnavailable)


@pytest.mark.services
def test_results_without_their_schema_are_not_processed_again(postgres_server: ThrowawayServer, tmp_path: Path) -> None:
    server = Server("127.0.0.1", postgres_server.port, "icestream", "postgres", "icestream_moved", derived_for=tmp_path)
    (tmp_path / "steps" / "ctf").mkdir(parents=True)
    (tmp_path / "steps" / "ctf" / "a.mrc").touch()
    with pytest.raises(SessionError, match=r"the session was moved or renamed since.*\?schema=NAME"):
        Store(server).claim()
    (tmp_path / "steps" / "ctf" / "a.mrc").unlink()
    store = Store(server)
    store.claim()
    store.close("done")


@pytest.mark.services
def test_a_server_is_reached_through_its_unix_socket_too(postgres_server: ThrowawayServer) -> None:
    store = Store(Server(str(postgres_server.folder), postgres_server.port, "icestream", "postgres", "icestream_by_socket"))
    store.claim()
    fill(store, 1)
    store.close("done")
