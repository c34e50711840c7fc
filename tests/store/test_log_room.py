"""Room in a young WAL: it is there before a commit needs it, and nothing else of the file has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import Driver, driver

from outlast.store import log_room
from outlast.store.sqlite import SqliteStore
from outlast.store.turn import Turn

ROOM = 8 << 20


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Driver]:
    with driver(tmp_path / "app.db") as made:
        yield made


def wal_bytes(store: SqliteStore) -> int:
    return os.path.getsize(f"{store.path}-wal")


def test_a_young_wal_grows_by_what_counts_for_nothing(file: Driver) -> None:
    file.start("r")
    before = file.dump()
    pages = file.query("pragma page_count")
    assert wal_bytes(file.store) < ROOM
    assert file.store.make_room()
    assert ROOM <= wal_bytes(file.store) < 2 * ROOM
    assert file.dump() == before
    assert file.query("pragma page_count") == pages
    assert file.query("select 1 from sqlite_schema where name = 'outlast_filler'") == []
    file.start("after")
    other = SqliteStore(file.store.path)
    try:
        # Read anew by who has not seen the frames come: they end with the last commit.
        assert other.connection().execute("select count(*) from outlast_task").fetchone() == (2,)
        assert other.connection().execute("pragma integrity_check").fetchone() == ("ok",)
    finally:
        other.close()


def test_commits_go_into_the_room_and_not_behind_it(file: Driver) -> None:
    assert file.store.make_room()
    size = wal_bytes(file.store)
    for number in range(20):
        file.start(f"r{number}")
    assert wal_bytes(file.store) == size


def test_room_is_made_once_and_not_where_there_is_enough(file: Driver) -> None:
    assert file.store.make_room()
    assert not file.store.make_room()
    other = SqliteStore(file.store.path)
    try:
        assert not other.make_room(), "another process of the same file finds it there"
    finally:
        other.close()


def test_no_room_is_made_where_the_disk_has_little(file: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_room, "_free_bytes", lambda path: 100 << 20)
    size = wal_bytes(file.store)
    assert not file.store.make_room()
    assert wal_bytes(file.store) == size


def test_a_file_that_may_not_grow_is_written_without_room(file: Driver) -> None:
    claiming = file.store._claiming.get()
    claiming.execute("pragma max_page_count = 200")
    assert not file.store.make_room()
    assert not claiming.in_transaction
    file.start("r")
    assert file.query("select uid from outlast_task") == [("r",)]


def test_room_is_not_made_while_somebody_writes(file: Driver) -> None:
    other = Turn(file.store.path)
    assert other.acquire(1.0)
    try:
        assert not file.store.make_room()
    finally:
        other.release()
        other.close()
    assert file.store.make_room(), "nothing was made, so it still can be"


def test_where_no_commit_waits_for_the_disk_no_room_is_made(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "app.db", create=True, durability="normal")
    try:
        assert not store.make_room()
    finally:
        store.close()
