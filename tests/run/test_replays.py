"""`replays`: a run that `outlast export` wrote, against code that has changed since."""

from __future__ import annotations

import json
import re

import pytest
from run_bench import effects
from test_checking import STEPS, aships, code, defined, endless, fans, marks, parked, ships

from outlast.cli.main import call
from outlast.errors import CodeMismatch, InvalidInput, TimedOut
from outlast.testing import replays
from outlast.views.recording import read_instants

__all__ = ["defined", "endless"]


def export(bench, run, tmp_path, capsys):
    capsys.readouterr()
    assert call(("export", "--db", bench.engine.path, run.id)) == 0
    path = tmp_path / "run.json"
    path.write_text(capsys.readouterr().out)
    return path


def recorded(bench, tmp_path, capsys, flow=ships, *, ends=True):
    run = parked(bench, flow, "x")
    if ends:
        run.signal("go", "went")
        bench.agent()
        bench.wait_for(run, "completed")
        bench.stop()
    return export(bench, run, tmp_path, capsys)


def changed(body, decorated="def ships(item: str)"):
    made = code(STEPS + f"@workflow\n{decorated}:\n    {body}\n")
    return made.workflow("ships")


@pytest.mark.parametrize("flow", [ships, aships, marks])
def test_a_completed_run_replays_on_the_code_that_wrote_it(bench, tmp_path, capsys, flow):
    history = recorded(bench, tmp_path, capsys, flow)
    done = list(effects)
    assert replays(flow, history=history) == []
    assert effects == done, "a step ran"


@pytest.mark.parametrize("flow", [ships, aships, fans])
def test_an_open_run_replays_as_far_as_it_went(bench, tmp_path, capsys, flow):
    assert replays(flow, history=str(recorded(bench, tmp_path, capsys, flow, ends=False))) == []


def test_the_first_difference_is_named(bench, tmp_path, capsys):
    history = recorded(bench, tmp_path, capsys)
    with pytest.raises(CodeMismatch, match="At 1 the journal has step pick, the code has step pack"):
        replays(changed("pack(item); pick(item)"), history=history)
    with pytest.raises(CodeMismatch, match="a completed run, the code has one more durable call"):
        replays(changed("pick(item); pack(item); wait_signal('go', str); pick(item)"), history=history)
    with pytest.raises(CodeMismatch, match="a completed run, the code has ZeroDivisionError"):
        replays(changed("pick(item); pack(item); wait_signal('go', str); 1 / 0"), history=history)
    with pytest.raises(CodeMismatch, match="At 3"):
        replays(changed("pick(item); pack(item)"), history=history)


def test_a_run_of_another_workflow_is_refused(bench, tmp_path, capsys):
    history = recorded(bench, tmp_path, capsys)
    with pytest.raises(InvalidInput, match="is a run of ships, not of marks"):
        replays(marks, history=history)
    other = code(STEPS + "@workflow(name='ships', version='2')\ndef ships(item: str): pass\n").workflow("ships")
    with pytest.raises(InvalidInput, match="is a run of ships, not of ships@2"):
        replays(other, history=history)


def test_changed_arguments_are_given_back_as_warnings(bench, tmp_path, capsys):
    history = recorded(bench, tmp_path, capsys)
    (warning,) = replays(changed("pick(item); pack('y'); return wait_signal('go', str)"), history=history)
    assert "pack (at 2)" in warning


def test_what_is_no_recording_or_no_longer_fits_is_said(bench, tmp_path, capsys):
    history = recorded(bench, tmp_path, capsys)
    with pytest.raises(InvalidInput, match="does not fit ships"):
        replays(changed("pick(other)", "def ships(other: str)"), history=history)
    for text in ("", "[]", "{}", '{"recording": 1}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InvalidInput, match=r"not a recorded run: \w+: [^.]+.*\."):
            replays(ships, history=tmp_path / "bad.json")
    with pytest.raises(InvalidInput, match=r"not a recorded run: \w+: [^.]+.*\."):
        replays(ships, history=tmp_path / "none.json")


def test_instants_are_written_as_text_and_old_numbers_are_read(bench, tmp_path, capsys):
    history = recorded(bench, tmp_path, capsys)
    document = json.loads(history.read_text())
    entry = document["recording"]["journal"][0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry["at"])
    numbers = read_instants(document["recording"])
    assert numbers["journal"][0]["at"] == bench.one("select at from outlast_journal order by task_id, seq")
    (tmp_path / "old.json").write_text(json.dumps({"recording": numbers}))
    assert replays(ships, history=tmp_path / "old.json") == []


def test_a_body_that_does_not_come_to_a_wait_is_left_after_the_timeout(bench, tmp_path, capsys, endless):
    history = recorded(bench, tmp_path, capsys)
    made = code(STEPS + "@workflow\ndef ships(item: str):\n    ENOUGH.wait()\n    raise SystemExit\n")
    with pytest.raises(TimedOut, match=r"The body of ships did not come to a wait within 0\.05 s"):
        replays(made.workflow("ships"), history=history, timeout="50ms")
