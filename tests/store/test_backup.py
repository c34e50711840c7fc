"""A backup is whole, private, and never overwrites."""

from __future__ import annotations

import os

import pytest

from outlast.errors import AlreadyExists, FileMissing, NotADatabase
from outlast.store import backup as backup_module
from outlast.store.backup import backup
from outlast.store.connection import connect, transaction
from outlast.store.library import sqlite3


@pytest.fixture
def source(tmp_path):
    opened = connect(tmp_path / "app.db", create=True)
    opened.execute("create table t (x integer primary key, y text)")
    with transaction(opened, None):
        opened.executemany("insert into t values (?, ?)", [(i, "x" * 1000) for i in range(20_000)])
    yield opened
    opened.close()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "backups"
    made.mkdir()
    return made


def _count(path) -> int:
    copy = sqlite3.connect(path)
    assert copy.execute("pragma integrity_check").fetchone()[0] == "ok"
    count: int = copy.execute("select count(*) from t").fetchone()[0]
    copy.close()
    return count


def test_a_backup_is_a_whole_private_database(source, tmp_path, folder):
    backup(tmp_path / "app.db", folder / "copy.db")
    assert [path.name for path in folder.iterdir()] == ["copy.db"]
    assert (folder / "copy.db").stat().st_mode & 0o777 == 0o600
    assert _count(folder / "copy.db") == 20_000


def test_writes_go_on_meanwhile_and_the_backup_is_one_instant(source, tmp_path, folder):
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        with transaction(source, None):
            source.execute("insert into t (y) values ('later')")

    backup(tmp_path / "app.db", folder / "copy.db", progress=progress)
    assert len(seen) > 1
    assert seen[-1][0] == seen[-1][1]
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert _count(folder / "copy.db") == 20_000
    assert source.execute("select count(*) from t").fetchone()[0] == 20_000 + len(seen)


@pytest.mark.parametrize("kind", ["file", "folder", "dead link"])
def test_a_target_that_exists_is_refused(source, tmp_path, folder, kind):
    target = folder / "copy.db"
    match kind:
        case "file":
            target.write_text("precious")
        case "folder":
            target.mkdir()
        case _:
            target.symlink_to(folder / "nowhere")
    with pytest.raises(AlreadyExists):
        backup(tmp_path / "app.db", target)
    assert [path.name for path in folder.iterdir()] == ["copy.db"]
    if kind == "file":
        assert target.read_text() == "precious"


def test_a_target_that_appears_meanwhile_is_not_overwritten(source, tmp_path, folder):
    def progress(done: int, total: int) -> None:
        (folder / "copy.db").write_text("precious")

    with pytest.raises(AlreadyExists):
        backup(tmp_path / "app.db", folder / "copy.db", progress=progress)
    assert (folder / "copy.db").read_text() == "precious"
    assert len(list(folder.iterdir())) == 1


def test_a_file_system_without_links_is_served_too(source, tmp_path, folder, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(backup_module.os, "link", refuse)
    backup(tmp_path / "app.db", folder / "copy.db")
    assert _count(folder / "copy.db") == 20_000
    assert os.listdir(folder) == ["copy.db"]


def test_a_missing_folder_and_a_missing_source_are_named(source, tmp_path, folder):
    with pytest.raises(FileMissing, match="folder"):
        backup(tmp_path / "app.db", tmp_path / "none" / "copy.db")
    with pytest.raises(FileMissing):
        backup(tmp_path / "none.db", folder / "copy.db")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(NotADatabase):
        backup(tmp_path / "notes.txt", folder / "copy.db")
    assert list(folder.iterdir()) == []


def test_a_backup_that_is_interrupted_leaves_nothing(source, tmp_path, folder):
    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backup(tmp_path / "app.db", folder / "copy.db", progress=progress)
    assert list(folder.iterdir()) == []
    with transaction(source, None):
        source.execute("insert into t (y) values ('later')")
