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
            # The lines of cron.md are variants of one another; the README's second block needs the first one's file.
            if document.name != "cron.md" and "from workflows" not in block:
                exec(code, {"__name__": name})


def test_the_readmes_commands_run_as_they_are_written(tmp_path: Path) -> None:
    """In order, in one folder with the README's workflow; a line `Error: …` below a command says that it must fail."""
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "trip.py").write_text(blocks(ROOT / "README.md", "python")[0])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OUTLAST_")}
    running: list[subprocess.Popen[str]] = []
    try:
        for block in blocks(ROOT / "README.md", "console"):
            for command, _, shown in (part.partition("\n") for part in block.split("$ ")[1:]):
                words = shlex.split(command)
                assert words[0] == "outlast"
                # A run's id is another each time.
                words = [re.sub(r"^0rsh\w{14}$", "trip:rome", word) for word in words]
                process = subprocess.Popen(
                    [sys.executable, "-m", "outlast", *words[1:]],
                    cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )  # fmt: skip
                if words[1] == "up":
                    running.append(process)
                    _wait_for_agents(tmp_path, environment)
                    continue
                out, err = process.communicate(timeout=60)
                assert (process.returncode != 0) == ("Error: " in shown), (command, out, err)
                assert "Traceback" not in err
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
