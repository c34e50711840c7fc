"""A file that is removed, or replaced by another, while it is open: nobody goes on in what nobody else can find."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlast import Engine, sqlite3, step, workflow
from outlast.errors import FileMissing, StoreReplaced
from outlast.run import guarded
from outlast.store.connection import connect, opened_file

begun, may_end = threading.Event(), threading.Event()
told: list[BaseException] = []


@step
def opened_file_step() -> int:
    begun.set()
    may_end.wait(10)
    return 1


@workflow
def opened_file_run() -> None:
    try:
        opened_file_step()
    except Exception as error:
        told.append(error)


def _remove(path: Path) -> None:
    path.unlink()


def _replace(path: Path) -> None:
    shutil.copy(path.with_name("backup.db"), path.with_name("restored.db"))
    path.with_name("restored.db").replace(path)


def _remove_wal(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(opened_file, "_SECONDS", -1)
    Engine(tmp_path / "backup.db").close()
    begun.clear(), may_end.clear(), told.clear()
    with Engine(tmp_path / "app.db", grace="1s") as engine:
        yield engine
        may_end.set()


def _in_a_thread(function: Callable[[], object]) -> BaseException | None:
    raised: list[BaseException] = []

    def call() -> None:
        try:
            function()
        except StoreReplaced as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    return raised[0] if raised else None


@pytest.mark.parametrize("lose", [_remove, _replace, _remove_wal])
def test_whoever_has_lost_the_file_neither_reads_nor_writes_on(engine: Engine, lose: Callable[[Path], None]) -> None:
    path = Path(engine.path)
    run = engine.start(opened_file_run)
    mine = sqlite3.connect(path)
    mine.execute("select 1 from outlast_task").fetchone()
    lose(path)
    before = os.listdir(path.parent)
    with pytest.raises(StoreReplaced, match="while this process had it open"):
        engine.start(opened_file_run)
    with pytest.raises(StoreReplaced):
        assert run.status
    if lose is not _remove_wal:
        with pytest.raises(StoreReplaced):
            engine.start(opened_file_run.options(connection=mine))
    mine.close()
    if lose is not _remove_wal:
        assert _in_a_thread(engine.store.connection), "a connection that comes late is of another file"
        assert _in_a_thread(engine.store._claiming.get)
    assert os.listdir(path.parent) == before


def test_what_the_wal_held_when_it_was_removed_is_saved_as_its_users_end(engine: Engine) -> None:
    run = engine.start(opened_file_run)
    _remove_wal(Path(engine.path))
    with pytest.raises(StoreReplaced):
        engine.start(opened_file_run)
    engine.close()
    with Engine(engine.path) as again:
        assert [found.id for found in again.runs()] == [run.id]


_ANOTHER = """
import sys
from outlast.operations import Start
from outlast.store.sqlite import SqliteStore
store = SqliteStore(sys.argv[1])
store.commit(Start("run2", "run", "w", "workflow:w", "default", b"[]", chain="run2"))
store.close()
"""


def test_who_has_lost_its_shared_memory_writes_nothing_over_what_others_wrote_since(engine: Engine) -> None:
    engine.start(opened_file_run)
    Path(engine.path + "-shm").unlink()
    subprocess.run([sys.executable, "-c", _ANOTHER, engine.path], check=True)
    with pytest.raises(StoreReplaced, match="-shm was replaced"):
        engine.start(opened_file_run)
    engine.close()
    # Looked at from elsewhere: here, SQLite knows the file by what this process still has open.
    look = "import sys; from outlast import Engine; print(len(Engine(sys.argv[1]).runs()))"
    assert subprocess.run([sys.executable, "-c", look, engine.path], check=True, capture_output=True).stdout == b"2\n"


def test_an_agent_that_has_lost_its_file_ends_and_tells_its_runs_nothing(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(engine.path)
    engine.start(opened_file_run)
    with engine.agent():
        assert begun.wait(10)
        (agent,) = (thread for thread in threading.enumerate() if thread.name == "outlast-agent")
        _replace(path)
        restored = path.read_bytes()
        agent.join(10)
        assert not agent.is_alive()
        may_end.set()
    assert told == []
    assert [record.message for record in caplog.records if "agent has ended" in record.message]
    assert path.read_bytes() == restored


def test_the_connection_of_a_transaction_makes_no_file_and_follows_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_file, "_SECONDS", -1)
    path = tmp_path / "app.db"
    with pytest.raises(FileMissing):
        guarded.take(str(path), "full")
    assert not path.exists()
    connect(path, create=True).close()
    first = guarded.take(str(path), "full")
    guarded.give_back(first)
    assert guarded.take(str(path), "full") is first
    guarded.give_back(first)
    connect(tmp_path / "backup.db", create=True).close()
    _replace(path)
    second = guarded.take(str(path), "full")
    assert second is not first
    second.really_close()
    guarded._thread.held = None
