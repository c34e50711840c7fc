"""`shell`: a folder with this repository's workflows; `up`: the same with agents at work.

`workflow_module` imports one of them in this process.
"""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from shell import ROOT, Shell, eventually

from outlast.definition import registry


@pytest.fixture
def workflow_module() -> Iterator[Callable[[str], ModuleType]]:
    """Imports one of the workflows, for as long as the test lasts: other tests have modules of that name."""
    names: list[str] = []

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "workflows" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        names.append(spec.name)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    with registry.isolated():
        yield load
    for name in names:
        del sys.modules[name]


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
