"""The limit of the disk: what the same SQLite library does with the same pragmas and nothing around it.

Owns three rates: one-row commits (each durable before the next), rows in groups, and claims with their finishes in batches.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from outlast import sqlite3

_TABLES = """
create table journal (task_id integer, seq integer, path text, event text, name text, at integer, input blob, data blob,
  primary key (task_id, seq)) strict, without rowid;
create table task (id integer primary key, status text, due_at integer, claim integer, input blob, output blob) strict;
create index task_due on task (due_at) where due_at is not null;
"""
_INSERT = "insert into journal values (?, ?, '1', 'completed', 'nothing', 1, x'7b7d', x'31')"


def _open(path: Path) -> Any:
    connection = sqlite3.connect(path, isolation_level=None)
    is_new = not connection.execute("select 1 from sqlite_schema").fetchone()
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("pragma wal_autocheckpoint = 4000")
    if is_new:
        for statement in _TABLES.split(";"):
            connection.execute(statement)
    return connection


def one_row_commits(path: Path, seconds: float) -> float:
    """Commits of one row a second, WAL and `synchronous=FULL`: each is on the disk before the next begins."""
    return _groups(path, seconds, 1)


def grouped_rows(path: Path, seconds: float, *, size: int = 64) -> float:
    """Rows a second where `size` share a commit."""
    return _groups(path, seconds, size)


def _groups(path: Path, seconds: float, size: int) -> float:
    connection = _open(path)
    execute = connection.execute
    task_id = (execute("select max(task_id) from journal").fetchone()[0] or 0) + 1
    rows = 0
    began = time.perf_counter()
    while (passed := time.perf_counter() - began) < seconds:
        execute("begin immediate")
        for _ in range(size):
            execute(_INSERT, (task_id, rows))
            rows += 1
        execute("commit")
    connection.close()
    return rows / passed


def claims(path: Path, count: int, *, size: int = 64) -> float:
    """Tasks a second that are claimed and finished, `size` in each transaction."""
    connection = _open(path)
    execute = connection.execute
    execute("begin immediate")
    connection.executemany(
        "insert into task (status, due_at, claim, input) values ('pending', ?, 0, x'7b7d')", [(i,) for i in range(count)]
    )
    execute("commit")
    done = 0
    began = time.perf_counter()
    while True:
        execute("begin immediate")
        rows = execute(
            "update task set status = 'running', due_at = null, claim = claim + 1 where id in"
            " (select id from task where due_at is not null order by due_at limit ?) returning id, claim, input",
            (size,),
        ).fetchall()
        execute("commit")
        if not rows:
            break
        execute("begin immediate")
        for task_id, claim, _ in rows:
            execute("update task set status = 'completed', output = x'31' where id = ? and claim = ?", (task_id, claim))
        execute("commit")
        done += len(rows)
    passed = time.perf_counter() - began
    connection.close()
    return done / passed


class Raw:
    """Measures the one-row rate just before and just after something else: the pair of a ratio."""

    def __init__(self, path: Path, seconds: float = 0.4) -> None:
        self._path = path
        self._seconds = seconds
        self._before = one_row_commits(path, seconds)

    def rate(self) -> float:
        return (self._before + one_row_commits(self._path, self._seconds)) / 2
