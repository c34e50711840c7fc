"""A file that somebody has edited by hand, or that points nowhere: each command says so in one sentence, and shows what is sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast import sqlite3

from .conftest import Call


def edit(project: Path, *statements: str) -> None:
    connection = sqlite3.connect(project / "outlast.db", isolation_level=None)
    connection.execute("pragma ignore_check_constraints = on")
    for statement in statements:
        connection.execute(statement)
    connection.close()


UNGUARDED = "drop trigger outlast_task_legal_move"
OWN_PARENT = [UNGUARDED, "update outlast_task set parent_id = id"]
AWAITS_JUNK = [UNGUARDED, "update outlast_task set status = 'waiting', awaits = '[', due_at = null"]


@pytest.mark.parametrize(
    ("damage", "command", "code", "said"),
    [
        (["update outlast_meta set value = 'abc'"], "runs", 7, "the version of its schema is not a number"),
        ([*AWAITS_JUNK, "drop table outlast_signal"], "why", 7, "no such table: outlast_signal. `outlast doctor`"),
        (["delete from outlast_input"], "export", 1, "The run's input is not in the file any more"),
        (["update outlast_input set options = 'no policy'"], "check", 1, "Its input or its options cannot be read"),
        (AWAITS_JUNK, "show", 0, "waits"),
        (["update outlast_task set created_at = -9000000000000000000"], "export", 0, "0001-01-01T00:00:00"),
        (OWN_PARENT, "show", 0, "waits"),
        (OWN_PARENT, "export", 0, "waits"),
    ],
)
def test_a_file_that_was_edited_is_one_sentence_and_never_a_bug(
    outlast: Call, project: Path, started: str, damage: list[str], command: str, code: int, said: str
) -> None:
    edit(project, *damage)
    done = outlast(command, *([started] if command in ("why", "show", "export") else []))
    assert done.code == code
    assert said in done.out + done.err
    assert "bug" not in done.err


@pytest.mark.parametrize("damage", ["rule = 'nothing'", "rule = '{}'", "next_tick = 9000000000000000000"])
def test_a_schedule_that_cannot_be_read_hides_no_other(outlast: Call, project: Path, started: str, damage: str) -> None:
    for name in ("broken", "sound"):
        assert outlast("schedule", "create", name, "waits", "--every", "1h").code == 0
    edit(project, f"update outlast_schedule set {damage} where name = 'broken'")
    broken, sound = outlast("schedules", "--json").json
    assert (broken["status"], broken["next"], sound["status"]) == ("broken", None, "active")
    assert broken["error"] in broken["why"]
    assert broken["error"] in outlast("why", "broken").out
    if damage.startswith("rule"):
        checks = outlast("doctor", "--json").json["checks"]
        assert broken["error"] in next(one["detail"] for one in checks if one["name"] == "broken schedules")
        assert broken["error"] in outlast("schedule", "update", "broken", "--overlap", "allow").err
    assert outlast("schedule", "delete", "broken").code == 0


@pytest.mark.parametrize("command", [["runs"], ["start", "waits"], ["migrate"]])
def test_a_link_to_a_file_that_is_not_there_is_named(outlast: Call, project: Path, command: list[str]) -> None:
    (project / "outlast.db").symlink_to("elsewhere.db")
    done = outlast(*command)
    assert done.code == 3
    assert "It is a link to elsewhere.db, which is not there." in done.err
