"""What looks: lists, one run, values, and what is safe to show."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from outlast.cli import render, text, tree
from outlast.cli.follow import screen

from .conftest import Call

RUN_KEYS = {
    "id", "workflow", "version", "status", "queue", "partition", "key",
    "input", "output", "error", "claim", "crashes", "parent_id", "retry_of",
    "tags", "created_at", "started_at", "finished_at", "due_at", "deadline_at", "halt_reason",
    "undo",
}  # fmt: skip


def test_whoever_stops_watching_is_told_that_the_run_goes_on(outlast: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object, __: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("outlast.views.watch.Watch.wait", interrupted)
    done = outlast("start", "waits", "--wait")
    assert (done.code, "goes on; `outlast show " in done.err) == (130, True)
    assert outlast("start", "waits", "--wait", "--json").err == ""


def test_runs_lists_the_newest_first_with_every_field(outlast: Call) -> None:
    ids = [outlast("start", "add", f"a={n}").out.strip() for n in range(3)]
    found = outlast("runs", "--json").json
    assert [run["id"] for run in found] == ids[::-1]
    assert set(found[0]) == RUN_KEYS
    lines = outlast("runs", "--jsonl").out.splitlines()
    assert [json.loads(line)["id"] for line in lines] == ids[::-1]


def test_runs_filters(outlast: Call) -> None:
    outlast("start", "add", "a=1", "--tag", "shop=berlin")
    outlast("start", "waits")
    assert len(outlast("runs", "--workflow", "waits", "--json").json) == 1
    assert len(outlast("runs", "--tag", "shop=berlin", "--json").json) == 1
    assert len(outlast("runs", "--status", "pending", "--status", "failed", "--json").json) == 2
    assert outlast("runs", "--status", "failed", "--json").json == []
    assert outlast("runs", "--until", "1h", "--json").json == []
    assert len(outlast("runs", "--since", "1h", "--limit", "1", "--json").json) == 1
    assert outlast("runs", "--limit", "1").err == "The newest 1; --limit shows more.\n"
    assert outlast("runs", "--limit", "2").err == ""


@pytest.mark.parametrize("arguments", [["--status", "done"], ["--since", "soon"], ["--tag", "x"], ["--limit", "0"]])
def test_a_wrong_filter_is_refused(outlast: Call, arguments: list[str]) -> None:
    outlast("migrate")
    assert outlast("runs", *arguments).code == 2


def test_a_table_in_a_pipe_is_plain_and_keeps_ids_whole(outlast: Call) -> None:
    key = "k" * 300
    uid = outlast("start", "add", "a=1", "--key", key).out.strip()
    out = outlast("runs").out
    assert uid in out
    assert key in out
    assert "\x1b" not in out


def test_colour_can_be_forced_and_refused(outlast: Call, started: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = outlast("runs").out
    assert "\x1b[" in coloured
    assert started in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in outlast("runs").out


@pytest.mark.parametrize("command", ["show", "result", "why", "cancel", "pause", "resume", "retry", "export"])
def test_an_unknown_run_is_exit_3_and_names_the_list(outlast: Call, started: str, command: str) -> None:
    done = outlast(command, "zzzzzz", "--json")
    assert done.code == 3
    assert done.error["type"] == "RunNotFound"
    assert "outlast runs" in done.error["hint"]


def test_a_prefix_is_enough_where_it_is_unique(outlast: Call, started: str) -> None:
    assert outlast("show", started[:8], "--json").json["id"] == started
    outlast("start", "add", "a=1")
    done = outlast("show", started[0], "--json")
    assert done.code == 2
    assert done.error["type"] == "AmbiguousRun"


def test_show_has_steps_and_children(outlast: Call) -> None:
    pytest.importorskip("outlast.agent")
    outlast("run", "parent", "a=1", "--key", "p")
    shown = outlast("show", "parent:p", "--json").json
    assert set(shown) == RUN_KEYS | {"steps", "children"} == set(shown["children"][0])
    child = shown["children"][0]
    assert child["workflow"] == "add"
    assert [step["name"] for step in child["steps"]] == ["double"]
    drawn = outlast("show", "parent:p").out
    assert "parent" in drawn
    assert "double" in drawn
    assert "result" in drawn


def test_show_undo_lists_what_would_be_undone(outlast: Call) -> None:
    pytest.importorskip("outlast.agent")
    uid = outlast("start", "waits").out.strip()
    outlast("agent", "--once")
    plan = outlast("show", uid, "--undo", "--json").json["undo_plan"]
    assert [(undo["name"], undo["input"]) for undo in plan] == [("take", {"thing": "a seat"})]
    assert "take" in outlast("show", uid, "--undo").out


def test_result_of_an_open_run_is_exit_5(outlast: Call, started: str) -> None:
    assert outlast("result", started).code == 5
    done = outlast("result", started, "--timeout", "50ms", "--json")
    assert done.code == 5
    assert done.error["type"] == "ResultTimeout"


def test_result_prints_the_bare_value(outlast: Call) -> None:
    pytest.importorskip("outlast.agent")
    outlast("run", "add", "a=1", "--key", "k")
    assert outlast("result", "add:k", "--json").json == {"sum": 3, "note": "", "price": "1.50"}
    assert outlast("result", "add:k", "--raw", "--json").json["price"] != "1.50"


def test_query_and_stream_print_what_a_run_says(outlast: Call) -> None:
    pytest.importorskip("outlast.agent")
    outlast("run", "add", "a=1", "--key", "k")
    assert outlast("query", "add:k", "progress", "--json").json == {"at": 50}
    missing = outlast("query", "add:k", "nothing", "--json")
    assert missing.code == 3
    assert missing.error["type"] == "KeyNotFound"
    (only,) = outlast("query", "add:k", "--json").json
    assert set(only) == {"key", "value", "at"}
    assert (only["key"], only["value"]) == ("progress", {"at": 50})
    assert outlast("query", "add:k", "--jsonl").json == only
    heads, row = outlast("query", "add:k").out.splitlines()
    assert heads.split() == ["KEY", "AGE", "VALUE"]
    assert row.split(maxsplit=2)[::2] == ["progress", '{"at": 50}']
    assert [message["value"] for message in outlast("stream", "add:k", "log", "--json").json] == [
        "begin",
        "end",
    ]
    misspelt = outlast("stream", "add:k", "lok")
    assert (misspelt.code, misspelt.out) == (0, "")
    assert "has emitted nothing on 'lok'. Its streams: log." in misspelt.err
    assert outlast("stream", "add:k", "log", "--after", "9").err == ""
    assert outlast("stream", "add:k", "log", "--after", "1").out == '"end"\n'
    assert outlast("stream", "add:k", "log", "--follow").out == '"begin"\n"end"\n'


def test_why_explains(outlast: Call, started: str) -> None:
    pytest.importorskip("outlast.why")
    assert set(outlast("why", started, "--json").json) == {"summary", "details", "actions"}
    assert outlast("why", started).out


def test_workflows_lists_names_parameters_and_first_lines(outlast: Call) -> None:
    names = [one["name"] for one in outlast("workflows", "--json").json]
    assert names == ["add", "endless", "fails", "halts", "naps", "parent", "risky", "risky_later", "talks", "undone", "waits"]
    out = outlast("workflows").out
    assert "a: int, b: int = 1, note: str = ''" in out
    assert "Double a, add b." in out
    assert outlast("workflow", "list", "--json").json == outlast("workflows", "--json").json


def test_workflow_show_describes_one(outlast: Call) -> None:
    assert outlast("workflow", "show", "waits", "--json").json["timeout_seconds"] == 86_400
    assert "1d" in outlast("workflow", "show", "waits").out
    assert "outlast start add a=..." in outlast("workflow", "show", "add").out
    assert outlast("workflow", "show", "wait").code == 3
    assert outlast("workflow", "shw", "waits").code == 2


def test_agents_and_stats(outlast: Call, started: str) -> None:
    assert outlast("agents", "--json").json == []
    assert outlast("agents").err == "No agent is up; `outlast up` starts some.\n"
    assert outlast("stats", "--json").json["runs"] == {"pending": 1}
    assert "pending" in outlast("stats").out
    pytest.importorskip("outlast.agent")
    outlast("agent", "--once")
    found = outlast("agents", "--all", "--json").json
    assert set(found[0]) == {"id", "host", "pid", "queues", "status", "running", "heartbeat_at"}


def test_control_characters_never_reach_the_terminal(outlast: Call, project: Path) -> None:
    evil = "\x1b]0;title\x07\x9b31m\x7f\u202e[bold]red[/bold]"
    outlast("start", "waits", f"name={evil}", "--key", evil, "--tag", f"t={evil}")
    for arguments in (["runs"], ["show", f"waits:{evil}"], ["runs", "--json"], ["show", evil]):
        done = outlast(*arguments)
        shown = done.out + done.err
        assert not any(mark in shown for mark in "\x1b\x07\x9b\x7f\u202e"), arguments
    assert "[bold]red[/bold]" in outlast("runs").out
    assert outlast("runs", "--json").json[0]["key"] == evil


def test_safe_spells_what_it_replaces() -> None:
    assert text.safe("a\x1b\n\x85\ud800") == "a\\x1b\\n\\x85\\ud800"
    assert text.safe_lines("a\n\tb\x07") == "a\n\tb\\x07"
    assert json.loads(text.safe_json(json.dumps("\x9b\u2028", ensure_ascii=False))) == "\x9b\u2028"


def test_a_terminal_without_unicode_gets_plain_marks() -> None:
    import io

    ascii_stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert render.mark("completed", ascii_stream) == "+"
    assert render.branches(ascii_stream)[0] == "|- "
    assert tree.is_over({"status": "halted"})


def test_queues_lists_what_waits(outlast: Call, started: str) -> None:
    keys = {"name", "depth", "running", "oldest_seconds", "concurrency", "rate", "per_partition", "paused"}
    found = outlast("queues", "--json").json
    assert [(one["name"], one["depth"]) for one in found] == [("default", 1)]
    assert set(found[0]) == keys
    assert "default" in outlast("queues").out


def test_a_run_is_told_to_run_before_the_steps_that_it_ran_meanwhile() -> None:
    times = {"started_at": None, "finished_at": None}
    step = {"path": "1", "name": "greet", "kind": "step", "status": "completed", "tries": 1, "error": None, **times}
    run = {"id": "r", "workflow": "hello", "status": "running", "steps": [step], "children": [], **times}
    told = io.StringIO()
    with screen(told, silent=False) as where:
        where.show(run, "")
    assert [line.split()[1] for line in told.getvalue().splitlines()] == ["hello", "greet"]
