"""Small things that people expect of a command line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from outlast.definition.options import Options
from outlast.errors import InvalidInput

from .conftest import Call


@pytest.mark.parametrize("number", ["-5", "-0.25", "-1e3"])
def test_a_negative_number_is_a_payload(outlast: Call, number: str) -> None:
    uid = outlast("start", "waits", "--priority", "-5").out.strip()
    assert outlast("signal", uid, "go", number, "--key", "k").code == 0
    assert outlast("run", "waits", "--key", "none", "-5").code == 2
    assert outlast("agent", "--once").code == 0
    assert outlast("result", uid, "--json").json == float(number)


def test_an_option_that_is_no_number_is_still_refused(outlast: Call, started: str) -> None:
    refused = outlast("signal", started, "go", "-x")
    assert refused.code == 2
    assert "-x" in refused.err


def test_a_misspelt_variable_is_named_with_the_one_that_was_meant(outlast: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    outlast("migrate")
    monkeypatch.setenv("OUTLAST_DBB", "other.db")
    monkeypatch.setenv("OUTLAST_GREETING", "an application's own")
    found = outlast("runs", "--json")
    assert found.json == []
    assert found.err == "nothing reads $OUTLAST_DBB; did you mean $OUTLAST_DB?\n"
    monkeypatch.setenv("OUTLAST_LIVENESS_FD", "3")
    assert outlast("stats").err == ""


@pytest.mark.parametrize("arguments", [["--json", "--version"], ["--version", "--json"]])
def test_the_version_is_json_where_that_is_asked_for(outlast: Call, arguments: list[str]) -> None:
    from outlast import __version__

    assert outlast(*arguments).json == {"version": __version__}


def test_a_key_has_a_limit_at_every_door(outlast: Call, started: str) -> None:
    longest = "k" * 500
    assert outlast("start", "waits", "--key", longest).code == 0
    refused = outlast("start", "waits", "--key", f"{longest}k", "--json")
    assert refused.code == 2
    assert refused.error["message"] == "key has 501 characters; the limit is 500."
    assert outlast("start", "waits", "--unique-key", f"{longest}k").code == 2
    assert outlast("signal", started, "go", "--key", f"{longest}k").code == 2
    with pytest.raises(InvalidInput, match="limit is 500"):
        Options().updated({"key": f"{longest}k"})


def test_update_changes_the_arguments_that_are_named(outlast: Call) -> None:
    outlast("migrate")
    assert outlast("schedule", "create", "often", "add", "--every", "1h", "a=1", "b=1", "note=first").code == 0
    assert outlast("schedule", "update", "often", "b=2").code == 0
    assert outlast("schedule", "show", "often", "--json").json["input"] == {"a": 1, "b": 2, "note": "first"}
    assert outlast("schedule", "update", "often", "--input", '{"a": 3}').code == 0
    assert outlast("schedule", "show", "often", "--json").json["input"] == {"a": 3}


SCHEDULED = """
from outlast import Cron, workflow


@workflow(schedule=Cron("0 2 * * *"))
def declared() -> str:
    return "done"
"""


def test_a_schedule_that_only_code_has_can_be_acted_on(project: Path, outlast: Call) -> None:
    (project / "workflows" / "planned.py").write_text(SCHEDULED)
    outlast("migrate")
    assert outlast("schedule", "show", "declared", "--json").json["status"] == "new"
    paused = outlast("schedule", "pause", "declared", "--json")
    assert paused.json["status"] == "paused"
    assert paused.err == "The schedule declared is new in the code, and begins now.\n"
    assert outlast("schedule", "resume", "declared").err == ""
    assert outlast("schedule", "pause", "undeclared").code == 3


@pytest.mark.parametrize("verb", [["trigger"], ["backfill", "--from", "2026-01-01", "--to", "2026-01-02T12:00"]])
def test_a_schedule_that_only_code_has_starts_runs(project: Path, outlast: Call, verb: list[str]) -> None:
    (project / "workflows" / "planned.py").write_text(SCHEDULED)
    outlast("migrate")
    assert outlast("schedule", verb[0], "declared", *verb[1:]).code == 0
    assert {run["workflow"] for run in outlast("runs", "--json").json} == {"declared"}


WAITING = """
import asyncio

from outlast import aio, sleep, step, wait_signal, workflow


@workflow
def sleeps() -> None:
    sleep("1h")


@workflow
async def several() -> None:
    await asyncio.gather(aio.wait_signal("first", timeout="2h"), aio.sleep("1h"), asyncio.sleep(7200))


@workflow
def above() -> None:
    sleeps()
"""


def test_show_draws_what_a_waiting_run_waits_for(project: Path, outlast: Call) -> None:
    (project / "workflows" / "waiting.py").write_text(WAITING)
    ids = {name: outlast("start", name).out.strip() for name in ("sleeps", "several", "above", "waits")}
    assert outlast("agent", "--once").code == 0

    def drawn(name: str) -> list[str]:
        return [line.strip(" |`-~└├─│…") for line in outlast("show", ids[name]).out.splitlines() if " waits " in line]

    [timer] = drawn("sleeps")
    assert re.fullmatch(r".*waits until .*\(in (59m|1h)\)", timer)
    assert len(drawn("several")) == 3
    assert sum("waits for the signal first, until" in line for line in drawn("several")) == 1
    assert [line for line in drawn("waits") if line.endswith("waits for the signal go")]
    assert any(line.endswith("waits for the child sleeps") for line in drawn("above"))


def test_start_wait_json_prints_the_run(project: Path, process: Call, outlast: Call) -> None:
    assert outlast("start", "fails", "--key", "k").code == 0
    assert outlast("agent", "--once").code == 0
    found = outlast("start", "fails", "--key", "k", "--wait", "--json")
    assert found.code == 1
    assert found.json["status"] == "failed"
    assert found.json["error"]["message"] == "no luck"


QUEUED = """
from outlast import Queue, step, workflow

Queue("emails")


@workflow(queue="email")
def mails() -> None: ...


@step(queue="set-by-hand")
def sends() -> None: ...
"""


def test_a_queue_that_nobody_declares_is_said_when_code_is_looked_at(project: Path, outlast: Call) -> None:
    (project / "workflows" / "queued.py").write_text(QUEUED)
    told = outlast("workflows")
    assert told.code == 0
    assert (
        "The workflow mails in workflows/queued.py:7 waits in the queue 'email', which nobody declares; did you mean 'emails'?" in told.err
    )
    assert "The step sends in workflows/queued.py:11 waits in the queue 'set-by-hand', which nobody declares. Declare it" in told.err
    outlast("migrate")
    assert outlast("queue", "set", "set-by-hand", "--concurrency", "2").code == 0
    told = outlast("check", "--json")
    assert told.json["fits"] is True
    assert len(told.err.splitlines()) == 1
