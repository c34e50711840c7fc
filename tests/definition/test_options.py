"""The options of one call."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from outlast.definition.options import DEFAULT, Options
from outlast.definition.retry import Retry
from outlast.errors import InvalidInput


def test_durations_become_seconds_and_a_number_of_tries_a_policy() -> None:
    options = DEFAULT.updated({"delay": "5m", "timeout": timedelta(hours=1), "retry": 3, "priority": -2})
    assert options.delay_seconds == 300
    assert options.timeout_seconds == 3600
    assert options.retry == Retry(3)
    assert options.priority == -2


def test_later_options_are_laid_over_earlier_ones() -> None:
    first = DEFAULT.updated({"queue": "a", "key": "k"})
    assert first.updated({"queue": "b"}) == Options(queue="b", key="k")
    assert Options() == DEFAULT


def test_a_naive_instant_is_local_time() -> None:
    naive = datetime(2026, 7, 1, 12, 0)
    options = DEFAULT.updated({"at": naive})
    assert options.at == naive.astimezone()
    assert options.at is not None
    assert options.at.tzinfo is not None
    aware = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
    assert DEFAULT.updated({"at": aware}).at == aware


def test_a_debounce_needs_a_unique_key_that_may_have_been_given_before() -> None:
    keyed = DEFAULT.updated({"unique_key": "u"})
    options = keyed.updated({"debounce": "5s", "debounce_max": "1m", "if_exists": "replace"})
    assert (options.debounce_seconds, options.debounce_max_seconds, options.if_exists) == (5, 60, "replace")


def test_tags_are_copied() -> None:
    tags = {"tenant": "a"}
    options = DEFAULT.updated({"tags": tags})
    tags["tenant"] = "b"
    assert options.tags == {"tenant": "a"}


def test_a_connection_is_kept_as_it_is() -> None:
    connection = sqlite3.connect(":memory:")
    try:
        assert DEFAULT.updated({"connection": connection}).connection is connection
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"delay": "1s", "at": datetime(2026, 1, 1)}, "delay and at exclude each other."),
        ({"debounce": "5s"}, "debounce needs a unique_key."),
        ({"debounce_max": "5s"}, "debounce_max needs a unique_key."),
        ({"if_exists": "fail"}, "if_exists needs a unique_key."),
        ({"unique_key": "u", "debounce_max": "5s"}, "debounce_max needs a debounce."),
        (
            {"unique_key": "u", "debounce": "5s", "debounce_max": "1s"},
            "debounce_max is shorter than debounce.",
        ),
        ({"unique_key": "u", "debounce": "5s", "if_exists": "fail"}, 'debounce and if_exists="fail" exclude each other'),
        ({"at": datetime.min}, "at must lie between"),
        ({"at": datetime.max.replace(tzinfo=UTC)}, "at must lie between"),
        ({"unique_key": "u", "if_exists": "wait"}, "if_exists must be one of 'return', 'fail', 'replace'"),
        ({"unique_key": ""}, "unique_key must be a text that is not empty"),
        ({"key": 7}, "key must be a text"),
        ({"key": "\ud800"}, "lone surrogate"),
        ({"delay": -1}, "delay"),
        ({"delay": "soon"}, "delay"),
        ({"timeout": 0}, "timeout must be more than 0 s"),
        ({"at": "2026-01-01"}, "at must be a datetime"),
        ({"priority": "high"}, "priority must be a whole number"),
        ({"priority": True}, "priority must be a whole number"),
        ({"priority": 2**40}, "priority must be a whole number of 32 bits"),
        ({"queue": "no spaces"}, "queue must be a name"),
        ({"partition": None}, "partition must be a text"),
        ({"retry": 0}, "retry must be a whole number of at least 1"),
        ({"tags": ["a"]}, "tags must be a dict"),
        ({"tags": {"a": 1}}, "The tag 'a' must be text, not 1."),
        ({"tags": {1: "a"}}, "A tag's name must be a text"),
        ({"connection": "app.db"}, "connection must be a connection of outlast.sqlite3"),
        ({"tag": {"a": "b"}}, "There is no option 'tag'."),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_sentence(given: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=r"^[^\n]+$") as refused:
        DEFAULT.updated(given)
    assert said in str(refused.value)


@pytest.mark.parametrize("name", ["key", "unique_key", "if_exists", "debounce", "debounce_max", "connection"])
def test_what_is_about_runs_is_no_option_of_a_step(name: str) -> None:
    given: Any = {name: "x"}
    with pytest.raises(InvalidInput, match=f"{name} is an option of workflows; a step has none."):
        DEFAULT.updated(given, kind="step")
