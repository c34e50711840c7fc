"""What acts: cancel, pause, resume, retry, signal, by id and by filter."""

from __future__ import annotations

import json

import pytest

from .conftest import Call


def test_cancel_ends_a_run_that_nobody_works_on(outlast: Call, started: str) -> None:
    done = outlast("cancel", started)
    assert done.code == 0
    assert "cancelled" in done.out
    assert outlast("result", started).code == 6
    again = outlast("cancel", started, "--json")
    assert again.code == 4
    assert again.error["type"] == "RunFinished"


def test_pause_and_resume(outlast: Call, started: str) -> None:
    assert outlast("pause", started, "--json").json["status"] == "paused"
    assert outlast("resume", started, "--json").json["status"] == "pending"
    refused = outlast("resume", started)
    assert refused.code == 4
    assert "neither paused nor halted" in refused.err


def test_several_runs_are_named_at_once(outlast: Call, started: str) -> None:
    other = outlast("start", "waits").out.strip()
    found = outlast("cancel", started, other, "--json").json
    assert [run["status"] for run in found] == ["cancelled", "cancelled"]


def test_nothing_is_done_when_one_of_them_is_not_found(outlast: Call, started: str) -> None:
    assert outlast("cancel", started, "zzzz").code == 3
    assert outlast("show", started, "--json").json["status"] == "pending"


def test_one_that_refuses_does_not_hold_up_the_others(outlast: Call, started: str) -> None:
    other = outlast("start", "waits").out.strip()
    outlast("cancel", started)
    assert outlast("cancel", started, other).code == 4
    assert outlast("show", other, "--json").json["status"] == "cancelled"


def test_each_one_that_refuses_is_told(outlast: Call, started: str) -> None:
    other = outlast("start", "waits").out.strip()
    assert outlast("cancel", started, other).code == 0
    refused = outlast("cancel", started, other, "--json")
    assert (refused.code, refused.json) == (4, [])
    # One document on stderr too.
    told = json.loads(refused.err)
    assert told["error"] == refused.error
    assert [(one["run_id"], one["type"], one["exit_code"]) for one in told["errors"]] == [
        (uid, "RunFinished", 4) for uid in (started, other)
    ]
    assert [uid in line for uid, line in zip((started, other), outlast("cancel", started, other).err.splitlines(), strict=True)] == [
        True
    ] * 2
    filtered = outlast("pause", "--all", "--status", "cancelled", "--yes", "--json")
    assert [one["run_id"] for one in json.loads(filtered.err)["errors"]] == [other, started]


def test_a_filter_needs_yes_where_nobody_can_be_asked(outlast: Call, started: str) -> None:
    done = outlast("cancel", "--all", "--workflow", "waits")
    assert done.code == 2
    assert "cancel 1 run" in done.err
    assert "--yes" in done.err
    assert outlast("show", started, "--json").json["status"] == "pending"


def test_a_filter_acts_on_what_fits(outlast: Call, started: str) -> None:
    other = outlast("start", "add", "a=1", "--tag", "x=y").out.strip()
    found = outlast("cancel", "--all", "--tag", "x=y", "--yes", "--json").json
    assert [run["id"] for run in found] == [other]
    assert outlast("cancel", "--all", "--status", "failed", "--yes", "--json").json == []
    assert [run["id"] for run in outlast("pause", "--all", "--yes", "--json").json] == [started]


@pytest.mark.parametrize("command", ["cancel", "pause", "resume", "retry"])
def test_neither_runs_nor_a_filter_is_a_usage_error(outlast: Call, started: str, command: str) -> None:
    assert outlast(command).code == 2
    assert outlast(command, started, "--all").code == 2


def test_retry_starts_a_finished_run_anew(outlast: Call, started: str) -> None:
    refused = outlast("retry", started)
    assert refused.code == 4
    outlast("cancel", started)
    again = outlast("retry", started, "--json").json
    assert again["id"] != started
    assert again["retry_of"] == started
    assert outlast("retry", started, "--json").json["id"] == again["id"]


def test_signal_reaches_a_run_that_waits(outlast: Call) -> None:
    pytest.importorskip("outlast.agent")
    uid = outlast("start", "waits").out.strip()
    assert outlast("signal", uid, "go", '{"by": "eve"}').code == 0
    outlast("agent", "--once")
    assert outlast("result", uid, "--json").json == {"by": "eve"}
    late = outlast("signal", uid, "go", "--json")
    assert late.code == 4
    assert late.error["type"] == "RunFinished"


