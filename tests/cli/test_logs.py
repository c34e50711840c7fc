"""`outlast logs`: what the code of a run has logged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CODE = """
import logging
from outlast import step, workflow

@step
def work(word: str) -> None:
    logging.getLogger("shop").info("worked on %s", word)

@workflow
def talk() -> None:
    logging.info("begin\\nhere")
    work("a lamp\\x1b[31m")
"""


def outlast(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OUTLAST_")}
    return subprocess.run(
        [sys.executable, "-m", "outlast", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_what_a_run_and_its_steps_log_can_be_read_and_filtered(tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "talk.py").write_text(CODE)
    assert outlast(tmp_path, "run", "talk", "--key", "t").returncode == 0

    everything = json.loads(outlast(tmp_path, "logs", "talk:t", "--json").stdout)
    assert [record["message"] for record in everything] == ["begin\nhere", "worked on a lamp\x1b[31m"]
    of_step = json.loads(outlast(tmp_path, "logs", "talk:t", "--step", "work", "--json").stdout)
    assert [record["logger"] for record in of_step] == ["shop"]
    text = outlast(tmp_path, "logs", "talk:t").stdout
    assert "\x1b" not in text
    assert "root: begin\n    here\n" in text
    assert outlast(tmp_path, "logs", "talk:t", "--step", "nothing").returncode == 3
