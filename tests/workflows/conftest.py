"""`shell`: a folder with this repository's workflows; `up`: the same with agents at work."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from shell import Shell, eventually


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.fixture
def up(shell: Shell) -> Iterator[Shell]:
    """`outlast up --agents 2` beside the test, until its end."""
    with (shell.folder / "up.log").open("w") as log:
        process = shell.popen("up", "--agents", "2", stdout=log, stderr=log)
        try:
            eventually((shell.folder / "outlast.db").exists, what="the file")
            eventually(lambda: len(shell.live_agents()) == 2, what="two agents")
            yield shell
        finally:
            process.terminate()
            assert process.wait(40) == 128 + signal.SIGTERM, (shell.folder / "up.log").read_text()
