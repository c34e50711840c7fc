"""Opening the file, writing to it, and every way in which that fails."""

from __future__ import annotations

import gc
import os
import sqlite3 as standard_sqlite3
import stat
import subprocess
import sys
import threading
import weakref
from contextlib import closing
from pathlib import Path

import pytest

import outlast
from outlast.errors import (
    FileMissing,
    NetworkFileSystem,
    NotADatabase,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreReplaced,
)
from outlast.store import library
from outlast.store.connection import ThreadConnections, connect, filesystem, transaction
from outlast.store.library import sqlite3
from outlast.store.translation import translate
from outlast.store.turn import Turn


@pytest.fixture
def connection(tmp_path):
    opened = connect(tmp_path / "app.db", create=True)
    opened.execute("create table t (x integer primary key, y text)")
    yield opened
    opened.close()


def _mode(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_new_file_and_what_stands_beside_it_are_for_the_owner_alone(connection, tmp_path):
    with transaction(connection, Turn(tmp_path / "app.db")):
        connection.execute("insert into t values (1, 'a')")
    assert {path.name: _mode(path) for path in tmp_path.iterdir()} == {
        "app.db": 0o600,
        "app.db-wal": 0o600,
        "app.db-shm": 0o600,
        "app.db-turn": 0o600,
    }


def test_every_commit_reaches_the_disk(connection):
    assert connection.execute("pragma synchronous").fetchone()[0] == 2
    assert connection.execute("pragma journal_mode").fetchone()[0] == ("wal" if library.safe else "delete")


def test_with_normal_durability_a_commit_is_left_to_the_system(tmp_path):
    connection = connect(tmp_path / "app.db", create=True, durability="normal")
    assert connection.execute("pragma synchronous").fetchone()[0] == 1
    connection.close()


def test_a_missing_file_is_not_created_by_whoever_only_looks(tmp_path):
    with pytest.raises(FileMissing, match=r"app\.db.*outlast up"):
        connect(tmp_path / "app.db", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("create", [True, False])
def test_a_missing_folder_is_named(tmp_path, create):
    with pytest.raises(FileMissing, match="folder"):
        connect(tmp_path / "none" / "app.db", create=create)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileMissing, match="not a folder"):
        connect(tmp_path / "file" / "app.db", create=True)


def test_a_folder_is_no_database(tmp_path):
    with pytest.raises(NotADatabase):
        connect(tmp_path, create=True)


@pytest.mark.parametrize("text", ["hello", "hello " * 10_000])
def test_a_text_file_is_no_database_and_stays_as_it_is(tmp_path, text):
    path = tmp_path / "notes.txt"
    path.write_text(text)
    with pytest.raises(NotADatabase):
        connect(path, create=True)
    assert path.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_file_becomes_a_database(tmp_path):
    (tmp_path / "app.db").touch(0o600)
    connect(tmp_path / "app.db", create=True).close()


def test_a_path_with_the_signs_of_an_address_is_only_a_path(tmp_path):
    path = tmp_path / "a?mode=memory#b%41.db"
    opened = connect(path, create=True)
    opened.execute("create table t (x)")
    opened.close()
    assert path.stat().st_size > 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_without_the_right_to_write_is_refused(connection, tmp_path):
    connection.close()
    (tmp_path / "app.db").chmod(0o400)
    with pytest.raises(StoreReadOnly):
        connect(tmp_path / "app.db", create=False)


def test_a_network_file_system_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(filesystem, "_mounts", lambda: [("/", "nfs4")])
    with pytest.raises(NetworkFileSystem):
        connect(tmp_path / "app.db", create=True)
    assert list(tmp_path.iterdir()) == []
    connect(tmp_path / "app.db", create=True, allow_network=True).close()


def test_a_foreign_file_keeps_its_journal_mode_when_one_only_looks(tmp_path):
    foreign = sqlite3.connect(tmp_path / "app.db")
    foreign.execute("create table theirs (x)")
    foreign.close()
    opened = connect(tmp_path / "app.db", create=False)
    assert opened.execute("pragma journal_mode").fetchone()[0] == "delete"
    opened.close()


def test_a_transaction_commits_what_its_block_did(connection, tmp_path):
    with transaction(connection, Turn(tmp_path / "app.db")):
        connection.execute("insert into t values (1, 'a')")
    assert connection.execute("select count(*) from t").fetchone()[0] == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_whatever_leaves_the_block_rolls_everything_back_and_frees_the_turn(connection, tmp_path, error):
    turn = Turn(tmp_path / "app.db")
    with pytest.raises(error), transaction(connection, turn):  # noqa: PT012
        connection.execute("insert into t values (1, 'a')")
        raise error
    assert connection.execute("select count(*) from t").fetchone()[0] == 0
    assert not connection.in_transaction
    assert turn.try_acquire()


def test_a_constraint_error_comes_as_it_is(connection):
    with pytest.raises(sqlite3.IntegrityError), transaction(connection, None):  # noqa: PT012
        connection.execute("insert into t values (1, 'a')")
        connection.execute("insert into t values (1, 'b')")


def test_a_commit_that_fails_rolls_back_and_raises(connection, tmp_path):
    connection.execute("create table child (x references t deferrable initially deferred)")
    connection.execute("pragma foreign_keys = on")
    turn = Turn(tmp_path / "app.db")
    with pytest.raises(sqlite3.IntegrityError), transaction(connection, turn):
        connection.execute("insert into child values (7)")
    assert not connection.in_transaction
    assert connection.execute("select count(*) from child").fetchone()[0] == 0
    assert turn.try_acquire()


def test_a_file_that_somebody_else_writes_is_reported_as_locked(connection, tmp_path):
    other = connect(tmp_path / "app.db", create=False)
    turn = Turn(tmp_path / "app.db")
    with (
        transaction(other, None),
        pytest.raises(StoreLocked, match=r"0\.1 s"),
        transaction(connection, turn, timeout_seconds=0.1),
    ):
        pass
    assert turn.try_acquire()
    turn.release()
    with transaction(connection, turn):
        connection.execute("insert into t values (1, 'a')")
    assert connection.execute("pragma busy_timeout").fetchone()[0] == 5000
    other.close()


def test_a_turn_that_is_never_given_up_delays_a_writer_but_does_not_stop_it(connection, tmp_path):
    held, turn = Turn(tmp_path / "app.db"), Turn(tmp_path / "app.db")
    assert held.acquire(1)
    with transaction(connection, turn, timeout_seconds=0.1):
        connection.execute("insert into t values (1, 'a')")
    assert connection.execute("select count(*) from t").fetchone()[0] == 1


def test_a_full_disk_is_reported_and_nothing_is_half_done(connection):
    pages = connection.execute("pragma page_count").fetchone()[0]
    connection.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(StoreFull), transaction(connection, None):  # noqa: PT012
        connection.execute("insert into t values (1, 'a')")
        connection.execute("insert into t values (2, ?)", ("x" * 100_000,))
    assert not connection.in_transaction
    connection.execute("pragma max_page_count = 100000")
    assert connection.execute("select count(*) from t").fetchone()[0] == 0
    with transaction(connection, None):
        connection.execute("insert into t values (1, 'a')")


def test_a_damaged_file_is_reported_as_damaged(connection, tmp_path):
    with transaction(connection, None):
        connection.executemany("insert into t values (?, ?)", [(i, "x" * 500) for i in range(200)])
    connection.close()
    path = tmp_path / "app.db"
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    opened = connect(path, create=False)
    with pytest.raises(StoreDamaged), transaction(opened, None):
        opened.execute("select sum(length(y)) from t").fetchone()
    opened.close()


def test_errors_are_told_apart_by_message_where_the_library_gives_no_code(tmp_path):
    assert isinstance(translate(sqlite3.OperationalError("database is locked"), "a.db"), StoreLocked)
    assert isinstance(translate(sqlite3.OperationalError("database or disk is full"), "a.db"), StoreFull)
    assert isinstance(translate(sqlite3.OperationalError("unable to open database file"), "a.db"), FileMissing)
    plain = translate(sqlite3.OperationalError("no such table: t"), "a.db")
    assert (type(plain), plain.may_pass) == (StoreError, False)


def test_a_file_that_is_there_and_cannot_be_opened_may_be_opened_later(tmp_path):
    path = tmp_path / "app.db"
    path.touch()
    # As where steps have leaked descriptors up to the limit: it must not fail the runs beside them.
    found = translate(sqlite3.OperationalError("unable to open database file"), path)
    assert (type(found), found.may_pass) == (StoreError, True)
    assert "ulimit -n" in found.hint


def test_each_thread_has_its_own_connection_which_ends_with_the_thread(tmp_path):
    connections = ThreadConnections(tmp_path / "app.db", create=True)
    mine = connections.get()
    assert connections.get() is mine
    seen: list[weakref.ref[object]] = []
    thread = threading.Thread(target=lambda: seen.append(weakref.ref(connections.get())))
    thread.start()
    thread.join()
    gc.collect()
    assert seen[0]() is None
    connections.close()
    with pytest.raises(StoreError, match="closed"):
        connections.get()
    with pytest.raises(sqlite3.ProgrammingError):
        mine.execute("select 1")


def test_a_thread_that_comes_after_the_file_was_removed_makes_no_other(tmp_path):
    connections = ThreadConnections(tmp_path / "app.db", create=True)
    connections.get()
    (tmp_path / "app.db").unlink()
    raised = []

    def come() -> None:
        try:
            connections.get()
        except StoreReplaced as error:
            raised.append(error)

    thread = threading.Thread(target=come)
    thread.start()
    thread.join()
    assert raised
    assert not (tmp_path / "app.db").exists()
    connections.close()


def test_a_forked_child_neither_uses_nor_closes_the_connection_that_it_inherited(tmp_path):
    code = """
import os, sys
from outlast.store.connection import ThreadConnections, transaction
connections = ThreadConnections(sys.argv[1], create=True)
mine = connections.get()
mine.execute("create table t (x)")
mine.execute("begin immediate")
mine.execute("insert into t values (1)")
child = os.fork()
if child == 0:
    theirs = connections.get()
    assert theirs is not mine
    assert theirs.execute("select count(*) from t").fetchone()[0] == 0
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert connections.get() is mine
mine.execute("commit")
print(mine.execute("select count(*) from t").fetchone()[0])
"""
    assert _run(code, tmp_path / "app.db") == "1"


def test_a_connection_that_is_opened_where_a_standard_stream_was_closed_costs_the_others_no_lock(tmp_path):
    code = """
import os, sys, time
from outlast.store.connection import connect
from outlast.run.guarded import take
path = sys.argv[1]
ours = connect(path, create=True)
ours.execute("create table t (x)")
held = []
for opens in (lambda: connect(path, create=False), lambda: take(path, "full")):
    os.closerange(0, 3)
    held.append(opens())
os.write(int(sys.argv[2]), b".")
time.sleep(60)
"""
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "app.db"), str(write)], pass_fds=(write,))
    os.close(write)
    try:
        assert os.read(read, 1) == b"."
        # By the library that removes it where it takes itself for the last one.
        with closing(standard_sqlite3.connect(tmp_path / "app.db")) as elsewhere:
            elsewhere.execute("select * from t").fetchall()
        assert (tmp_path / "app.db-wal").exists()
    finally:
        process.kill()
        process.wait()
        os.close(read)


