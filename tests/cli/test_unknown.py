"""A step whose agent died in it: what `why`, `show` and `resume` say and take."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Call

pytestmark = pytest.mark.crash


@pytest.fixture(params=[("risky",), ("risky", "submitted=true"), ("risky_later",)], ids=["inline", "submitted", "async"])
def halted(request: pytest.FixtureRequest, outlast: Call, process: Call, project: Path) -> str:
    run = outlast("start", *request.param, "number=5").out.strip()
    assert process("agent", "--once").code == -9
    process("supervisor_once", program=("-c", SUPERVISE))
    assert process("agent", "--once").code == 0
    assert outlast("show", run, "--json").json["status"] == "halted"
    return run


SUPERVISE = """
from outlast.settings import resolve
from outlast.store.sqlite import SqliteStore
from outlast.supervisor import Supervisor

store = SqliteStore("outlast.db")
Supervisor(store, resolve()).tick(store.now())
"""


def test_a_bare_resume_is_refused_and_names_both_answers(outlast: Call, halted: str) -> None:
    refused = outlast("resume", halted, "--json")
    assert (refused.code, refused.error["type"]) == (4, "OutcomeNeeded")
    assert "--done JSON" in refused.error["hint"]
    assert "--not-done" in refused.error["hint"]
    # No hint names what would be refused.
    assert f"outlast resume {halted}`" not in outlast("result", halted).err
    said = outlast("why", halted, "--json").json
    assert "nobody knows whether its step risks took effect" in said["summary"]
    assert f"outlast resume {halted} --not-done" in said["actions"]
    assert said["details"][0] == 'It asks about the step risks at 1, called with {"number": 5}.'
    shown = outlast("show", halted, "--json").json
    assert [one["status"] for one in shown["steps"]] == ["unknown"]
    assert "risks" in shown["halt_reason"]


def test_an_answer_is_of_the_type_that_the_step_gives(outlast: Call, process: Call, halted: str) -> None:
    assert outlast("resume", halted, "--done", "{").code == 2
    refused = outlast("resume", halted, "--done", '"many"', "--json")
    assert (refused.code, refused.error["type"]) == (2, "InvalidInput")
    assert outlast("resume", halted, "--done", "1", "--not-done").code == 2
    assert outlast("show", halted, "--json").json["status"] == "halted"
    assert outlast("resume", halted, "--done", "7").code == 0
    assert process("agent", "--once").code == 0
    assert outlast("result", halted, "--json").json == 7


def test_what_was_not_done_runs_again(outlast: Call, process: Call, halted: str) -> None:
    assert outlast("resume", halted, "--not-done").code == 0
    assert process("agent", "--once").code == 0
    assert outlast("result", halted, "--json").json == 5
    assert outlast("doctor").code == 0
