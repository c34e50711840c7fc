"""Files of every schema that there was, with runs under way in them: migrated, everything goes on; killed there, nothing is lost.

An old file is made by the first migrations alone. What it holds is what today's engine writes, without the tables and columns that
were not there yet.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from outlast import Every, clock, sleep, step, wait_signal, workflow
from outlast import operations as op
from outlast.doctor import examine
from outlast.store import migrations
from outlast.store.connection import connect
from outlast.store.library import sqlite3
from outlast.store.sqlite import SqliteStore
from outlast.supervisor import Supervisor
from outlast.testing import DrivenEngine, driven_engine

from . import launched

pytestmark = pytest.mark.crash

ENGINE = Path(__file__).resolve().parents[2] / "engine"
NEWEST = migrations.newest()
OLD = range(1, NEWEST)

done: list[str] = []


@step(name="upgrade_note")
def note(text: str) -> str:
    done.append(text)
    return text


@note.compensation
def undo_note(result: str | None, text: str) -> None:
    done.append(f"undo {text}")


@workflow(name="upgrade_days")
def days(text: str) -> str:
    note(text)
    sleep("1d")
    return note(f"{text} later")


@workflow(name="upgrade_parent")
def parent() -> str:
    return days.start("child").result() + note.submit("part").result()


@workflow(name="upgrade_asks")
def asks() -> int:
    note("asks")
    return wait_signal("go", int)


@workflow(name="upgrade_saga")
def saga() -> None:
    note("saga")
    sleep("1d")
    raise ValueError("no")


@workflow(name="upgrade_daily", schedule=Every("12h"))
def daily() -> None:
    pass


NEEDS = {"workflow:upgrade_days": "1"}


def make_runs(engine: DrivenEngine) -> dict[str, str]:
    """One run of each shape, as far as it comes by itself; one of them was claimed by an agent that is gone."""
    store = engine.store
    runs = {
        "days": engine.start(days, "days"),
        "parent": engine.start(parent),
        "asks": engine.start(asks),
        "asked wrongly": engine.start(asks),
        "saga": engine.start(saga),
        "ended": engine.start(days, "ended"),
    }
    engine.until_idle()
    runs["asked wrongly"].signal("go", "no number")
    runs["ended"].cancel()
    engine.until_idle()
    runs["delayed"] = engine.start(days.options(delay="1h", unique_key="one", key="k"), "delayed")
    runs["held"] = engine.start(days, "held")
    agent = store.commit(op.RegisterAgent("gone", "elsewhere/0/0", clock.boot_id(), 1, "1", 8, None, 1, NEEDS))
    assert len(store.commit(op.Claim(agent, 1, NEEDS))) == 1
    return {name: run.id for name, run in runs.items()}


def make_old(new: Path, old: Path, version: int, schema: Path) -> None:
    """Write what `new` holds into a file of an earlier version."""
    schema.mkdir()
    for file in sorted((files("outlast.store") / "schema").iterdir(), key=lambda file: file.name)[:version]:
        shutil.copy(str(file), schema)
    connection = connect(old, create=True)
    assert len(migrations.migrate(connection, str(old), schema=schema)) == version
    connection.execute("attach ? as new", (str(new),))
    tables = [name for (name,) in connection.execute("select name from main.sqlite_schema where type = 'table' and name like 'outlast%'")]
    connection.execute("begin")
    for table in set(tables) - {"outlast_meta", "outlast_migrations"}:
        columns = ", ".join(name for (name,) in connection.execute("select name from pragma_table_info(?, 'main')", (table,)))
        connection.execute(f"insert into main.{table} ({columns}) select {columns} from new.{table}")
    connection.execute("commit")
    connection.close()


def make(tmp_path: Path, version: int) -> dict[str, str]:
    done.clear()
    with driven_engine(tmp_path / "new.db", schedules_of=sys.modules[__name__]) as engine:
        runs = make_runs(engine)
        engine.store.connection().execute("pragma wal_checkpoint(truncate)")
    make_old(tmp_path / "new.db", tmp_path / "outlast.db", version, tmp_path / "schema")
    return runs


def problems(store: SqliteStore) -> list[str]:
    of_the_file = ("integrity", "schema", "undo order")
    return [f"{one.name}: {one.detail}" for one in examine(store) if not one.ok and (one.query or one.name in of_the_file)]


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        tables = [name for (name,) in connection.execute("select name from sqlite_schema where type = 'table'")]
        return {table: connection.execute(f"select * from {table}").fetchall() for table in ["sqlite_schema", *tables]}
    finally:
        connection.close()


@pytest.mark.parametrize("version", OLD)
def test_runs_of_a_file_of_an_earlier_schema_go_on_after_its_migration(tmp_path: Path, version: int) -> None:
    runs = make(tmp_path, version)
    before = list(done)
    SqliteStore(tmp_path / "outlast.db", migrate=True).close()
    with driven_engine(tmp_path / "outlast.db", schedules_of=sys.modules[__name__]) as engine:
        supervisor = Supervisor(engine.store, engine.settings)
        supervisor.tick(engine.store.now())
        supervisor.stop()
        engine.until_idle()
        assert done == [*before, "held"], "a step whose outcome was journalled ran again"
        assert problems(engine.store) == []
        assert engine.start(days.options(unique_key="one"), "another").id == runs["delayed"]
        assert engine.start(days.options(key="k"), "another").id == runs["delayed"]
        engine.signal(runs["asks"], "go", 7)
        engine.signal(runs["asked wrongly"], "go", 8)
        engine.until_idle()
        engine.advance("49h")
        status = {name: engine.get(run).status for name, run in runs.items()}
        assert status == dict.fromkeys(runs, "completed") | {"saga": "compensated", "ended": "cancelled"}
        assert engine.get(runs["asked wrongly"]).result() == 8
        assert sorted(done[len(before) :]) == sorted(
            ["held", "held later", "days later", "child later", "part", "delayed", "delayed later", "undo saga"]
        )
        instants = [at for (at,) in engine.store.connection().execute("select tick from outlast_tick order by tick")]
        assert len(instants) >= 4
        assert problems(engine.store) == []


@pytest.mark.parametrize("point", ["before Backup", "after Backup", "within 2", f"within {NEWEST}", "before Migrate", "after Migrate"])
def test_a_migration_that_is_killed_leaves_the_old_schema_or_the_new_one_and_a_whole_backup(tmp_path: Path, point: str) -> None:
    make(tmp_path, 1)
    path = tmp_path / "outlast.db"
    old = content(path)
    (tmp_path / "pyproject.toml").write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST_")} | {"PYTHONPATH": str(ENGINE)}

    def migrate(**variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, launched.__file__, "migrate"], cwd=tmp_path, env=environment | variables, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=60,
        )  # fmt: skip

    killed = migrate(DIES_AT=point)
    assert killed.returncode == -signal.SIGKILL, f"the kill did not land: {killed.stdout}"
    backup = tmp_path / "outlast.db.schema-0001.bak"
    assert backup.exists() == (point != "before Backup"), "a backup has its name once it is complete"
    assert point == "before Backup" or content(backup) == old
    connection = connect(path, create=False)
    assert migrations.schema_version(connection) == (NEWEST if point == "after Migrate" else 1)
    connection.close()
    if point != "after Migrate":
        assert content(path) == old
    finished = migrate()
    assert finished.returncode == 0, finished.stdout
    with driven_engine(path, schedules_of=sys.modules[__name__]) as engine:
        assert problems(engine.store) == []
        assert engine.store.connection().execute("select count(*) from outlast_task where kind = 'run'").fetchone() == (9,)
    assert content(backup) == old
