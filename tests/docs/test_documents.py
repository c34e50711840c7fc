"""Every command and every piece of Python in the README and the guide is run, or compared with what CI runs."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from outlast import registry

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def test_the_readmes_two_commands_set_up_the_demo_and_the_tests_and_ci_runs_the_latter() -> None:
    demo, tests = (block.strip() for block in blocks(ROOT / "README.md", "sh"))

    assert demo.endswith("&& .venv/bin/outlast demo")
    assert tests.endswith("&& .venv/bin/pytest")
    assert tests in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_the_python_of_the_documents_runs(document: Path, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(document, "python")):
        name = f"block_{document.stem}_{number}"
        file = tmp_path / f"{name}.py"
        file.write_text(block)
        with registry.isolated():
            code = compile(block, str(file), "exec")
            if document.name != "cron.md":  # Its lines are variants of one another, with names left open.
                exec(code, {"__name__": name})


def test_the_readmes_commands_run_as_they_are_written(tmp_path: Path) -> None:
    commands = [
        line.removeprefix("$ ")
        for block in blocks(ROOT / "README.md", "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OUTLAST_")}
    running: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            words = shlex.split(command)
            assert words[0] == "outlast"
            if "audit" in words:
                words += ["--app", str(ROOT / "workflows" / "audit.py")]
            process = subprocess.Popen(
                [sys.executable, "-m", "outlast", *words[1:]],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            if words[1] == "up":
                running.append(process)
                _wait_for_agents(tmp_path, environment)
                continue
            out, err = process.communicate(timeout=60)
            assert process.returncode == 0, (command, out, err)
    finally:
        for process in running:
            process.terminate()
            process.communicate(timeout=40)


def _wait_for_agents(folder: Path, environment: dict[str, str]) -> None:
    deadline = time.monotonic() + 30
    while True:
        found = subprocess.run(
            [sys.executable, "-m", "outlast", "agents", "--json"],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if '"active"' in found.stdout:
            return
        assert time.monotonic() < deadline, "no agent came up"
        time.sleep(0.05)
