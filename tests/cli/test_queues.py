"""`queue set|pause|resume`: what holds afterwards, what is refused, and what `why` says of a task that limits hold back."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from outlast.operations import Claim, RegisterAgent
from outlast.store.process import this_process
from outlast.store.sqlite import SqliteStore

from .conftest import Call

QUEUES = """
from outlast import Queue, workflow

Queue("emails", concurrency=10, rate="100/1m", per_partition=2)


@workflow(queue="emails")
def mail(to: str = "a") -> str:
    return to
"""


@pytest.fixture
def app(project: Path) -> Path:
    (project / "workflows" / "mails.py").write_text(QUEUES)
    return project


def shown(outlast: Call, name: str = "emails") -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in outlast("queues", "--json").json if one["name"] == name)
    return found


def take(path: Path, limit: int = 100) -> list[str]:
    """Claim with an agent that has the code, and keep what it got."""
    store = SqliteStore(path / "outlast.db")
    try:
        who = this_process()
        code = {"workflow:mail": "f"}
        agent_id = store.commit(RegisterAgent("agent", who.host, who.boot_id, who.pid, who.started, 8, None, 10**9, code))
        return [one.uid for one in store.commit(Claim(agent_id, limit, code))]
    finally:
        store.close()


def test_a_declared_queue_is_shown_before_any_agent_has_run(app: Path, outlast: Call) -> None:
    outlast("start", "mail")
    found = shown(outlast)
    assert (found["depth"], found["concurrency"], found["rate"], found["per_partition"]) == (1, 10, "100/1m", 2)
    assert found["paused"] is False


def test_set_changes_what_it_names_and_reset_brings_back_what_code_says(app: Path, outlast: Call) -> None:
    outlast("start", "mail")
    assert outlast("queue", "pause", "emails").out == "emails: concurrency 10, rate 100/1m, per partition 2, paused\n"
    kept = outlast("queue", "set", "emails", "--rate", "none", "--concurrency", "3", "--hold", "unfinished")
    assert kept.out == "emails: concurrency 3, per partition 2, hold unfinished, paused\n"
    found = shown(outlast)
    assert (found["concurrency"], found["rate"], found["per_partition"], found["paused"]) == (3, None, 2, True)
    again = outlast("queue", "set", "emails", "--reset", "--json").json
    assert (again["concurrency"], again["rate"], again["per_partition"]) == (10, "100/1m", 2)
    assert outlast("queue", "resume", "emails").out.endswith("per partition 2\n")


def test_a_queue_that_was_set_is_one_to_start_in(app: Path, outlast: Call) -> None:
    outlast("start", "mail")
    refused = outlast("start", "mail", "--queue", "reports")
    assert (refused.code, refused.err.count("\n")) == (3, 1)
    assert "no queue 'reports'" in refused.err
    made = outlast("queue", "set", "reports", "--concurrency", "1")
    assert (made.code, made.out) == (0, "reports: concurrency 1\n")
    assert "no code declares it" in made.err
    assert outlast("start", "mail", "--queue", "reports").code == 0
    assert shown(outlast, "reports")["depth"] == 1


def test_pausing_twice_is_pausing_once(app: Path, outlast: Call) -> None:
    outlast("start", "mail")
    outlast("queue", "pause", "default")
    second = outlast("queue", "pause", "default")
    assert (second.code, second.out) == (0, "default: paused\n")
    assert "was so already" in second.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--rate", "-5/1m"), 2, "rate of queue 'emails' must be a count and a window"),
        (("--rate", "0/1m"), 2, "rate of queue 'emails' must be a count and a window"),
        (("--rate", "5"), 2, "'100/1m'"),
        (("--rate", "5/-1m"), 2, "must not be negative"),
        (("--rate", "5/0s"), 2, "more than 0 s"),
        (("--rate", "5/fortnight"), 2, "duration"),
        (("--concurrency", "0"), 2, "whole number of at least 1, not 0"),
        (("--concurrency", "-3"), 2, "whole number of at least 1, not -3"),
        (("--concurrency", "many"), 2, "whole number of at least 1, not 'many'"),
        (("--per-partition", "1.5"), 2, "whole number of at least 1, not '1.5'"),
        (("--hold", "forever"), 2, "one of 'running', 'unfinished'"),
        ((), 2, "Nothing to set"),
    ],
)
def test_limits_that_make_no_sense_change_nothing(app: Path, outlast: Call, arguments: tuple[str, ...], code: int, said: str) -> None:
    outlast("start", "mail")
    found = outlast("queue", "set", "emails", *arguments)
    assert (found.code, found.out, found.err.count("\n")) == (code, "", 1)
    assert said in found.err
    with closing(sqlite3.connect(app / "outlast.db")) as connection:
        assert connection.execute("select count(*) from outlast_queue").fetchone() == (0,)


@pytest.mark.parametrize("verb", [("pause",), ("resume",), ("set", "--reset")])
def test_an_unknown_queue_is_not_found_and_the_close_one_named(app: Path, outlast: Call, verb: tuple[str, ...]) -> None:
    outlast("start", "mail")
    found = outlast("queue", verb[0], "email", *verb[1:], "--json")
    assert found.code == 3
    assert found.error["type"] == "QueueNotFound"
    assert "emails" in found.error["hint"]


def test_a_name_that_is_none_is_refused(app: Path, outlast: Call) -> None:
    outlast("start", "mail")
    found = outlast("queue", "set", "two words", "--concurrency", "1")
    assert (found.code, found.err.count("\n")) == (2, 1)


def test_no_file_is_made_for_a_limit(app: Path, outlast: Call) -> None:
    assert outlast("queue", "set", "emails", "--concurrency", "1").code == 3
    assert not (app / "outlast.db").exists()


def why(outlast: Call, run: str) -> str:
    summary: str = outlast("why", run, "--json").json["summary"]
    return summary


def test_why_names_a_paused_queue(app: Path, outlast: Call) -> None:
    run = outlast("start", "mail").out.strip()
    outlast("queue", "pause", "emails")
    assert "the queue 'emails' is paused since 20" in why(outlast, run)
    assert "outlast queue resume emails" in outlast("why", run).out


def test_why_names_a_full_queue_with_its_number(app: Path, outlast: Call) -> None:
    outlast("start", "mail")
    outlast("queue", "set", "emails", "--concurrency", "2", "--per-partition", "none", "--rate", "none")
    runs = [outlast("start", "mail").out.strip() for _ in range(3)]
    holders = take(app)
    assert len(holders) == 2
    explained = outlast("why", runs[-1], "--json").json
    assert "the queue 'emails' is full: all 2 places are taken (2 running)" in explained["summary"]
    assert [line.split()[4].rstrip(",") for line in explained["details"]] == holders
    found = shown(outlast)
    assert (found["depth"], found["running"]) == (2, 2)
    outlast("queue", "set", "emails", "--concurrency", "1")
    assert "the queue 'emails' is full: its only place is taken (2 running)" in why(outlast, runs[-1])
    # Where whoever waits keeps its place, what it waits for is what holds up the others.
    assert not any(action.startswith("outlast why") for action in explained["actions"])
    outlast("queue", "set", "emails", "--hold", "unfinished")
    actions = outlast("why", runs[-1], "--json").json["actions"]
    assert actions[:2] == [f"outlast why {holder}" for holder in holders]


def test_why_names_a_partitions_limit_with_its_number(app: Path, outlast: Call) -> None:
    runs = [outlast("start", "mail", "--partition", "tenant-1").out.strip() for _ in range(3)]
    outlast("queue", "set", "emails", "--reset")
    assert len(take(app)) == 2
    assert "lets 2 of the partition 'tenant-1' go at once: 2 running" in why(outlast, runs[-1])


def test_why_names_a_rate_with_its_number_and_when_it_lets_go(app: Path, outlast: Call) -> None:
    outlast("start", "mail")
    outlast("queue", "set", "emails", "--rate", "1/1h", "--per-partition", "none")
    run = outlast("start", "mail").out.strip()
    assert len(take(app)) == 1
    said = why(outlast, run)
    assert "starts no more than 1/1h; the next may start in " in said
    assert said.endswith("in 1h.") or " in 5" in said


def test_broken_code_hides_no_queue_and_makes_no_error_of_what_was_done(app: Path, outlast: Call, process: Call) -> None:
    process("start", "mail")
    (app / "workflows" / "mails.py").write_text("import nothing_of_this_name")
    listed = outlast("queues", "--json")
    assert (listed.code, "nothing_of_this_name" in listed.err) == (0, True)
    assert [(one["name"], one["depth"]) for one in listed.json] == [("emails", 1)]
    done = outlast("queue", "set", "letters", "--rate", "5/1s")
    assert (done.code, done.out) == (0, "letters: rate 5/1s\n")
    assert outlast("queue", "resume", "default").code == 0
