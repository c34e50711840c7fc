"""The file: its faults, its copies, its schema, and the first workflow."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from outlast import Engine
from outlast.store.library import sqlite3

from .conftest import Call


def test_a_missing_file_is_exit_3_and_is_not_made(outlast: Call, project: Path) -> None:
    for command in (["runs"], ["stats"], ["agents"], ["agent", "--once"], ["backup", "x.db"], ["show", "x"]):
        done = outlast(*command, "--json")
        assert done.code == 3, command
        assert done.error["type"] == "FileMissing"
    assert not (project / "outlast.db").exists()


def test_what_is_no_database_is_exit_7(outlast: Call, project: Path) -> None:
    (project / "text.db").write_text("this is no database, whatever its name says" * 100)
    (project / "folder.db").mkdir()
    for name in ("text.db", "folder.db"):
        done = outlast("runs", "--db", name, "--json")
        assert done.code == 7, done.err
        assert done.err.count("\n") == 1


def test_a_foreign_database_is_refused_and_left_as_it_is(outlast: Call, project: Path) -> None:
    connection = sqlite3.connect(project / "theirs.db")
    connection.execute("create table customers (name text)")
    connection.commit()
    connection.close()
    done = outlast("runs", "--db", "theirs.db", "--json")
    assert done.code in (3, 7)
    assert "outlast migrate" in done.error["hint"]


def test_a_damaged_file_is_exit_7(outlast: Call, project: Path, started: str) -> None:
    path = project / "outlast.db"
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data)):
        data[at] = 0x5A
    path.write_bytes(data)
    for left in ("-wal", "-shm"):
        Path(f"{path}{left}").unlink(missing_ok=True)
    assert outlast("runs").code == 7


def test_a_file_of_newer_code_is_exit_7(outlast: Call, project: Path, started: str) -> None:
    connection = sqlite3.connect(project / "outlast.db")
    connection.execute("update outlast_meta set value = '9999' where key = 'schema'")
    connection.commit()
    connection.close()
    done = outlast("runs", "--json")
    assert done.code == 7
    assert done.error["type"] == "StoreTooNew"


def test_an_old_file_is_refused_by_readers_and_names_migrate(outlast: Call, project: Path, started: str) -> None:
    connection = sqlite3.connect(project / "outlast.db")
    connection.execute("update outlast_meta set value = '0000' where key = 'schema'")
    connection.commit()
    connection.close()
    for command in (["runs"], ["start", "add", "a=1"]):
        done = outlast(*command, "--json")
        assert done.code == 7
        assert "outlast migrate" in done.error["hint"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_cannot_be_written_is_exit_7(outlast: Call, project: Path, started: str) -> None:
    (project / "outlast.db").chmod(0o400)
    assert outlast("cancel", started).code == 7


def test_backup_copies_and_never_overwrites(outlast: Call, project: Path, started: str) -> None:
    assert outlast("backup", "copy.db", "--json").json["path"] == str(project / "copy.db")
    assert outlast("runs", "--db", "copy.db", "--json").json[0]["id"] == started
    assert stat.S_IMODE((project / "copy.db").stat().st_mode) == 0o600
    assert outlast("backup", "copy.db").code == 4
    assert outlast("backup", "no/such/folder/copy.db").code == 3


def test_migrate_makes_the_file_and_says_so(outlast: Call, project: Path) -> None:
    done = outlast("migrate", "--json")
    assert done.json["path"] == str(project / "outlast.db")
    assert done.json["applied"]
    assert "Created" in done.err
    assert "is up to date" in outlast("migrate").out


def test_export_holds_all_of_a_run(outlast: Call) -> None:
    pytest.importorskip("outlast.agent")
    outlast("run", "add", "a=1", "--key", "k")
    found = outlast("export", "add:k").json
    assert found["published"] == {"progress": {"at": 50}}
    assert [message["value"] for message in found["streams"]["log"]] == ["begin", "end"]
    assert found["steps"][0]["name"] == "double"
    assert found["recording"]["claimed"]["name"] == "add"
    assert "double" in [entry["name"] for entry in found["recording"]["journal"]]


def test_doctor_finds_a_healthy_file_healthy(outlast: Call, project: Path) -> None:
    outlast("migrate")
    found = outlast("doctor", "--json")
    assert [check for check in found.json["checks"] if not check["ok"]] == []
    assert found.code == 0
    assert "integrity" in outlast("doctor").out


def test_doctor_says_what_to_do_about_a_run_that_nobody_takes(outlast: Call, started: str) -> None:
    found = outlast("doctor")
    assert found.code == 1
    assert "outlast up" in found.out


def test_init_writes_a_first_workflow_and_never_overwrites(outlast: Call, project: Path) -> None:
    done = outlast("init", "shop")
    assert done.code == 0
    assert "outlast run hello" in done.out
    assert (project / "shop" / "pyproject.toml").exists()
    before = (project / "shop" / "workflows" / "hello.py").read_text()
    assert outlast("init", "shop").code == 4
    assert "  cd './-a shop'\n" in outlast("init", "--", "-a shop").out
    assert (project / "shop" / "workflows" / "hello.py").read_text() == before


def test_init_leaves_a_project_file_alone(outlast: Call, project: Path) -> None:
    assert outlast("init", "--json").json["written"] == ["workflows/hello.py"]
    assert (project / "pyproject.toml").read_text() == "[tool.outlast]\n"


def test_what_init_wrote_runs(outlast: Call, project: Path) -> None:
    pytest.importorskip("outlast.agent")
    outlast("init")
    assert "hello" in outlast("workflows").out
    done = outlast("run", "hello", "name=Ada")
    assert done.code == 0
    assert json.loads(done.out) == "Hello, Ada! Hello, Ada, still!"


def test_a_health_check_asks_for_a_live_agent_alone(outlast: Call, project: Path) -> None:
    assert outlast("doctor", "--alive").code == 3
    outlast("migrate")
    dead = outlast("doctor", "--alive", "--json")
    assert (dead.code, dead.json["ok"]) == (1, False)
    with Engine(project / "outlast.db") as engine, engine.agent():
        alive = outlast("doctor", "--alive")
        assert (alive.code, "agents that are up: 1" in alive.out) == (0, True)
