"""`outlast logs`: what the code of a run has logged."""

from __future__ import annotations

from pathlib import Path

from .conftest import Call

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


def test_what_a_run_and_its_steps_log_can_be_read_and_filtered(project: Path, outlast: Call) -> None:
    (project / "workflows" / "talk.py").write_text(CODE)
    assert outlast("run", "talk", "--key", "t").code == 0

    assert [record["message"] for record in outlast("logs", "talk:t", "--json").json] == ["begin\nhere", "worked on a lamp\x1b[31m"]
    assert [record["logger"] for record in outlast("logs", "talk:t", "--step", "work", "--json").json] == ["shop"]
    text = outlast("logs", "talk:t").out
    assert "\x1b" not in text
    assert "root: begin\n    here\n" in text
    assert outlast("logs", "talk:t", "--step", "nothing").code == 3
