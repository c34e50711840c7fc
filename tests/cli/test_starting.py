"""`start` and `run`: what they take, what they refuse, what they print."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from .conftest import Call


def test_start_prints_the_id_alone_and_says_that_it_made_the_file(outlast: Call, project: Path) -> None:
    done = outlast("start", "add", "a=1")
    assert done.code == 0
    assert done.out.strip().isalnum()
    assert done.err == f"Created {project}/outlast.db.\n"
    assert outlast("start", "add", "a=1").err == ""


def test_what_a_start_refuses_makes_no_file(outlast: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outlast("start", "add", "a=1", "--queue", "nobody").code == 3
    assert outlast("run", "add", "a=x").code == 2
    monkeypatch.setenv("OUTLAST_MAX_PAYLOAD", "10")
    refused = outlast("run", "add", "a=1234567890", "--json")
    assert (refused.code, json.loads(refused.err)["error"]["type"]) == (2, "PayloadTooLarge")
    assert not (project / "outlast.db").exists()


def test_start_prints_the_run_where_json_is_asked_for(outlast: Call) -> None:
    run = outlast("start", "add", "a=1", "--json", "--tag", "shop=berlin", "--priority", "3").json
    assert run["workflow"] == "add"
    assert run["status"] == "pending"
    assert run["input"] == {"a": 1}
    assert run["tags"] == {"shop": "berlin"}


def test_values_take_the_type_of_their_parameter(outlast: Call) -> None:
    run = outlast("start", "add", "a=7", "note=7", "b:=2", "--json").json
    assert run["input"] == {"a": 7, "b": 2, "note": "7"}


def test_the_arguments_may_come_as_json(outlast: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "input.json").write_text('{"a": 3}')
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"[4, 5]")))
    assert outlast("start", "add", "--input", '{"a": 2}', "--json").json["input"] == {"a": 2}
    assert outlast("start", "add", "--input-file", "input.json", "--json").json["input"] == {"a": 3}
    assert outlast("start", "add", "-", "--json").json["input"] == {"a": 4, "b": 5}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ad", "a=1"], 3, "Did you mean 'add'?"),
        (["add"], 2, "a is missing"),
        (["add", "a=1", "c=2"], 2, "'c' is unknown"),
        (["add", "a=1", "nite=x"], 2, "did you mean 'note'?"),
        (["add", "a=one"], 2, "add()"),
        (["add", "a"], 2, "key=value"),
        (["add", "a=1", "a=2"], 2, "given twice"),
        (["add", "a:={"], 2, "JSON"),
        (["add", "--input", "{"], 2, "--input is not JSON"),
        (["add", "--input", "3"], 2, "JSON object"),
        (["add", "--input-file", "missing.json"], 3, "missing.json"),
        (["add", "--input-file", "workflows"], 2, "cannot be read"),
        (["add", "a=1", "--input", "{}"], 2, "two ways"),
        (["add", "a=1", "--tag", "x"], 2, "--tag key=value"),
        (["add", "a=1", "--tag", "x=1", "--tag", "x=2"], 2, "two values"),
        (["add", "a=1", "--delay", "soon"], 2, "delay"),
        (["add", "a=1", "--delay", "1s", "--at", "2030-01-01"], 2, "exclude each other"),
        (["add", "a=1", "--at", "tomorrow"], 2, "--at is not an instant"),
        (["add", "a=1", "--queue", "nowhere"], 3, "nowhere"),
        (["add", "a=1", "--timeout", "0"], 2, "timeout"),
        (["add", "a=1", "--if-exists", "fail"], 2, "unique_key"),
        (["add", "a=1", "--priority", "high"], 2, "--priority"),
        (["add", "a=1", "note=\udc80"], 2, ""),
    ],
)
def test_what_does_not_fit_is_refused_with_a_sentence(outlast: Call, project: Path, arguments: list[str], code: int, words: str) -> None:
    done = outlast("start", *arguments)
    assert done.code == code, done.err
    assert words in done.err
    assert done.err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.err
    if (project / "outlast.db").exists():
        assert outlast("runs", "--json").json == []


def test_where_no_workflow_is_defined_the_error_says_where_was_looked(outlast: Call, project: Path) -> None:
    (project / "workflows" / "flows.py").write_text("")
    done = outlast("start", "add")
    assert done.code == 3
    assert str(project / "workflows") in done.err


def test_a_broken_workflow_file_is_named_with_its_line(outlast: Call, project: Path) -> None:
    (project / "workflows" / "flows.py").write_text("def broken(:\n")
    done = outlast("start", "add", "a=1", "--json")
    assert done.code == 2
    assert "flows.py" in done.error["message"]
    (project / "workflows" / "flows.py").write_text("\nraise RuntimeError('at import')\n")
    done = outlast("workflows")
    assert done.code == 2
    assert "at import" in done.err


def test_a_key_leads_to_the_same_run(outlast: Call) -> None:
    first = outlast("start", "add", "a=1", "--key", "k")
    assert outlast("start", "add", "a=1", "--key", "k").out == first.out
    assert outlast("show", "add:k", "--json").json["id"] == first.out.strip()


VERSIONS = """
from outlast import workflow


@workflow(name="sell", version="1")
def sell_as_before() -> int:
    return 1


@workflow(name="sell", version="2")
def sell(discount: int = -2) -> int:
    return -discount
"""


def test_of_several_versions_the_newest_is_started_or_the_one_that_is_named(outlast: Call, project: Path) -> None:
    (project / "workflows" / "versions.py").write_text(VERSIONS)
    assert [outlast("run", name).out for name in ("sell", "sell@1", "sell@2")] == ["2\n", "1\n", "2\n"]
    assert outlast("workflow", "show", "sell").out.startswith("sell(discount: int = -2)\n")
    assert outlast("workflow", "show", "sell@1").out.startswith("sell()\n")
    unknown = outlast("start", "sell@3")
    assert (unknown.code, "There is no workflow 'sell@3'. Did you mean 'sell@2'?" in unknown.err) == (3, True)
    assert outlast("schedule", "create", "often", "sell@1", "--every", "1h").code == 2


def test_run_works_on_the_run_and_prints_its_result(outlast: Call) -> None:
    pytest.importorskip("outlast.agent")
    done = outlast("run", "add", "a=20", "b=2", "--key", "once")
    assert done.code == 0, done.err
    assert json.loads(done.out) == {"sum": 42, "note": "", "price": "1.50"}
    assert "double" in done.err
    again = outlast("run", "add", "a=20", "b=2", "--key", "once", "--json")
    assert again.json == {"sum": 42, "note": "", "price": "1.50"}


def test_run_exits_by_the_outcome(outlast: Call) -> None:
    pytest.importorskip("outlast.agent")
    done = outlast("run", "fails", "text=out of paper")
    assert done.code == 1
    assert done.out == ""
    assert "ValueError: out of paper" in done.err
    done = outlast("run", "undone", "--json")
    assert done.code == 1
    assert done.error["type"].endswith("ValueError")
    assert "failed and was undone" in done.error["message"]
    # Progress is for people; with --json stderr is the error alone, as one document.
    assert json.loads(done.err)["exit_code"] == 1


def test_run_works_on_its_own_tree_alone(outlast: Call) -> None:
    pytest.importorskip("outlast.agent")
    other = outlast("start", "add", "a=1").out.strip()
    assert outlast("run", "parent", "a=1").code == 0
    assert outlast("show", other, "--json").json["status"] == "pending"
