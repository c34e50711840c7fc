"""Two SQLite libraries never meet on one file."""

from __future__ import annotations

import os
import sqlite3 as standard
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from outlast.errors import WrongSQLite
from outlast.store import library
from outlast.store.connection import connect
from outlast.store.library import sqlite3

two_libraries = pytest.mark.skipif(not library.differs, reason="Python's own SQLite is recent enough")


def _version(*numbers: int) -> SimpleNamespace:
    return SimpleNamespace(sqlite_version_info=numbers)


def test_the_standard_library_is_taken_where_it_is_safe():
    own, other = _version(3, 51, 3), _version(3, 99, 0)
    assert library.choose(own, other) == (own, True)


def test_pysqlite3_is_taken_where_the_standard_library_is_older():
    own, other = _version(3, 40, 1), _version(3, 53, 4)
    assert library.choose(own, other) == (other, True)


def test_an_old_standard_library_alone_is_used_but_not_safe():
    own = _version(3, 40, 1)
    assert library.choose(own, None) == (own, False)
    assert library.choose(own, _version(3, 39, 0)) == (own, False)


@two_libraries
def test_values_are_bound_as_they_are_and_the_library_need_not_look_for_how():
    with closing(sqlite3.connect(":memory:")) as connection:
        given = (None, b"\x00\xff", True, 7, 0.5, "text")
        assert connection.execute("select ?, ?, ?, ?, ?, ?", given).fetchone() == given
    assert all((kind, sqlite3.PrepareProtocol) in sqlite3.adapters for kind in (bytes, bool, type(None)))


def test_the_other_library_is_refused_on_an_open_file_whatever_it_is_called(tmp_path, monkeypatch):
    path = tmp_path / "a b.db"
    link, hard = tmp_path / "link.db", tmp_path / "hard.db"
    connection = connect(path, create=True)
    link.symlink_to(path)
    os.link(path, hard)
    monkeypatch.chdir(tmp_path)
    for name in (str(path), path, os.fsencode(path), "a b.db", link, hard):
        with pytest.raises(WrongSQLite, match="from outlast import sqlite3"):
            standard.connect(name)
    for name in (f"file:{tmp_path}/a%20b.db?mode=ro", f"file://{tmp_path}/a%20b.db", "file:a%20b.db"):
        with pytest.raises(WrongSQLite):
            standard.connect(name, uri=True)
    connection.close()


@two_libraries
def test_other_files_are_free_for_every_library(tmp_path):
    connection = connect(tmp_path / "ours.db", create=True)
    standard.connect(tmp_path / "other.db").close()
    standard.connect(":memory:").close()
    standard.connect("").close()
    connection.close()


def test_users_may_open_the_file_with_the_engines_library(tmp_path):
    connection = connect(tmp_path / "a.db", create=True)
    library.sqlite3.connect(tmp_path / "a.db").close()
    connection.close()


@two_libraries
def test_the_file_is_free_again_once_the_engine_has_closed_it(tmp_path):
    connect(tmp_path / "a.db", create=True).close()
    standard.connect(tmp_path / "a.db").close()


@two_libraries
def test_a_file_that_the_other_library_has_open_is_refused(tmp_path):
    other = standard.connect(tmp_path / "a.db")
    other.execute("create table t (x)")
    with pytest.raises(WrongSQLite):
        connect(tmp_path / "a.db", create=False)
    other.close()
    connect(tmp_path / "a.db", create=False).close()


@two_libraries
def test_a_guarded_path_is_watched_before_the_file_exists(tmp_path):
    path = Path(tmp_path / "later.db")
    library.guard(path, guard := SimpleUser())
    path.touch()
    with pytest.raises(WrongSQLite):
        standard.connect(path)
    library.release(path, guard)
    standard.connect(path).close()


class SimpleUser:
    """Whoever uses a file."""
