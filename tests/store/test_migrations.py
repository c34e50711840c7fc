"""The schema comes whole or not at all, and only forward."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import outlast
from outlast.errors import InvalidDefinition, NotADatabase, NotFound, StoreTooNew, StoreTooOld
from outlast.store import migrations
from outlast.store.connection import connect
from outlast.store.library import sqlite3

FIRST = """
-- A comment; with a semicolon.
create table outlast_meta (key text primary key, value text not null) strict;
create table outlast_a (x integer, note text default 'a;b') strict;
create trigger outlast_a_trigger before update on outlast_a
begin
  select raise(abort, 'no; never');
  select 1;
end; -- the end
create index outlast_a_x on outlast_a (x); create index outlast_a_y on outlast_a (note);
"""
SECOND = "create table outlast_b (x integer) strict;\ninsert into outlast_b values (1);\n"


@pytest.fixture
def schema(tmp_path):
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "0001_core.sql").write_text(FIRST)
    (folder / "README.md").write_text("no migration")
    return folder


@pytest.fixture
def connection(tmp_path):
    opened = connect(tmp_path / "app.db", create=True)
    yield opened
    opened.close()


def _tables(connection) -> set[str]:
    rows = connection.execute("select name from sqlite_schema where type = 'table'")
    return {name for (name,) in rows}


def test_a_new_file_gets_the_whole_schema_once(connection, schema):
    assert migrations.schema_version(connection) is None
    assert migrations.migrate(connection, "app.db", schema=schema) == ["0001_core"]
    assert migrations.migrate(connection, "app.db", schema=schema) == []
    assert migrations.schema_version(connection) == 1
    assert _tables(connection) == {"outlast_meta", "outlast_a", "outlast_migrations"}
    migrations.check(connection, "app.db", schema=schema)


def test_a_trigger_with_semicolons_stays_one_statement(connection, schema):
    migrations.migrate(connection, "app.db", schema=schema)
    connection.execute("insert into outlast_a values (1, 'a')")
    with pytest.raises(sqlite3.IntegrityError, match="no; never"):
        connection.execute("update outlast_a set x = 2")


def test_only_what_is_pending_is_applied_and_data_stays(connection, schema):
    migrations.migrate(connection, "app.db", schema=schema)
    connection.execute("insert into outlast_a values (1, 'kept')")
    (schema / "0002_more.sql").write_text(SECOND)
    assert migrations.is_pending(connection, "app.db", schema=schema)
    with pytest.raises(StoreTooOld, match="outlast migrate"):
        migrations.check(connection, "app.db", schema=schema)
    assert migrations.migrate(connection, "app.db", schema=schema) == ["0002_more"]
    assert connection.execute("select note from outlast_a").fetchall() == [("kept",)]
    rows = connection.execute("select migration_set, name from outlast_migrations order by id").fetchall()
    assert rows == [("outlast", "0001_core"), ("outlast", "0002_more")]


def test_the_record_of_migrations_is_strict_like_every_table_of_ours(connection, schema):
    migrations.migrate(connection, "app.db", schema=schema)
    rows = connection.execute("select name from pragma_table_list where name like 'outlast_%' and not strict")
    assert rows.fetchall() == []


def test_a_file_of_newer_code_is_refused_and_not_touched(connection, schema):
    (schema / "0002_more.sql").write_text(SECOND)
    migrations.migrate(connection, "app.db", schema=schema)
    (schema / "0002_more.sql").unlink()
    for use in (migrations.check, migrations.migrate, migrations.is_pending):
        with pytest.raises(StoreTooNew, match="0002"):
            use(connection, "app.db", schema=schema)


def test_an_applications_own_file_is_named_to_whoever_may_not_add_tables(connection, schema):
    connection.execute("create table theirs (x)")
    with pytest.raises(NotFound, match=r"has no outlast tables.*outlast migrate"):
        migrations.check(connection, "app.db", schema=schema)
    migrations.migrate(connection, "app.db", schema=schema)
    assert {"theirs", "outlast_meta"} <= _tables(connection)


def test_an_applications_own_migrations_stay_apart(connection, schema):
    connection.execute("create table _sqlite_migrations (migration_set text, name text, applied_at text)")
    connection.execute("insert into _sqlite_migrations values ('outlast', '0001_core', '')")
    assert migrations.migrate(connection, "app.db", schema=schema) == ["0001_core"]
    assert connection.execute("select count(*) from _sqlite_migrations").fetchone()[0] == 1


def test_a_migration_that_fails_leaves_the_old_schema_whole(connection, schema):
    migrations.migrate(connection, "app.db", schema=schema)
    before = _tables(connection)
    (schema / "0002_more.sql").write_text(SECOND)
    (schema / "0003_wrong.sql").write_text("create table outlast_c (x integer) strict;\nselect nothing from nowhere;\n")
    with pytest.raises(sqlite3.OperationalError):
        migrations.migrate(connection, "app.db", schema=schema)
    assert _tables(connection) == before
    assert migrations.schema_version(connection) == 1
    assert not connection.in_transaction


@pytest.mark.crash
@pytest.mark.parametrize("start", ["new", "old"])
def test_a_process_killed_in_the_middle_leaves_the_old_schema_whole(tmp_path, schema, start):
    path = tmp_path / "app.db"
    if start == "old":
        opened = connect(path, create=True)
        migrations.migrate(opened, "app.db", schema=schema)
        opened.close()
    (schema / "0002_more.sql").write_text(SECOND + "select die();\ncreate table outlast_c (x integer) strict;\n")
    code = """
