"""A copy of this repository's workflows in a folder of its own, worked on by the command line's processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Shell:
    """The command line in a folder that holds the workflows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "workflows", folder / "workflows", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "pyproject.toml").write_text("[tool.outlast]\n")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(("OUTLAST_", "BANK_"))}

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "outlast", *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )

    def run(self, *arguments: str, exit_code: int = 0) -> str:
        process = self.popen(*arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == exit_code, (arguments, process.returncode, out, err)
        return out.strip()

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def live_agents(self) -> list[int]:
        return [agent["pid"] for agent in self.json("agents") if agent["status"] == "active"]

    def kill_an_agent(self) -> int:
        """SIGKILL the agent that holds most, by the pid that `agents` gives."""
        agents = [one for one in self.json("agents") if one["status"] == "active"]
        pid: int = max(agents, key=lambda one: one["running"])["pid"]
        os.kill(pid, signal.SIGKILL)
        return pid


def eventually(fact: Callable[[], Any], *, seconds: float = 40.0, what: str = "it") -> Any:
    deadline = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < deadline, f"{what} did not come true in {seconds:g} s"
        time.sleep(0.05)
    return found
