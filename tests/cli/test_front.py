"""The way in: help, version, usage errors, global options, completion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from outlast.cli import catalogue
from outlast.cli.main import call

from .conftest import Call, environment


def test_without_arguments_the_first_page_is_shown(outlast: Call) -> None:
    assert outlast().out == outlast("--help").out
    assert outlast("--help").code == 0
    assert outlast("help", "schedule", "next").out == outlast("schedule", "next", "--help").out


def test_the_first_page_names_every_command(outlast: Call) -> None:
    page = outlast("--help").out
    for name in catalogue.COMMANDS:
        assert f"  {name} " in page


@pytest.mark.parametrize("name", catalogue.COMMANDS)
def test_every_command_has_a_help_page_with_an_example(outlast: Call, name: str) -> None:
    page = outlast(name, "--help")
    assert page.code == 0
    assert page.out.startswith(f"Usage: outlast {name}")
    assert "Example" in page.out
    assert f"outlast {name}" in page.out.partition("Example")[2]
    assert "9223372036854775807" not in page.out


@pytest.mark.parametrize("name", catalogue.COMMANDS)
def test_every_command_exists_where_the_catalogue_says(name: str) -> None:
    from outlast.cli.group import program

    group = program()
    import click

    assert isinstance(group, click.Group)
    found = group.get_command(click.Context(group), name)
    assert found is not None
    assert found.name == name


def test_the_first_page_imports_neither_click_nor_the_codec() -> None:
    code = """
