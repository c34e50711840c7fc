"""What a terminal gets: tables that fit into it and say what they left out, and no control character of a file's name."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path

import pytest

from outlast.cli import output, roles
from outlast.cli.render import fitted, print_table
from outlast.cli.wrapping import broken

from .conftest import Call


def test_a_table_that_fits_keeps_every_column_as_wide_as_its_content() -> None:
    assert fitted([18, 8, 11, 3], 80, flexible=3) == {0: 18, 1: 8, 2: 11, 3: 3}


def test_the_flexible_column_gives_way_alone_while_that_is_enough() -> None:
    assert fitted([18, 8, 11, 400], 80, flexible=3) == {0: 18, 1: 8, 2: 11, 3: 37}


def test_the_widest_column_gives_way_after_the_flexible_one() -> None:
    assert fitted([18, 90, 20, 50], 80, flexible=3) == {0: 18, 1: 24, 2: 20, 3: 12}


def test_columns_without_room_are_left_out_from_the_right_and_the_first_stays_whole() -> None:
    assert fitted([18, 8, 13, 3, 5], 41) == {0: 18, 1: 8}
    assert fitted([18, 8], 10) == {0: 18}


@pytest.mark.parametrize("room", range(1, 120))
def test_no_table_of_several_columns_is_wider_than_its_room(room: int) -> None:
    widths = fitted([18, 8, 13, 3, 5, 300, 400], room, flexible=6)
    assert list(widths) == list(range(len(widths)))
    assert len(widths) == 1 or sum(widths.values()) + 2 * (len(widths) - 1) <= room


def test_a_long_error_costs_no_other_column_of_runs(outlast: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    outlast("run", "fails", f"text={'y' * 400}")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    done = outlast("runs")
    assert all(head in done.out for head in ("AGE", "TOOK", "KEY", "ERROR"))
    assert "…" in done.out
    assert done.err == ""


def test_a_narrow_terminal_shows_whole_values_and_names_the_columns_left_out(
    outlast: Call, started: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "42")
    done = outlast("runs")
    assert started in done.out
    assert "pending" in done.out
    assert "TOOK" not in done.out
    assert "No room for AGE: a wider terminal or --json" in done.err


def test_a_long_line_is_broken_between_words_and_goes_on_below_its_beginning(outlast: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "the bank said no and a person has to ask it again"
    outlast("run", "fails", f"text={words}")
    [uid] = [run["id"] for run in outlast("runs", "--json").json]
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    for command in ("show", "why"):
        lines = re.sub(r"\x1b\[[\d;]*m", "", outlast(command, uid).out).splitlines()
        assert all(len(line) <= 40 for line in lines)
        assert words in " ".join(line.strip() for line in lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    lines = outlast("result", uid).err.splitlines()
    assert len(lines) > 2
    assert words in " ".join(lines)


def test_a_break_leaves_words_and_commands_whole_and_the_lines_of_a_tree_below_each_other() -> None:
    def drawn(text: str, width: int) -> list[str]:
        return [lead + text[begin:end] for lead, begin, end in broken(text, width)]

    assert drawn("  ├─ ✗ charge #3  no answer from the bank", 34) == ["  ├─ ✗ charge #3  no answer from", "  │    the bank"]
    assert drawn("halted; `outlast resume 4x2k --done JSON` ends it", 36) == ["halted;", "`outlast resume 4x2k --done JSON`", "ends it"]
    assert drawn("  queue a · due 09:34:07 (in 47h) · key b", 30) == ["  queue a ·", "    due 09:34:07 (in 47h) ·", "    key b"]
    assert drawn("one fact of several words that is too long · b", 30) == ["one fact of several words that", "is too long · b"]
    assert drawn("a" * 50 + " b", 30) == ["a" * 50, "b"]
    assert drawn("", 30) == [""]
    assert drawn("多 " * 20, 40) == ["多 " * 12 + "多", ("多 " * 7).strip()]


def test_the_name_of_a_file_reaches_the_terminal_without_control_characters(outlast: Call, project: Path) -> None:
    made = outlast("--db", "a\x1b[31m.db", "start", "waits")
    assert made.code == 0
    assert "a\\x1b[31m.db" in made.err
    assert "\x1b" not in outlast("init", "b\x1b[32m").out


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_what_python_alone_takes_for_json_is_refused_wherever_json_is_asked_for(outlast: Call, started: str, value: str) -> None:
    for arguments in (
        ["start", "waits", "--input", f'{{"name": [{value}]}}'],
        ["start", "add", f"a:={value}"],
        ["signal", started, "go", "--", value],
    ):
        done = outlast(*arguments)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "JSON" in done.err


@pytest.mark.parametrize(("variable", "is_styled"), [("NO_COLOR", False), ("FORCE_COLOR", True)])
def test_no_color_leaves_no_style_in_a_terminals_table(monkeypatch: pytest.MonkeyPatch, variable: str, is_styled: bool) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(variable, "1")
    print_table(["NAME"], [[("a", "bold")]], empty="none")
    assert ("\x1b[" in sys.stdout.getvalue()) is is_styled  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_json_whatever_stdout_can_encode(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    stdout = io.TextIOWrapper(io.BytesIO(), encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", stdout)
    value = {"ключ": "é 🎉"}
    output.document(value)
    stdout.seek(0)
    assert json.loads(stdout.read()) == value


@pytest.mark.parametrize(
    ("variable", "line"), [("FORCE_COLOR", r"\x1b\[2m\d\d:\d\d:\d\d\x1b\[0m an event\n"), ("NO_COLOR", r"[\d:]{8} an event\n")]
)
def test_what_a_role_says_has_its_time_dimmed_where_there_is_colour(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, variable: str, line: str
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(variable, "1")
    roles.say("an event")
    assert re.fullmatch(line, capsys.readouterr().err)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    roles.say("a word and another " * 3)
    first, second = capsys.readouterr().err.splitlines()
    assert "\n".join([first, second]).endswith("a word and another a word and\n         another a word and another")