def test_a_signal_that_is_no_json_is_refused(outlast: Call, started: str) -> None:
    done = outlast("signal", started, "go", "{by: eve}")
    assert done.code == 2
    assert "The payload is not JSON" in done.err
    assert 'names and texts are in double quotes, as in {"by": ["eve"]}.' in done.err
    assert """A text is given with its quotes: '"Ada"'.""" in outlast("signal", started, "go", "Ada").err
    assert outlast("signal", started, "").code == 2


def test_resume_with_what_was_found_out_is_refused_where_nobody_asked(outlast: Call, started: str) -> None:
    outlast("pause", started)
    assert outlast("resume", started, "--done", "7").code == 4
    assert outlast("resume", started, "--done", "{").code == 2
    assert outlast("resume", started, "--done", "7", "--not-done").code == 2
    assert outlast("show", started, "--json").json["status"] == "paused"


def test_a_retry_goes_on_where_the_run_failed_and_from_a_chosen_step(outlast: Call) -> None:
    outlast("run", "undone", "thing=a lamp")
    [failed] = outlast("runs", "--json").json
    assert failed["status"] == "compensated"
    # By its place as it is drawn; a name does as well.
    place = next(step["path"] for step in outlast("show", failed["id"], "--json").json["steps"] if step["name"] == "explode")
    again = outlast("retry", failed["id"], "--from-step", f"#{place}", "--json")
    assert again.code == 0
    assert again.json["retry_of"] == failed["id"]
    assert again.json["input"] == {"thing": "a lamp"}
    assert "retry of" in outlast("show", again.json["id"]).out
    assert f"It is a retry of {failed['id']}" in outlast("why", again.json["id"]).out
    assert f"the newest retry is {again.json['id']}, which is pending" in outlast("why", failed["id"]).out


def test_a_retry_shows_what_it_has_inherited(outlast: Call) -> None:
    outlast("run", "undone")
    [failed] = outlast("runs", "--json").json
    outlast("retry", failed["id"])
    outlast("agent", "--once")
    assert "inherited" not in outlast("show", failed["id"]).out
    # What was undone has run again.
    again = outlast("runs", "--json", "--limit", "1").json[0]
    assert "inherited" not in outlast("show", again["id"]).out
    outlast("run", "add", "a=1", "--key", "k")
    outlast("retry", "add:k")
    outlast("agent", "--once")
    assert "inherited" in outlast("show", "add:k").out


def test_a_retry_from_a_step_that_is_not_there_is_not_found(outlast: Call) -> None:
    outlast("run", "fails")
    [failed] = outlast("runs", "--json").json
    refused = outlast("retry", failed["id"], "--from-step", "nothing", "--json")
    assert refused.code == 3
    assert refused.error["type"] == "StepNotFound"
    assert len(outlast("runs", "--json").json) == 1


def test_a_filter_retries_only_what_was_not_retried_yet(outlast: Call) -> None:
    ids = []
    for _ in range(3):
        outlast("run", "fails")
        ids.append(outlast("runs", "--json", "--limit", "1").json[0]["id"])
    again = outlast("retry", ids[0], "--json").json["id"]
    refused = outlast("retry", "--all", "--workflow", "fails", "--status", "failed", "--json")
    assert refused.code == 2
    assert "retry 2 runs" in refused.error["message"]
    found = outlast("retry", "--all", "--workflow", "fails", "--status", "failed", "--yes", "--json").json
    assert {run["retry_of"] for run in found} == set(ids[1:])
    assert again not in {run["id"] for run in found}
    assert outlast("retry", "--all", "--yes", "--json").json == []


def test_several_runs_of_one_chain_have_one_retry(outlast: Call) -> None:
    outlast("run", "fails")
    first = outlast("runs", "--json", "--limit", "1").json[0]["id"]
    second = outlast("retry", first, "--json").json["id"]
    outlast("cancel", second)
    found = outlast("retry", first, second, "--json").json
    assert len(found) == 1


def test_the_retry_of_a_halted_run_names_resume(outlast: Call) -> None:
    outlast("run", "halts")
    uid = outlast("runs", "--json").json[0]["id"]
    refused = outlast("retry", uid, "--json")
    assert refused.code == 4
    assert f"outlast resume {uid}" in refused.error["hint"]
