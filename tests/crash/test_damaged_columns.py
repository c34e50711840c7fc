"""Every column that holds what code or callers gave, damaged in one run each: that run is halted, the others go on, and every command
that looks at it says so in a sentence.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import outlast
from outlast import emit, gather, publish, sleep, sqlite3, step, wait_signal, workflow
from outlast.definition import registry
from outlast.testing import DrivenEngine, driven_engine

with registry.isolated() as defined:

    @step
    def act(n: int) -> int:
        return n

    @act.compensation
    def undo_act(result: int | None, n: int) -> None:
        pass

    @step
    def bad(n: int) -> int:
        raise ValueError(n)

    @step
    def plain(n: int) -> int:
        return n

    @workflow
    def child(n: int) -> int:
        return plain(n)

    @workflow
    def full(n: int) -> list[int]:
        publish("p", [1, 2])
        emit("s", "message")
        act(n)
        try:
            bad(n)
        except ValueError:
            pass
        found = [child(n), plain.submit(n).result(), wait_signal("first", int)]
        sleep("1d")
        return [*found, plain(n)]

    @workflow
    async def full_later(n: int) -> list[int]:
        await act.aio(n)
        try:
            await bad.aio(n)
        except ValueError:
            pass
        found = [await child.start(n), await plain.submit(n), await outlast.aio.wait_signal("first", int)]
        await outlast.aio.sleep("1d")
        return [*found, await plain.aio(n)]

    @workflow
    def saga(n: int) -> None:
        act(n)
        sleep("1d")
        raise RuntimeError("no")

    @workflow
    def hourly() -> None:
        pass

    @workflow
    def fans(n: int) -> int:
        sleep("1d")
        return sum(gather(*[plain.submit(k) for k in range(3)]))


JOURNAL = "update outlast_journal set {} where task_id = :id and "
INPUT = "update outlast_input set {} where task_id = :id"
OF_STEPS = (
    "create trigger damage_{0} after insert on outlast_input when exists (select 1 from outlast_task t where t.id = new.task_id"
    " and t.kind = 'step' and t.parent_id = {0}) begin update outlast_input set {1} where task_id = new.task_id; end"
)
JUNK = "x'7b7b7b'"
TEXT = f"cast({JUNK} as text)"
NO_UTF8 = "cast(x'22ff22' as text)"

HALTED = {
    "input": INPUT.format(f"data = {JUNK}"),
    "input that is JSON of another shape": INPUT.format("data = x'5b5d'"),
    "tags": INPUT.format(f"tags = {TEXT}"),
    "tags that are no text": INPUT.format(f"tags = {NO_UTF8}"),
    "result": JOURNAL.format(f"data = {JUNK}") + "event = 'completed' and kind = 'step'",
    "result with a tag of nobody's": JOURNAL.format("""data = cast('{"$t":"zz"}' as blob)""") + "event = 'completed' and kind = 'step'",
    "error": JOURNAL.format(f"data = {JUNK}") + "event = 'failed'",
    "error of no class": JOURNAL.format("""data = cast('{"$t":"error"}' as blob)""") + "event = 'failed'",
    "a child's result": JOURNAL.format(f"data = {JUNK}") + "event = 'completed' and kind = 'child'",
    "a submitted step's result": JOURNAL.format(f"data = {JUNK}") + "event = 'completed' and kind = 'task'",
    "a signal": JOURNAL.format(f"data = {JUNK}") + "event = 'completed' and kind = 'signal'",
}
UNHARMED = {
    "published state": f"update outlast_published set value = {JUNK} where task_id = :id",
    "a stream": f"update outlast_stream set value = {JUNK} where task_id = :id",
}
LOOKS = (
    *(["show"], ["show", "--undo"], ["show", "--json"], ["why"], ["result"]),
    *(["query"], ["query", "p"], ["stream", "s"], ["logs"], ["export"]),
)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[DrivenEngine]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.outlast]\n")
    with registry.isolated() as current, driven_engine(tmp_path / "outlast.db") as engine:
        for definition in (*defined.workflows(), *defined.steps()):
            current.add(definition)
        yield engine
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR], caplog.text


def damage(engine: DrivenEngine, run: Any, statement: str) -> None:
    connection = sqlite3.connect(engine.path, isolation_level=None)
    try:
        (task_id,) = connection.execute("select id from outlast_task where uid = ?", (run.id,)).fetchone()
        if statement.startswith("create"):
            connection.execute(statement.replace("{0}", str(task_id)))
        else:
            assert connection.execute(statement, {"id": task_id}).rowcount >= 1
    finally:
        connection.close()


def looks_do_not_fail(run: Any, capsys: pytest.CaptureFixture[str], looks: Any = LOOKS) -> None:
    from outlast.cli.main import call

    for name, *rest in looks:
        capsys.readouterr()
        code = call([name, run.id, *rest] if run is not None else [name, *rest])
        said = capsys.readouterr().err
        assert code != 1 or name in ("result", "check"), (name, said)
        assert "bug" not in said, (name, said)
        assert "Traceback" not in said


@pytest.mark.parametrize("flow", [full, full_later], ids=["sync", "async"])
def test_a_run_with_a_damaged_column_is_halted_and_the_others_go_on(
    engine: DrivenEngine, flow: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    statements = HALTED | (UNHARMED if flow is full else {})
    runs = {name: engine.start(flow, 1) for name in statements}
    innocents = [engine.start(flow, n) for n in range(3)]
    pending = engine.start(flow.options(delay="1h"), 1)
    engine.until_idle()
    for run in (*runs.values(), *innocents):
        run.signal("first", 5)
    engine.until_idle()
    for name, statement in statements.items():
        damage(engine, runs[name], statement)
    damage(engine, pending, HALTED["input"])
    engine.advance("2d")

    assert [run.status for run in innocents] == ["completed"] * 3
    for name, run in runs.items():
        assert run.status == ("halted" if name in HALTED else "completed"), name
    assert pending.status == "halted"
    for run in (*runs.values(), pending):
        looks_do_not_fail(run, capsys)
    looks_do_not_fail(None, capsys, (["runs"], ["runs", "--json"], ["runs", "--tag", "a=b"], ["check"], ["stats"], ["schedules"]))


def test_a_halt_for_damage_says_so(engine: DrivenEngine) -> None:
    run = engine.start(full, 1)
    damage(engine, run, HALTED["input"])
    engine.until_idle()
    connection = sqlite3.connect(engine.path)
    assert connection.execute("select halt_reason from outlast_task").fetchone() == ("the file is damaged: its input cannot be read",)
    connection.close()


@pytest.mark.parametrize("column", [f"data = {JUNK}", f"options = {TEXT}", f"options = {NO_UTF8}"], ids=["input", "policy", "no text"])
def test_a_submitted_step_that_cannot_be_read_halts_its_run(engine: DrivenEngine, column: str) -> None:
    runs = [engine.start(fans, n) for n in range(3)]
    engine.until_idle()
    damage(engine, runs[1], OF_STEPS.replace("{1}", column))
    engine.advance("2d")
    assert [run.status for run in runs] == ["completed", "halted", "completed"]


@pytest.mark.parametrize("damaged", ["input", "data"])
def test_an_undo_does_not_run_on_what_cannot_be_read(engine: DrivenEngine, damaged: str, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [engine.start(saga, n) for n in range(3)]
    engine.until_idle()
    damage(engine, runs[1], JOURNAL.format(f"{damaged} = {JUNK}") + f"kind = 'step' and {damaged} is not null")
    engine.advance("2d")
    assert [run.status for run in runs] == ["compensated", "halted", "compensated"]
    looks_do_not_fail(runs[1], capsys)


def test_what_a_run_waits_for_is_found_out_anew_where_it_cannot_be_read(engine: DrivenEngine) -> None:
    runs = [engine.start(full, n) for n in range(2)]
    engine.until_idle()
    damage(engine, runs[1], f"update outlast_task set awaits = {TEXT} where id = :id")
    for run in runs:
        run.signal("first", 1)
    engine.advance("2d")
    assert [run.status for run in runs] == ["completed", "completed"]


@pytest.mark.parametrize("column", [f"rule = {TEXT}", f"rule = {NO_UTF8}", f"input = {JUNK}"], ids=["rule", "no text", "input"])
def test_a_damaged_schedule_holds_up_no_other(engine: DrivenEngine, column: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        engine.schedule(name, hourly, "0 * * * *")
    engine.until_idle()
    connection = sqlite3.connect(engine.path, isolation_level=None)
    connection.execute(f"update outlast_schedule set {column} where name = 'b'")
    engine.advance("3h")
    fired = dict(connection.execute("select schedule, count(*) from outlast_tick where outcome = 'fired' group by 1"))
    connection.close()
    assert fired["a"] == fired["c"] == 3
    looks_do_not_fail(None, capsys, (["schedules"], ["schedules", "--json"], ["schedule", "show", "b"], ["schedule", "ticks", "b"]))