import sys
from outlast.cli.main import call
call(["--help"])
print(sorted({"click", "rich", "msgspec", "asyncio", "apscheduler", "sqlite_utils"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_printed(outlast: Call) -> None:
    from outlast import __version__

    assert outlast("--version").out == f"outlast {__version__}\n"


def test_an_unknown_command_is_answered_with_the_one_that_was_meant(outlast: Call) -> None:
    done = outlast("cancle")
    assert done.code == 2
    assert "Did you mean 'cancel'?" in done.err
    assert done.err.count("\n") == 1


def test_an_unknown_option_is_one_sentence_and_exit_2(outlast: Call) -> None:
    done = outlast("runs", "--nonsense")
    assert done.code == 2
    assert done.err.count("\n") == 1


def test_a_usage_error_is_a_json_object_where_json_is_asked_for(outlast: Call) -> None:
    done = outlast("--json", "runs", "--limit", "many")
    assert done.code == 2
    assert done.out == ""
    assert done.error["type"] == "UsageError"
    assert outlast("runs", "--limit", "many", "--json").error == done.error


def test_list_is_another_name_of_runs(outlast: Call) -> None:
    outlast("migrate")
    assert outlast("list", "--json").json == []


def test_global_options_may_stand_before_or_after_the_command(outlast: Call, project: Path) -> None:
    other = str(project / "other.db")
    assert outlast("--db", other, "migrate").code == 0
    assert outlast("runs", "--db", other, "--json").json == []
    assert outlast("--db", other, "--json", "runs").json == []
    assert outlast("runs").code == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--db", "", "runs"], 2),
        (["--db", ":memory:", "runs"], 2),
        (["--db", "postgresql://host/x", "runs"], 2),
        (["--db", "postgresql://host/x", "start", "waits"], 2),
        (["--db", "no/folder/x.db", "start", "waits"], 3),
        (["--app", "", "workflows"], 2),
        (["--app", "nowhere", "workflows"], 3),
        (["--app", "no/where.py", "workflows"], 3),
        (["workflow"], 2),
        (["runs", "surplus"], 2),
        (["signal", "x"], 2),
    ],
)
def test_a_global_option_or_a_command_that_makes_no_sense_is_one_sentence(outlast: Call, arguments: list[str], code: int) -> None:
    done = outlast(*arguments)
    assert done.code == code, done.err
    assert done.err.count("\n") == 1
    assert len(done.err) < 250
    assert done.out == ""


def test_a_setting_that_is_misspelt_is_exit_2(outlast: Call, project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.outlast]\nleese = 3\n")
    done = outlast("runs", "--json")
    assert done.code == 2
    assert "Did you mean 'lease'?" in done.error["hint"]


def test_an_empty_list_is_an_empty_array_and_no_line(outlast: Call) -> None:
    outlast("migrate")
    assert outlast("runs", "--json").json == []
    assert outlast("runs", "--jsonl").out == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(outlast: Call, shell: str) -> None:
    done = outlast("completion", shell)
    assert done.code == 0
    assert "_OUTLAST_COMPLETE" in done.out


def test_a_shell_completes_commands(process: Call) -> None:
    done = process(program=("-m", "outlast"), COMP_WORDS="outlast wor", COMP_CWORD="1", _OUTLAST_COMPLETE="bash_complete")
    assert "plain,workflows" in done.out


def test_a_shell_completes_the_verbs_of_a_noun(process: Call) -> None:
    done = process(program=("-m", "outlast"), COMP_WORDS="outlast schedule pa", COMP_CWORD="2", _OUTLAST_COMPLETE="bash_complete")
    assert (done.out, done.err) == ("plain,pause\n", "")


def test_a_bug_is_one_sentence_and_says_how_to_see_more(outlast: Call, monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    from outlast.cli.context import Context

    def broken(self: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(Context, "store", broken)
    done = outlast("runs")
    assert done.code == 1
    assert "OUTLAST_DEBUG=1" in done.err
    assert "Traceback" not in done.err
    monkeypatch.setenv("OUTLAST_DEBUG", "1")
    assert "Traceback" in outlast("runs").err


def test_a_signal_in_a_command_gives_its_exit_code(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from outlast.cli.context import Context
    from outlast.cli.main import Terminated

    def interrupted(self: object) -> None:
        raise KeyboardInterrupt

    def terminated(self: object) -> None:
        raise Terminated

    monkeypatch.setattr(Context, "store", interrupted)
    assert call(["runs"]) == 130
    monkeypatch.setattr(Context, "store", terminated)
    assert call(["runs"]) == 143


def offers(outlast: Call, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[str]:
    """What bash is given for the last word."""
    monkeypatch.setenv("_OUTLAST_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["outlast", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    found = outlast()
    monkeypatch.delenv("_OUTLAST_COMPLETE")
    assert found.err == ""
    return [line.partition(",")[2] for line in found.out.splitlines() if line]


def test_a_shell_is_offered_names(outlast: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = outlast("start", "waits").out.strip()
    assert outlast("schedule", "create", "often", "add", "--every", "1h", "a=1").code == 0
    assert outlast("queue", "set", "emails", "--concurrency", "2").code == 0
    assert offers(outlast, monkeypatch, "start", "un") == ["undone"]
    assert offers(outlast, monkeypatch, "runs", "--status", "pa") == ["paused"]
    assert offers(outlast, monkeypatch, "cancel", "--all", "--workflow", "wa") == ["waits"]
    assert offers(outlast, monkeypatch, "show", uid[:3]) == [uid]
    assert offers(outlast, monkeypatch, "schedule", "pause", "o") == ["often"]
    assert offers(outlast, monkeypatch, "queue", "pause", "e") == ["emails"]
    assert offers(outlast, monkeypatch, "start", "waits", "--queue", "d") == ["default"]
    assert offers(outlast, monkeypatch, "signal", uid, "x") == []
    # No error amid the line that is being written: `offers` wants stderr empty.
    assert offers(outlast, monkeypatch, "help", "st") == ["start", "stream", "stats"]


def test_a_completion_that_finds_nothing_says_and_makes_nothing(outlast: Call, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "workflows" / "broken.py").write_text("print('loud')\nraise SystemExit(3)\n")
    assert offers(outlast, monkeypatch, "start", "w") == []
    assert offers(outlast, monkeypatch, "show", "4") == []
    assert not (project / "outlast.db").exists()


def test_an_app_named_after_the_command_adds_to_those_before_it(outlast: Call, project: Path) -> None:
    for name in ("first", "second"):
        (project / f"{name}.py").write_text(f"from outlast import workflow\n@workflow\ndef {name}() -> None: ...\n")
    found = outlast("--app", "first", "workflow", "--app", "second", "list", "--app", "workflows", "--json").json
    assert {"first", "second", "add"} <= {one["name"] for one in found}
