"""Commands on a run that went on as new ones: they follow it."""

from __future__ import annotations

import json

import pytest

from .conftest import Call


def test_run_works_on_all_of_them_and_prints_the_last_result(outlast: Call) -> None:
    done = outlast("run", "endless", "--json")
    assert (done.code, done.json) == (0, 3)
    assert [run["status"] for run in outlast("runs", "--json").json] == ["completed"] * 3


@pytest.fixture
def first(outlast: Call) -> str:
    """The first of three runs, all of which have completed."""
    uid = outlast("start", "endless", "--key", "e").out.strip()
    outlast("agent", "--once")
    return uid


def test_looking_at_the_first_gives_what_the_last_has(outlast: Call, first: str) -> None:
    last = outlast("show", "endless:e", "--json").json["id"]
    assert last != first
    assert outlast("result", first, "--json").json == 3
    assert outlast("result", first, "--wait", "--json").json == 3
    assert outlast("query", first, "number", "--json").json == 3
    drawn = outlast("show", first).out
    assert f"went on as {last}" in drawn
    assert "result" not in drawn
    assert outlast("show", first, "--json").json["id"] == first
    assert outlast("show", first, "--follow", "--json").json["id"] == last
    assert last in outlast("why", first).out


def test_acting_on_the_first_acts_on_the_last(outlast: Call, first: str) -> None:
    last = outlast("show", "endless:e", "--json").json["id"]
    again = outlast("retry", first, "--json").json
    assert again["retry_of"] == last
    assert outlast("cancel", last, "--json").code == 4


def test_run_with_the_key_of_one_that_went_on_carries_that_on(outlast: Call) -> None:
    outlast("start", "endless", "until=4", "--key", "k")
    assert outlast("run", "endless", "until=4", "--key", "k", "--json").json == 4
    assert outlast("run", "endless", "--key", "k", "--json").json == 4


def test_following_a_stream_or_the_logs_goes_on_with_the_next_runs(outlast: Call, first: str) -> None:
    alone = outlast("stream", first, "numbers", "--json").json
    assert [(message["run_id"], message["number"], message["value"]) for message in alone] == [(first, 1, 1), (first, 2, 10)]
    followed = [json.loads(line) for line in outlast("stream", first, "numbers", "--follow", "--json").out.splitlines()]
    assert [message["value"] for message in followed] == [1, 10, 2, 20, 3, 30]
    assert [message["number"] for message in followed] == [1, 2] * 3
    assert len({message["run_id"] for message in followed}) == 3
    assert outlast("stream", first, "numbers", "--follow", "--after", "1").out.split() == ["10", "2", "20", "3", "30"]
    lines = [json.loads(line) for line in outlast("logs", first, "--follow", "--step", "says", "--json").out.splitlines()]
    assert [line["message"] for line in lines] == [f"number {number}" for number in (1, 2, 3)]
    assert len(outlast("logs", first).out.splitlines()) == 1
