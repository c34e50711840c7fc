"""What a hostile caller gives: texts that are no text, numbers beyond any, code that misbehaves when it is imported,
streams that are closed.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Call, environment

SURROGATE = "\udcff"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["runs", "--workflow", SURROGATE], 2),
        (["schedule", "show", SURROGATE], 2),
        (["schedule", "ticks", SURROGATE], 2),
        (["prune", "--workflow", SURROGATE], 2),
        (["cancel", "--all", "--workflow", SURROGATE, "--yes"], 2),
        (["why", SURROGATE], 2),
        (["show", SURROGATE], 3),
        (["runs", "--limit", "99999999999999999999"], 2),
        (["schedule", "ticks", "none", "--limit", "99999999999999999999"], 2),
    ],
)
def test_what_no_row_can_hold_is_one_sentence(outlast: Call, started: str, arguments: list[str], code: int) -> None:
    done = outlast(*arguments)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert "bug" not in done.err


def test_a_stream_is_asked_for_by_a_text_and_a_number_that_can_be(outlast: Call, started: str) -> None:
    for arguments in ([SURROGATE], ["log", "--after", "99999999999999999999"]):
        done = outlast("stream", started, *arguments)
        assert done.code == 2, done.err
        assert "bug" not in done.err


def test_what_a_module_prints_when_it_is_imported_stays_out_of_the_answer(process: Call, project: Path) -> None:
    (project / "workflows" / "loud.py").write_text("print('imported')\n")
    done = process("start", "waits", "--json")
    assert done.json["workflow"] == "waits"
    assert "imported" in done.err


@pytest.mark.parametrize(
    "code",
    [
        "class Odd(BaseException): pass\nraise Odd('at import')\n",
        "class Mute(Exception):\n    def __str__(self): raise ValueError\nraise Mute\n",
    ],
)
def test_whatever_a_module_raises_it_is_named_with_its_line(process: Call, project: Path, code: str) -> None:
    (project / "workflows" / "odd.py").write_text(code)
    done = process("workflows")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "odd.py, line" in done.err


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_none_that_a_file_may_take(process: Call, project: Path, closed: str) -> None:
    assert process("start", "waits").code == 0
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m outlast runs {closed}"],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_what_code_logs_reaches_the_terminal_without_control_characters(process: Call, project: Path) -> None:
    (project / "workflows" / "logs.py").write_text(
        "import logging\nfrom outlast import workflow\n@workflow\ndef says(text: str) -> None:\n    logging.warning(text)\n"
    )
    done = process("run", "says", "text=a\x1b]0;title\x07b")
    assert done.code == 0, done.err
    assert "a\\x1b]0;title\\x07b" in done.err


def test_a_backup_of_a_damaged_file_names_that_file(outlast: Call, project: Path, started: str) -> None:
    content = bytearray((project / "outlast.db").read_bytes())
    content[4096 * 8 : 4096 * 12] = b"\xa5" * (4096 * 4)
    (project / "broken.db").write_bytes(content)
    done = outlast("--db", "broken.db", "backup", "copy.db")
    assert done.code == 7
    assert "broken.db is damaged" in done.err
    assert not (project / "copy.db").exists()


def test_a_schedule_that_no_scheduler_has_taken_up_has_no_ticks_yet(outlast: Call, project: Path) -> None:
    (project / "workflows" / "nightly.py").write_text(
        "from outlast import workflow\n@workflow(schedule='0 2 * * *')\ndef nightly() -> None: ...\n"
    )
    outlast("migrate")
    done = outlast("schedule", "ticks", "nightly", "--json")
    assert (done.code, done.json) == (0, [])


def test_the_sentence_about_a_halted_run_ends_before_its_advice(outlast: Call) -> None:
    assert "for a person. `outlast why" in outlast("run", "halts").err


@pytest.mark.parametrize("count", ["9" * 20, "9" * 5000])
def test_a_rate_beyond_any_is_refused(outlast: Call, started: str, count: str) -> None:
    done = outlast("queue", "set", "emails", "--rate", f"{count}/1m")
    assert (done.code, done.err.count("\n")) == (2, 1)


def test_a_file_that_hides_the_standard_library_is_named(process: Call, project: Path) -> None:
    (project / "queue.py").write_text("X = 1\n")
    done = process("run", "add", "a=1")
    assert done.code == 2
    assert f"{project / 'queue.py'} hides a module of the standard library: rename it." in done.err


def test_a_current_folder_that_was_removed_is_named(outlast: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "gone").mkdir()
    monkeypatch.chdir(project / "gone")
    (project / "gone").rmdir()
    done = outlast("runs")
    assert (done.code, done.err) == (3, "Error: The current folder is not there any more. Go to one that is.\n")
    monkeypatch.chdir(project)