def test_a_child_that_is_forked_while_other_threads_open_the_file_can_open_it(tmp_path):
    # The child has a copy of SQLite's own locks; of one that a thread of the parent had just then, nobody there lets go.
    code = """
import os, signal, sys, threading
from outlast.store.connection import ThreadConnections, connect
connections = ThreadConnections(sys.argv[1])
connect(sys.argv[1], create=True).close()
ended = threading.Event()
def open_often():
    while not ended.is_set():
        thread = threading.Thread(target=connections.get)
        thread.start()
        thread.join()
threads = [threading.Thread(target=open_often) for _ in range(2)]
for thread in threads:
    thread.start()
failed = 0
for _ in range(30):
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        connections.get()
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        failed += 1
        break
ended.set()
for thread in threads:
    thread.join()
print(failed)
"""
    assert _run(code, tmp_path / "app.db") == "0"


def test_two_processes_that_create_the_file_at_once_both_succeed(tmp_path):
    code = """
import sys
from outlast.store.connection import connect
sys.stdin.readline()
print(connect(sys.argv[1], create=True).execute("pragma journal_mode").fetchone()[0])
"""
    processes = [_start(code, tmp_path / "app.db") for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert answers == {"wal" if library.safe else "delete"}


def _start(code: str, path: Path) -> subprocess.Popen[str]:
    root = str(Path(outlast.__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )


def _run(code: str, path: Path) -> str:
    process = _start(code, path)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return output.strip()


def test_the_wal_is_copied_into_the_file_while_work_goes_on(tmp_path):
    with closing(connect(tmp_path / "app.db", create=True)) as connection:
        connection.execute("create table t (id integer primary key, b blob)")
        for _ in range(600):
            with transaction(connection, None):
                connection.execute("insert into t (b) values (zeroblob(100000))")
        written = 600 * 100_000
        assert (tmp_path / "app.db-wal").stat().st_size < written / 3
