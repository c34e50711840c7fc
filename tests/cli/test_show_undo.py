"""`show --undo`: what would be undone, what was, and what was left."""

from __future__ import annotations

from .conftest import Call


def test_an_open_run_says_what_would_be_undone_and_goes_on(outlast: Call, started: str) -> None:
    outlast("agent", "--once")
    assert outlast("show", started, "--json").json["status"] == "waiting"
    [undo] = outlast("show", started, "--undo", "--json").json["undo_plan"]
    assert (undo["name"], undo["status"], undo["outcome"]) == ("take", "pending", "completed")
    assert (undo["input"], undo["result"]) == ({"thing": "a seat"}, "took a seat")
    text = outlast("show", started, "--undo").out
    assert "Would be undone, in this order:" in text
    assert "1. take #1" in text
    outlast("signal", started, "go", "1")
    outlast("agent", "--once")
    assert outlast("result", started, "--json").json == 1
    assert outlast("show", started, "--undo", "--json").json["undo_plan"] == []
    assert "nothing to undo" in outlast("show", started, "--undo").out


def test_a_run_that_was_undone_says_what_was(outlast: Call) -> None:
    outlast("run", "undone")
    uid = outlast("runs", "--json").json[0]["id"]
    [undo] = outlast("show", uid, "--undo", "--json").json["undo_plan"]
    assert (undo["status"], undo["result"], undo["tries"], undo["error"]) == ("completed", "took a lamp", 1, None)
    assert undo["finished_at"]
    assert "Was undone, in this order:" in outlast("show", uid, "--undo").out


def test_a_run_that_was_cancelled_without_undo_says_what_was_left(outlast: Call, started: str) -> None:
    outlast("agent", "--once")
    outlast("cancel", started, "--no-undo")
    [undo] = outlast("show", started, "--undo", "--json").json["undo_plan"]
    assert undo["status"] == "left"
    assert "Was left as it is:" in outlast("show", started, "--undo").out
