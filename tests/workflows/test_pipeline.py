"""The pipeline on a small git repository and on this project: checks side by side, approval, deploy, rollback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from shell import ROOT, Shell

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    named = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    # A hook or an outer git that runs these tests must not lend us its repository.
    own = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return subprocess.run(["git", *named, *arguments], cwd=folder, env=own, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for version in ("1", "2"):
        (folder / "version").write_text(version)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "-m", f"Version {version}")
    return folder


def checks(**commands: str) -> str:
    return "checks:=" + json.dumps([{"name": name, "command": command, "timeout": "60s"} for name, command in commands.items()])


def site(shell: Shell) -> Path:
    return shell.folder / "pipeline" / "site"


def release(up: Shell, repository: Path, key: str, *arguments: str, exit_code: int = 0) -> Any:
    run = up.run("start", "pipeline", f"repository={repository}", checks(all="true"), *arguments, "--key", key)
    up.run("signal", run, "approval", '{"by": "eve"}')
    up.run("result", run, "--wait", exit_code=exit_code)
    return up.json("show", run)


def test_a_release_that_fails_its_look_after_is_rolled_back_to_the_one_before(up: Shell, repository: Path) -> None:
    first = release(up, repository, "first", "revision=HEAD~1")
    assert (site(up) / "current" / "version").read_text() == "1"
    assert first["output"] == {"commit": git(repository, "rev-parse", "HEAD~1"), "previous": None, "approved_by": "eve"}

    second = release(up, repository, "second", "after=grep 3 version", exit_code=1)

    assert second["status"] == "compensated"
    assert (site(up) / "current" / "version").read_text() == "1"
    assert [path.name for path in (up.folder / "pipeline" / "sources").iterdir()] == []

    release(up, repository, "third", "after=grep 2 version")
    assert (site(up) / "current" / "version").read_text() == "2"


def test_checks_that_fail_or_overrun_are_named_and_nothing_is_deployed(shell: Shell, repository: Path) -> None:
    given = json.dumps(
        [
            {"name": "good", "command": "echo fine"},
            {"name": "bad", "command": "echo so-it-is; exit 3"},
            {"name": "slow", "command": "sleep 600 & sleep 600", "timeout": "1s"},
        ]
    )

    shell.run("run", "pipeline", f"repository={repository}", f"checks:={given}", exit_code=1)

    (run,) = shell.json("runs")
    assert "bad: 'echo so-it-is; exit 3' ended with 3." in run["error"]["message"]
    assert "slow: Step run_check overran its timeout" in run["error"]["message"]
    assert "good" not in run["error"]["message"]
    assert shell.json("query", run["id"], "checks") == {"good": "passed", "bad": "failed", "slow": "failed"}
    assert "bad: so-it-is" in shell.run("logs", run["id"])
    assert not site(shell).exists()


def test_what_is_no_repository_is_said(shell: Shell, tmp_path: Path) -> None:
    shell.run("run", "pipeline", f"repository={tmp_path}", checks(all="true"), exit_code=1)

    assert "is not a git repository" in shell.json("runs")[0]["error"]["message"]


def test_this_project_passes_its_own_checks(up: Shell) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout of git")
    given = checks(help="python3 cli.py --help || true", compile="python3 -m compileall -q engine workflows cli.py")

    run = up.run("start", "pipeline", f"repository={ROOT}", given, "after=test -f engine/outlast/__init__.py")
    up.run("signal", run, "approval", '{"by": "eve"}')

    assert json.loads(up.run("result", run, "--wait"))["commit"] == git(ROOT, "rev-parse", "HEAD")
    assert (site(up) / "current" / "cli.py").is_file()