import os, signal, sys
from pathlib import Path
from outlast.store import migrations
from outlast.store.connection import connect
connection = connect(sys.argv[1], create=True)
connection.create_function("die", 0, lambda: os.kill(os.getpid(), signal.SIGKILL))
migrations.migrate(connection, sys.argv[1], schema=Path(sys.argv[2]))
"""
    process = _start(code, path, schema)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    opened = connect(path, create=False)
    expected = {"outlast_meta", "outlast_a", "outlast_migrations"} if start == "old" else set()
    assert _tables(opened) == expected
    (schema / "0002_more.sql").write_text(SECOND)
    migrations.migrate(opened, "app.db", schema=schema)
    assert migrations.schema_version(opened) == 2
    opened.close()


def test_processes_that_migrate_at_once_do_not_collide(tmp_path, schema):
    (schema / "0002_more.sql").write_text(SECOND)
    code = """
import sys
from pathlib import Path
from outlast.store import migrations
from outlast.store.connection import connect
sys.stdin.readline()
connection = connect(sys.argv[1], create=True)
print(len(migrations.migrate(connection, sys.argv[1], schema=Path(sys.argv[2]))))
"""
    processes = [_start(code, tmp_path / "app.db", schema) for _ in range(4)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    answers = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert answers == ["0", "0", "0", "2"]


@pytest.mark.parametrize("names", [["0002_later.sql"], ["0001_a.sql", "0003_c.sql"], ["0001_a.sql", "0001_b.sql"], []])
def test_schema_files_are_numbered_without_gaps(tmp_path, names):
    folder = tmp_path / "other"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("select 1;")
    with pytest.raises(InvalidDefinition, match="without a gap"):
        migrations.newest(folder)


def test_a_statement_without_an_end_is_refused():
    with pytest.raises(InvalidDefinition, match="no end"):
        list(migrations.split("select 1;\nselect 2"))
    assert len(list(migrations.split("select 1;\n-- done\n/* really */\n"))) == 1


def test_what_is_no_database_is_named(tmp_path):
    (tmp_path / "app.db").write_text("hello")
    with pytest.raises(NotADatabase):
        connect(tmp_path / "app.db", create=True)


def test_the_schema_of_this_code_applies(connection):
    assert migrations.migrate(connection, "app.db")[0].startswith("0001_")
    migrations.check(connection, "app.db")
    assert migrations.schema_version(connection) == migrations.newest()
    assert connection.execute("pragma integrity_check").fetchone()[0] == "ok"


def test_a_look_at_an_up_to_date_file_does_not_import_sqlite_utils(tmp_path, connection, schema):
    migrations.migrate(connection, "app.db", schema=schema)
    code = """
import sys
from pathlib import Path
from outlast.store import migrations
from outlast.store.connection import connect
connection = connect(sys.argv[1], create=False)
migrations.check(connection, sys.argv[1], schema=Path(sys.argv[2]))
migrations.migrate(connection, sys.argv[1], schema=Path(sys.argv[2]))
print("sqlite_utils" in sys.modules)
"""
    process = _start(code, tmp_path / "app.db", schema)
    assert process.communicate(timeout=60)[0].strip() == "False"


def _start(code: str, path: Path, schema: Path) -> subprocess.Popen[str]:
    root = str(Path(outlast.__file__).parent.parent)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(schema)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
