"""`@transaction`: what its connection refuses, what it leaves behind, and that SQL and journal are one."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from run_bench import effects

from outlast import aio, current, sqlite3, transaction, workflow
from outlast.definition import registry
from outlast.errors import NotStorable, OutlastError
from outlast.run import guarded, transactional
from outlast.store import journal

kept: list[Any] = []

with registry.isolated() as defined:

    @workflow
    def child(number: int) -> int:
        return number

    @transaction
    def runs_sql(db: sqlite3.Connection, statement: str) -> Any:
        db.execute("create table if not exists app (x integer unique)")
        db.execute("insert into app values (1)")
        return [list(row) for row in db.execute(statement).fetchall()]

    @transaction
    def calls(db: sqlite3.Connection, what: str) -> Any:
        db.execute("create table if not exists app (x integer unique)")
        db.execute("insert into app values (1)")
        return CALLS[what](db)

    @transaction(retry=2)
    def starts_a_run(db: sqlite3.Connection) -> str:
        started = child.start(3)
        known = current().step
        assert known is not None
        if known.try_number == 1:
            effects.append(started.id)
            raise ValueError("once")
        return started.id

    @workflow
    def sql(statement: str) -> Any:
        return runs_sql(statement)

    @workflow
    def call(what: str) -> Any:
        return calls(what)

    @workflow
    def two(first: str, second: str) -> Any:
        calls(first)
        return calls(second)

    @workflow
    def starts() -> str:
        return starts_a_run()

    @workflow
    async def before_and_after() -> Any:
        await runs_sql.aio("select x from app")
        return await aio.wait_signal("go", int)


def leaves_its_settings(db: Any) -> None:
    db.row_factory, db.text_factory = sqlite3.Row, bytes
    db.create_function("left_behind", 0, lambda: 1)
    db.execute("create temp table left_over (x)")
    db.execute("delete from app")
    kept.append(db)


def sees_no_settings(db: Any) -> list[str]:
    seen = [repr(db.execute("select 'a'").fetchone())]
    for statement in ("select left_behind()", "select * from left_over"):
        try:
            db.execute(statement)
        except sqlite3.OperationalError as error:
            seen.append(str(error))
    return seen


def goes_on_after_a_rollback(db: Any) -> str:
    for statement in ("insert or rollback into app values (1)", "insert into app values (2)"):
        try:
            db.execute(statement)
        except sqlite3.IntegrityError:
            pass
    return "went on"


def catches_the_refusal(db: Any) -> str:
    try:
        goes_on_after_a_rollback(db)
    except OutlastError:
        return "caught"
    return "went on"


def uses_savepoints(db: Any) -> list[int]:
    with db:
        db.execute("insert into app values (2)")
        try:
            with db:
                db.execute("insert into app values (3)")
                raise KeyError
        except KeyError:
            pass
    return [x for (x,) in db.execute("select x from app order by x")]


def writes_a_blob(db: Any) -> None:
    db.blobopen("outlast_input", "data", 1)


CALLS: dict[str, Any] = {
    "commit": lambda db: db.commit(),
    "rollback": lambda db: db.rollback(),
    "close": lambda db: db.close(),
    "executescript": lambda db: db.executescript("commit"),
    "cursor().executescript": lambda db: db.cursor().executescript("commit"),
    "backup": lambda db: db.backup(sqlite3.connect(":memory:")),
    "set_authorizer": lambda db: db.set_authorizer(None),
    "set_progress_handler": lambda db: db.set_progress_handler(None, 0),
    "blobopen": writes_a_blob,
    "commit of the library": lambda db: sqlite3.Connection.commit(db),
    "isolation level": lambda db: (setattr(db, "isolation_level", ""), setattr(db, "isolation_level", None)),
    "leaves its settings": leaves_its_settings,
    "sees no settings": sees_no_settings,
    "goes on after a rollback": goes_on_after_a_rollback,
    "catches the refusal": catches_the_refusal,
    "uses savepoints": uses_savepoints,
    "unstorable": lambda db: object(),
}


def rows(bench: Any) -> Any:
    if bench.one("select count(*) from sqlite_schema where name = 'app'") == 0:
        return 0
    return bench.one("select count(*) from app")


@pytest.mark.parametrize(
    "statement",
    [
        "  /* a */ CoMmIt",
        "end",
        "rollback",
        "begin",
        "attach ':memory:' as other",
        'update "OUTLAST_TASK" set status = null',
        "delete from outlast_journal",
        "drop table outlast_signal",
        "alter table outlast_task add column mine",
        "create table Outlast_mine (x)",
        "create view outlast_view as select 1",
        "create trigger mine after insert on outlast_journal begin select 1; end",
        "create temp trigger mine after insert on outlast_journal begin select raise(abort, 'x'); end",
        "create index mine on outlast_task (status)",
        "pragma synchronous = off",
        "pragma foreign_keys = off",
        "pragma locking_mode = exclusive",
        "pragma writable_schema = on",
        "pragma query_only(1)",
        "pragma wal_checkpoint",
    ],
)
def test_a_transaction_cannot_end_itself_or_touch_what_is_the_engines(bench, statement):
    with pytest.raises(OutlastError, match="A @transaction step must not use that statement"):
        bench.run(sql, statement)
    assert rows(bench) == 0


@pytest.mark.parametrize("statement", ["pragma table_info(app)", "pragma foreign_keys", "pragma defer_foreign_keys = on", "savepoint mine"])
def test_a_transaction_may_look_at_pragmas_and_have_savepoints(bench, statement):
    bench.run(sql, statement)
    assert rows(bench) == 1


@pytest.mark.parametrize("what", list(CALLS)[:11])
def test_no_method_of_the_connection_ends_the_transaction(bench, what):
    if what == "blobopen" and not hasattr(sqlite3.Connection, "blobopen"):
        pytest.skip("this SQLite library has no blobs")
    with pytest.raises(OutlastError, match="must not use"):
        bench.run(call, what)
    assert rows(bench) == 0


@pytest.mark.parametrize("what", ["goes on after a rollback", "catches the refusal"])
def test_nothing_is_written_after_sqlite_itself_has_rolled_back(bench, what):
    with pytest.raises(OutlastError, match="OR ABORT"):
        bench.run(call, what)
    assert rows(bench) == 0


def test_what_a_transaction_leaves_on_its_connection_is_gone_in_the_next(bench):
    bench.agent(concurrency=1)
    assert bench.run(two, "leaves its settings", "sees no settings") == [
        "('a',)",
        "no such function: left_behind",
        "no such table: left_over",
    ]
    with pytest.raises(sqlite3.Error):
        kept[0].execute("insert into app values (9)")


def test_with_is_a_savepoint(bench):
    assert bench.run(call, "uses savepoints") == [1, 2]


def test_a_result_that_cannot_be_stored_rolls_back_and_is_not_tried_again(bench):
    with pytest.raises(NotStorable):
        bench.run(call, "unstorable")
    assert rows(bench) == 0


def test_a_run_started_in_a_transaction_is_there_only_if_it_commits(bench):
    started = bench.run(starts)
    rolled_back = effects[0]
    assert bench.engine.get(started).result(timeout=20) == 3
    assert [run.id for run in bench.engine.runs(workflow="child")] == [started]
    assert rolled_back != started


def test_a_lock_that_is_held_long_is_no_outcome_of_the_step(bench, monkeypatch):
    monkeypatch.setattr(guarded, "_BUSY_SECONDS", 0.05)
    refused = threading.Event()
    begin = transactional._StepTransaction._begin

    def watched(self: Any, db: Any) -> None:
        if not refused.is_set():
            holder.execute("begin immediate")
        try:
            begin(self, db)
        except transactional._NotNow:
            refused.set()
            holder.execute("rollback")
            raise

    monkeypatch.setattr(transactional._StepTransaction, "_begin", watched)
    monkeypatch.setattr(transactional, "_PAUSE_SECONDS", 0.01)
    holder = sqlite3.connect(bench.store.path, isolation_level=None, check_same_thread=False)
    assert bench.run(sql, "select x from app") == [[1]]
    assert refused.is_set()
    holder.close()


def test_a_full_disk_is_no_outcome_of_the_step(bench, monkeypatch):
    write, full = journal.write_entry, []

    def fails_once(context: Any, *args: Any) -> None:
        if not full and isinstance(context.connection, guarded.Guarded):
            full.append(True)
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = 13
            raise error
        write(context, *args)

    monkeypatch.setattr(journal, "write_entry", fails_once)
    monkeypatch.setattr(transactional, "_PAUSE_SECONDS", 0.01)
    run = bench.start(sql, "select x from app")
    bench.agent()
    assert run.result(timeout=20) == [[1]]
    assert full
    assert [step["tries"] for step in run.steps()] == [1]
    assert rows(bench) == 1


def test_nothing_of_a_transaction_is_there_until_its_entry_is(bench, monkeypatch):
    seen = []

    def look_then_commit(store, connection, name):
        seen.append(store.connection().execute("select count(*) from sqlite_schema where name = 'app'").fetchone()[0])
        connection.execute("commit")

    monkeypatch.setattr(type(bench.store), "commit_step", look_then_commit)
    assert bench.run(sql, "select x from app") == [[1]]
    assert seen == [0]


def test_a_number_that_was_lost_beside_a_transaction_leaves_no_gap(bench):
    bench.agent()
    run = bench.start(before_and_after)
    bench.wait_for(run, "waiting")
    bench.stop()
    # As a death leaves it while the entry before waits for the lock of the transaction.
    task_id = bench.task_id(run)
    with bench.store.transaction() as connection:
        for by in (100, -99):
            connection.execute("update outlast_journal set seq = seq + ? where task_id = ?", (by, task_id))
    run.signal("go", 1)
    bench.agent()
    assert run.result(timeout=20) == 1
    seqs = [entry.seq for entry in bench.journal(run)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert next((entry.kind, entry.name) for entry in bench.journal(run)) == ("void", "lost")
