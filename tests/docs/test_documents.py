"""Every command and every block of Python in the README and in `docs/` runs, in the order of its page.

A page is one session in one folder. A `python` block that the page names a file for ("`workflows/trip.py`") is
written there; other ones are executed. The commands of a `console` block are run by bash; what the page shows of
their output must come, in this order, once ids, times and pids are made alike.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from outlast.cli.catalogue import COMMANDS
from outlast.cli.main import call

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -q "
LEFT_TO_THE_READER = {
    "cron.md": "from apscheduler.triggers.interval import IntervalTrigger\nsome_apscheduler_trigger = IntervalTrigger(hours=1)\n"
}
NEEDED = {"web.md": ("fastapi", "httpx")}
LOOKING = ("agents", "check", "doctor", "query", "runs", "show", "stats", "why")
NAMED_FILE = re.compile(r"`([\w./-]+\.py)`")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the paragraph above it."""

    page: Path
    line: int
    language: str
    text: str
    above: str

    @property
    def file(self) -> str | None:
        """The file that the block is, where the paragraph above names one."""
        found = NAMED_FILE.findall(self.above)
        return found[-1] if found else None

    def commands(self) -> list[tuple[str, list[str]]]:
        """The commands of a `console` block, each with the lines that it prints."""
        found: list[tuple[str, list[str]]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found:
                found[-1][1].append(line)
        return found


def blocks(page: Path) -> list[Block]:
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    begin: int | None = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if begin is None:
            begin = number
            continue
        above: list[str] = []
        for before in reversed(lines[:begin]):
            if before.strip():
                above.append(before)
            elif above:
                break
        text = "\n".join(lines[begin + 1 : number]) + "\n"
        found.append(Block(page, begin + 1, lines[begin][3:].strip(), text, "\n".join(reversed(above))))
        begin = None
    assert begin is None, f"{page.name}: the block of line {begin} has no end"
    return found


ALL = [block for page in PAGES for block in blocks(page)]


def named(block: Block) -> str:
    return f"{block.page.name}:{block.line}"


@pytest.mark.parametrize("block", ALL, ids=named)
def test_a_block_has_a_language_that_these_tests_run(block: Block) -> None:
    assert block.language in ("python", "console", "sh", "toml", "ini", "dockerfile", "")


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "python"], ids=named)
def test_a_block_of_python_compiles(block: Block) -> None:
    compile(block.text, named(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_a_session_that_goes_as_it_says(page: Path, tmp_path: Path) -> None:
    for module in NEEDED.get(page.name, ()):
        pytest.importorskip(module)
    with Session(tmp_path) as session:
        for block in blocks(page):
            if block.language == "python" and block.file:
                session.write(block)
            elif block.language == "python":
                session.execute(block)
            elif block.language == "console":
                for command, shown in block.commands():
                    session.run(command, shown, where=named(block))


def test_the_two_set_up_commands_are_the_only_ones_outside_of_sessions() -> None:
    set_ups = [block.text.strip() for block in ALL if block.language == "sh"]

    assert set_ups == [f"{SET_UP}. && .venv/bin/outlast demo", f"{SET_UP}-e '.[test]' && .venv/bin/pytest"]


def test_continuous_integration_runs_the_tests_as_the_readme_says() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    assert f"{SET_UP}-e '.[test]' && .venv/bin/pytest 2>&1" in script.splitlines()[script_line(script)]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def script_line(script: str) -> int:
    return next(number for number, line in enumerate(script.splitlines()) if line.startswith("python3 -m venv"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_readme_names_every_command_that_there_is_and_no_other() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("## The command line at a glance") : text.index("`outlast COMMAND --help`")]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]

    listed = {name for row in rows for name in re.findall(r"`(\w+)`", row)}

    assert listed - set(COMMANDS) == set()
    assert set(COMMANDS) - listed <= {"completion", "queue"}


def test_the_architecture_speaks_of_modules_and_tables_that_are_there() -> None:
    text = (ROOT / "engine" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    package = ROOT / "engine" / "outlast"
    schema = "".join(file.read_text() for file in (package / "store" / "schema").glob("*.sql"))

    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert (package / name).exists(), name
    for name in re.findall(r"`(outlast_\w+)`", text):
        assert f"create table {name} (" in schema, name
    layers = text[text.index("| layer |") : text.index("`caller.py`")]
    named = re.findall(r"`(\w+/?)`(?=[,; ])", "".join(line.split("|")[2] for line in layers.splitlines() if line.startswith("|")))
    there = [one.stem for one in package.glob("[a-z]*.py")] + [f"{one.parent.name}/" for one in package.glob("*/__init__.py")]
    assert sorted(named) == sorted(there)


class Session:
    """A folder, and the commands that were run in it. `outlast up` runs until its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        binaries = folder / ".bin"
        binaries.mkdir()
        for name, words in (("outlast", "-m outlast"), ("python", "")):
            script = binaries / name
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
            script.chmod(0o755)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("OUTLAST_", "BANK_"))}
        self.environment |= {
            "PATH": f"{binaries}{os.pathsep}{self.environment['PATH']}",
            "NO_COLOR": "1",
            "COLUMNS": "400",
            # The plugin comes with an install; one that is older than the plugin does not know it yet.
            "PYTEST_ADDOPTS": "-p outlast_pytest",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        self._up: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._up is not None:
            self._up.terminate()
            assert self._up.wait(40) == 128 + signal.SIGTERM

    def write(self, block: Block) -> None:
        assert block.file is not None
        file = self.folder / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")

    def execute(self, block: Block) -> None:
        """Run a block as a script in the folder."""
        script = self.folder / "block.py"
        script.write_text(LEFT_TO_THE_READER.get(named(block).split(":")[0], "") + block.text)
        done = subprocess.run(
            [sys.executable, "-W", "error", str(script)],
            cwd=self.folder,
            env={**self.environment, "PYTHONPATH": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{named(block)}\n{done.stdout}{done.stderr}"

    def run(self, command: str, shown: list[str], *, where: str) -> None:
        if command.startswith("outlast up"):
            self._bring_up(command, shown)
            return
        deadline = time.monotonic() + 20
        while True:
            said, code = self._call(command)
            problem = unlike(said, code, shown)
            # A page shows what is to be seen once things have come to rest; looking again does no harm.
            if not problem or command.split()[1] not in LOOKING or time.monotonic() > deadline:
                break
            time.sleep(0.4)
        assert not problem, f"{where}: {command}\n{problem}\n{said}"

    def _call(self, command: str) -> tuple[str, int]:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return done.stdout, done.returncode

    def _bring_up(self, command: str, shown: list[str]) -> None:
        log = self.folder / "up.log"
        with log.open("wb") as file:
            self._up = subprocess.Popen(shlex.split(command), cwd=self.folder, env=self.environment, stdout=file, stderr=file)
        deadline = time.monotonic() + 30
        while problem := unlike(log.read_text(), 0, shown):
            assert time.monotonic() < deadline, problem
            assert self._up.poll() is None, log.read_text()
            time.sleep(0.05)


def unlike(said: str, code: int, shown: list[str]) -> str:
    """What is not as the page shows it; empty where all is."""
    if (code != 0) != any(line.startswith("Error: ") for line in shown):
        return f"The exit code is {code}."
    actual = (alike(line) for line in said.splitlines())
    missing = [line for line in shown if line.strip() and alike(line) not in actual]
    return f"Not said, or not in this order: {missing}" if missing else ""


def alike(line: str) -> str:
    """The line with what differs from run to run made the same."""
    for pattern, word in (
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "INSTANT"),
        (r"\d\d:\d\d:\d\d", "TIME"),
        (r"\b0[0-9a-z]{17}\b", "ID"),
        (r"(\b\d+(\.\d+)?(ms|s|m|h|d)\b ?)+", "LENGTH "),
        (r"\bpid \d+", "pid"),
        (r"claimed \d+ times", "claimed"),
        (r"\s+", " "),
    ):
        line = re.sub(pattern, word, line)
    return line.strip()


def examples() -> Iterator[tuple[str, str]]:
    """Each example of each command's help."""
    for name in COMMANDS:
        with redirect_stdout(io.StringIO()) as said:
            assert call([name, "--help"]) == 0
        _, _, after = said.getvalue().partition("Example")
        for line in after.splitlines():
            if line.startswith("  outlast "):
                yield name, line.strip()


def test_every_command_has_an_example_in_its_help_that_parses(tmp_path: Path) -> None:
    """What an example names may not be there; that it is no usage must not be the reason."""
    from click import UsageError

    from outlast.cli.context import Context
    from outlast.cli.group import program

    found = list(examples())
    assert {name for name, _ in found} == set(COMMANDS)
    for _, example in found:
        for command in re.split(r"\s*(?:&&|\|)\s*", example):
            words = shlex.split(re.sub(r"\$\(.*?\)", "X", command), comments=True)
            if words[0] != "outlast":
                continue
            words = words[1 : words.index(">")] if ">" in words else words[1:]
            try:
                parse(words, Context(), program())
            except UsageError as error:
                pytest.fail(f"{command}: {error.format_message()}")


def test_what_a_service_manager_is_told_to_run_is_a_command(tmp_path: Path) -> None:
    from outlast.cli.context import Context
    from outlast.cli.group import program

    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    lines = re.findall(r"^ExecStart=\S*/(outlast .*)$", text, re.MULTILINE)
    lines += [" ".join(json.loads(found)) for found in re.findall(r"CMD (\[.*\])$", text, re.MULTILINE)]
    lines += re.findall(r"^\| `(outlast [^`]*)`", text, re.MULTILINE)
    assert len(lines) == 9
    for line in lines:
        parse(shlex.split(line)[1:], Context(), program())


def parse(words: list[str], context: object, group: object) -> None:
    """Let click read the words, and do nothing."""
    import click

    assert isinstance(group, click.Group)
    with group.make_context("outlast", list(words), obj=context) as outer:
        name, command, rest = group.resolve_command(outer, [*outer._protected_args, *outer.args])
        assert command is not None
        with command.make_context(name, rest, parent=outer, obj=context) as inner:
            if isinstance(command, click.Group):
                command.resolve_command(inner, [*inner._protected_args, *inner.args])
