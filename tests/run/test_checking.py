"""`check`: open runs against code that has changed since: what fits, what differs and where, which patches can go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from run_bench import effects, eventually

from outlast import aio, checking, gather, patched, register_payload_codec, sleep, step, wait_signal, workflow
from outlast.cli.main import call
from outlast.codec import payloads
from outlast.definition import registry
from outlast.settings import Settings


@dataclass
class Parcel:
    item: str


with registry.isolated() as defined:

    @step
    def wrap(item: str) -> Parcel:
        return Parcel(item)

    @workflow
    def wraps(item: str) -> str:
        return wrap(item).item + wait_signal("go", str)

    @workflow
    async def awraps(item: str) -> str:
        return (await wrap.aio(item)).item + await aio.wait_signal("go", str)

    @step
    def pick(item: str) -> str:
        effects.append(("pick", item))
        return item

    @step
    def pack(item: str) -> str:
        effects.append(("pack", item))
        return item

    @pack.compensation
    def unpack(result: str | None, item: str) -> None:
        pass

    @workflow
    def ships(item: str) -> str:
        pick(item)
        pack(item)
        return wait_signal("go", str)

    @workflow
    async def aships(item: str) -> str:
        await asyncio.gather(pick.aio(item), pack.aio(item))
        await asyncio.sleep(0.01)
        return await aio.wait_signal("go", str)

    @workflow
    def fans(item: str) -> list[str]:
        found = gather(*[pick.submit(f"{item}{n}") for n in range(3)])
        sleep("1h")
        return list(found)

    @workflow
    def marks(item: str) -> str:
        patched("marked")
        pick(item)
        return wait_signal("go", str)


ENOUGH = threading.Event()
"""What a body that does not end waits for: no thread of it outlives its test."""


@pytest.fixture
def endless() -> Iterator[None]:
    ENOUGH.clear()
    yield
    ENOUGH.set()


def code(source: str) -> registry.Registry:
    """What is left of `source` in a registry of its own."""
    text = "import asyncio\nfrom outlast import *\nfrom outlast import step, workflow, wait_signal, patched, gather, sleep\n" + source
    with registry.isolated() as made:
        exec(compile(text, "<changed>", "exec"), {"__name__": "changed", "ENOUGH": ENOUGH})
    return made


STEPS = """
@step
def pick(item): raise AssertionError("a step ran")
@step
def pack(item): raise AssertionError("a step ran")
@pack.compensation
def unpack(result, item): pass
"""
SHIPS = STEPS + "@workflow\ndef ships(item: str):\n    pick(item); pack(item)\n    return wait_signal('go', str)\n"
ENDLESS = SHIPS.replace("pick(item); pack", "ENOUGH.wait()\n    raise SystemExit\n    pack")


def parked(bench: Any, flow: Any, *args: Any) -> Any:
    bench.agent()
    run = bench.start(flow, *args)
    bench.wait_for(run, "waiting")
    bench.stop()
    return run


def judge(bench: Any, source: str) -> checking.Verdict:
    done = list(effects)
    (verdict,) = checking.check(bench.engine.path, code(source), Settings()).runs
    assert effects == done, "a step ran"
    return verdict


@pytest.mark.parametrize("flow", [ships, aships, fans])
def test_code_that_has_not_changed_fits(bench, flow):
    run = parked(bench, flow, "x")
    (verdict,) = checking.check(bench.engine.path, defined, Settings()).runs
    assert (verdict.status, verdict.result, verdict.warnings) == ("waiting", "fits", [])
    run.pause()
    (verdict,) = checking.check(bench.engine.path, defined, Settings()).runs
    assert (verdict.status, verdict.result) == ("paused", "fits")


def test_another_step_at_a_place_is_named_with_both(bench):
    run = parked(bench, ships, "x")
    verdict = judge(bench, SHIPS.replace("pick(item); pack(item)", "pack(item); pick(item)"))
    assert (verdict.id, verdict.result, verdict.journal, verdict.code) == (run.id, "differs", "step pick", "step pack")
    assert verdict.place == bench.journal(run)[0].path


def test_a_step_put_in_between_is_a_difference(bench):
    parked(bench, ships, "x")
    verdict = judge(bench, SHIPS.replace("pick(item); pack(item)", "pick(item); pick(item); pack(item)"))
    assert (verdict.result, verdict.journal, verdict.code) == ("differs", "step pack", "step pick")


def test_code_that_ends_or_fails_before_its_journal_does_is_a_difference(bench):
    parked(bench, ships, "x")
    assert judge(bench, SHIPS.replace("pack(item)\n", "return\n")).code == "the end of the workflow"
    assert "by ZeroDivisionError" in (judge(bench, SHIPS.replace("pack(item)\n", "1 / 0\n")).code or "")
    # A sentence that ends in a full stop, within one that does.
    stopped = judge(bench, SHIPS.replace("pack(item)\n", "raise ValueError('No more.')\n"))
    assert stopped.code == "the end of the workflow, by ValueError: No more"
    assert judge(bench, SHIPS.replace("; pack(item)", "")).result == "differs"


@pytest.mark.parametrize("flow", [wraps, awraps])
def test_an_outcome_whose_class_is_gone_is_a_difference_at_its_place(bench, monkeypatch, flow):
    run = parked(bench, flow, "x")
    monkeypatch.delattr(f"{__name__}.Parcel")
    (verdict,) = checking.check(bench.engine.path, defined, Settings()).runs
    assert (verdict.result, verdict.journal, verdict.place) == ("differs", "step wrap", bench.journal(run)[0].path)
    assert "no way to read its outcome" in (verdict.code or "")
    assert "has no class Parcel. " in f"{verdict.message} "


def test_async_code_that_has_changed_differs(bench):
    parked(bench, aships, "x")
    source = STEPS + "@workflow\nasync def aships(item: str):\n    await pick.aio(item)\n    return await aio.wait_signal('go', str)\n"
    assert judge(bench, source).result == "differs"


def test_fan_out_that_has_changed_differs(bench):
    parked(bench, fans, "x")
    source = STEPS + "@workflow\ndef fans(item: str):\n    return list(gather(*[pick.submit(item) for n in range(2)]))\n"
    assert judge(bench, source).result == "differs"


def test_changed_arguments_are_a_warning(bench):
    parked(bench, ships, "x")
    verdict = judge(bench, SHIPS.replace("pick(item); pack", "pick(item + '!'); pack"))
    assert verdict.result == "fits"
    (warning,) = verdict.warnings
    assert "pick" in warning
    assert "'x'" in warning
    assert "'x!'" in warning


def test_a_workflow_or_an_input_that_is_gone_does_not_fit(bench):
    parked(bench, ships, "x")
    assert judge(bench, STEPS).result == "no code"
    verdict = judge(bench, SHIPS.replace("ships(item: str)", "ships(other: str)").replace("(item)\n", "(other)\n"))
    assert (verdict.result, "input" in (verdict.message or "")) == ("differs", True)


def test_a_run_that_is_or_may_be_undone_needs_the_code_of_its_compensations(bench):
    run = parked(bench, ships, "x")
    for status in ("waiting", "compensating"):
        assert bench.status(run) == status
        assert judge(bench, SHIPS).result == "fits"
        verdict = judge(bench, SHIPS.replace("@pack.compensation\n", ""))
        assert (verdict.result, "compensation of pack" in (verdict.message or "")) == ("no code", True)
        run.cancel() if status == "waiting" else None


def test_a_body_that_does_not_end_is_said(bench, monkeypatch, endless):
    monkeypatch.setattr(checking, "HANGS_SECONDS", 0.2)
    parked(bench, ships, "x")
    assert judge(bench, ENDLESS).result == "hangs"


def test_many_bodies_that_do_not_end_take_a_bounded_time_together(bench, monkeypatch, endless):
    monkeypatch.setattr(checking, "HANGS_SECONDS", 0.2)
    monkeypatch.setattr(checking, "_HANGS_AGAIN_SECONDS", 0.3)
    monkeypatch.setattr(checking, "_BUDGET_SECONDS", 0.4)
    for _ in range(5):
        parked(bench, ships, "x")
    parked(bench, marks, "y")
    loops = code(ENDLESS + "@workflow\ndef marks(item: str):\n    pick(item)\n    patched('marked')\n    return wait_signal('go', str)\n")
    report = checking.check(bench.engine.path, loops, Settings())
    assert [one.result for one in report.runs] == ["hangs", "hangs", "fits"]
    assert report.not_looked_at == 3
    assert report.to_json()["not_looked_at"] == 3


def test_a_patch_is_needed_until_no_open_run_goes_by_the_old_code(bench):
    old = parked(bench, ships, "x")
    new = SHIPS.replace("pick(item); pack", "patched('more') and pick(item + '2')\n    pick(item); pack")
    report = checking.check(bench.engine.path, code(new), Settings())
    assert [one.result for one in report.runs] == ["fits"]
    assert report.patches() == [{"id": "more", "in_code": True, "needed_by": [old.id], "marked": 0}]
    old.cancel(undo=False)
    eventually(lambda: old.status == "cancelled")

    fresh = parked(bench, marks, "y")
    report = checking.check(bench.engine.path, defined, Settings())
    assert report.patches() == [{"id": "marked", "in_code": True, "needed_by": [], "marked": 1}]
    without = STEPS + "@workflow\ndef marks(item: str):\n    pick(item)\n    return wait_signal('go', str)\n"
    report = checking.check(bench.engine.path, code(without), Settings())
    assert [(one.id, one.result) for one in report.runs] == [(fresh.id, "fits")]
    assert report.patches()[0]["in_code"] is False


def test_the_live_file_is_not_written(bench):
    parked(bench, ships, "x")
    version = bench.store.data_version()
    checking.check(bench.engine.path, code(SHIPS), Settings())
    assert bench.store.data_version() == version


def test_the_command_exits_1_when_a_run_does_not_fit(bench, tmp_path, monkeypatch, capsys):
    parked(bench, ships, "x")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.py").write_text("from outlast import workflow\n@workflow\ndef nothing() -> None: ...\n")
    with registry.isolated():
        assert call(("check", "--db", bench.engine.path, "--app", str(tmp_path / "other.py"), "--json")) == 1
    assert '"no code"' in capsys.readouterr().out
    assert call(("check", "--db", bench.engine.path, "zzz")) == 3


def test_a_run_that_cannot_be_read_without_its_key_is_said(bench):
    register_payload_codec(type("Turned", (), {"name": "k1", "encode": lambda _, b: b[::-1], "decode": lambda _, b: b[::-1]})())
    try:
        parked(bench, ships, "x")
        assert judge(bench, SHIPS).result == "fits"
    finally:
        payloads.forget_all()
    verdict = judge(bench, SHIPS)
    assert (verdict.result, "'k1'" in (verdict.message or "")) == ("no key", True)
