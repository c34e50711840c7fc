"""User programs under mypy and pyright, both strict: what must pass does, and what must not does not."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"
ENGINE = Path(__file__).parents[2] / "engine"


def mypy(program: Path, folder: Path) -> dict[int, str]:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    options = [
        "--strict",
        "--config-file=",
        "--no-error-summary",
        "--follow-imports=silent",
        f"--cache-dir={folder}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, str(program)],
        capture_output=True,
        text=True,
        env={**os.environ, "MYPYPATH": str(ENGINE)},
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found = re.findall(rf"{program.name}:(\d+): error: (.*)", done.stdout)
    return {int(line): text for line, text in found}


def pyright(program: Path, folder: Path) -> dict[int, str]:
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    shutil.copy(program, folder)
    settings = {
        "include": [program.name],
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
    return {said["range"]["start"]["line"] + 1: said["message"] for said in report["generalDiagnostics"] if said["severity"] == "error"}


@pytest.mark.parametrize("program", ["accepted.py", "accepted_engine.py"])
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_what_users_write_is_accepted(checker: type, program: str, tmp_path: Path) -> None:
    assert checker(PROGRAMS / program, tmp_path) == {}


@pytest.mark.parametrize("name", ["refused.py", "refused_engine.py"])
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_what_users_must_not_write_is_refused_where_it_stands(checker: type, name: str, tmp_path: Path) -> None:
    program = PROGRAMS / name
    marked = {number for number, line in enumerate(program.read_text().splitlines(), 1) if "# refused" in line}
    found: dict[int, str] = checker(program, tmp_path)
    assert sorted(marked - set(found)) == []
    assert {line: text for line, text in found.items() if line not in marked} == {}
