"""User programs under mypy and pyright, both strict: what must pass does, and what must not does not."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
ALL = sorted(PROGRAMS.glob("*.py"))
ENGINE = Path(__file__).parents[2] / "engine"


Findings = dict[str, dict[int, str]]
"""By program, the errors by line."""


def mypy(folder: Path) -> Findings:
    options = [
        "--strict",
        "--config-file=",
        "--no-error-summary",
        "--follow-imports=silent",
        f"--cache-dir={folder}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, *map(str, ALL)],
        capture_output=True,
        text=True,
        env={**os.environ, "MYPYPATH": str(ENGINE)},
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: Findings = {program.name: {} for program in ALL}
    for name, line, text in re.findall(r"(\w+\.py):(\d+): error: (.*)", done.stdout):
        found[name][int(line)] = text
    return found


def pyright(folder: Path) -> Findings:
    for program in ALL:
        shutil.copy(program, folder)
    settings = {
        "include": [program.name for program in ALL],
        "extraPaths": [str(ENGINE)],
        "typeCheckingMode": "strict",
        "reportUnusedFunction": False,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [
        sys.executable,
        "-m",
        "pyright",
        "--outputjson",
        "-p",
        str(folder),
        "--pythonpath",
        sys.executable,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        pytest.skip("pyright cannot run here: it fetches its own Node where there is none")
    found: Findings = {program.name: {} for program in ALL}
    for said in report["generalDiagnostics"]:
        if said["severity"] == "error":
            found[Path(said["file"]).name][said["range"]["start"]["line"] + 1] = said["message"]
    return found


@cache
def findings(checker: Callable[[Path], Findings]) -> Findings:
    """What a checker says of all programs: in one process, most of whose time goes by until it knows the engine."""
    if importlib.util.find_spec(checker.__name__) is None:
        pytest.skip(f"{checker.__name__} is not installed")
    with tempfile.TemporaryDirectory(prefix="outlast-typing-") as folder:
        return checker(Path(folder).resolve())


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_what_users_write_is_accepted(checker: Callable[[Path], Findings]) -> None:
    assert {name: lines for name, lines in findings(checker).items() if lines and name.startswith("accepted")} == {}


@pytest.mark.parametrize("checker", [mypy, pyright])
def test_what_users_must_not_write_is_refused_where_it_stands(checker: Callable[[Path], Findings]) -> None:
    for program in PROGRAMS.glob("refused*.py"):
        marked = {number for number, line in enumerate(program.read_text().splitlines(), 1) if "# refused" in line}
        found = findings(checker)[program.name]
        assert sorted(marked - set(found)) == []
        assert {line: text for line, text in found.items() if line not in marked} == {}
