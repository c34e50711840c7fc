"""The audit: on a made-up distribution, on the real ones, and under agents that are killed."""

from __future__ import annotations

import hashlib
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from shell import Shell, eventually

from outlast import Engine, Fail


def install(site: Path, name: str, files: dict[str, str], *, record: dict[str, str] | None = None) -> None:
    """A distribution with these files; `record` says what its RECORD claims that they hold."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    for file, text in files.items():
        (site / file).write_text(text)
    rows = [f"{name}-1.0.dist-info/RECORD,,"]
    for file, text in (files if record is None else record).items():
        digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        rows.append(f'"{file}",sha256={digest},{len(text)}')
    (info / "RECORD").write_text("\n".join(rows) + "\n")


@pytest.fixture
def audit(workflow_module: Callable[[str], ModuleType]) -> Any:
    return workflow_module("audit").audit


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Three distributions: an untouched one, one that was tampered with, one without a RECORD."""
    site = tmp_path / "site"
    install(site, "alpha", {"alpha.py": "a = 1\n", "odd, name.py": "b = 2\n"})
    install(site, "beta", {"beta.py": "changed"}, record={"beta.py": "as it was", "gone.py": "lost"})
    install(site, "gamma", {})
    (site / "gamma-1.0.dist-info" / "RECORD").unlink()
    return site


def test_it_names_what_was_changed_what_is_gone_and_what_cannot_be_checked(audit: Any, site: Path, tmp_path: Path) -> None:
    with Engine(tmp_path / "audit.db") as engine, engine.agent():
        run = engine.start(audit, path=str(site))
        report = run.result(timeout=20)

        assert run.query("progress") == {"checked": 3, "of": 3}

    assert report.findings == {"beta 1.0": ["mismatched beta.py", "missing gone.py"]}
    assert (report.is_clean, report.mismatched, report.missing, report.unreadable) == (False, 1, 1, 0)
    assert report.without_record == ["gamma 1.0"]
    assert (report.distributions, report.files, report.unhashed) == (3, 6, 2)
    assert report.bytes_hashed == len("a = 1\n") + len("b = 2\n") + len("changed")
    assert {slow.name for slow in report.slowest} == {"alpha 1.0", "beta 1.0", "gamma 1.0"}


def test_an_untouched_distribution_is_clean(audit: Any, site: Path, tmp_path: Path) -> None:
    with Engine(tmp_path / "audit.db") as engine, engine.agent():
        assert engine.start(audit, 1, str(site)).result(timeout=20).is_clean


def test_a_folder_that_is_not_there_is_said_in_a_sentence(audit: Any, tmp_path: Path) -> None:
    with Engine(tmp_path / "audit.db") as engine, engine.agent():
        run = engine.start(audit, path=str(tmp_path / "nowhere"))

        with pytest.raises(Fail, match="nowhere is not a folder"):
            run.result(timeout=20)


def test_the_real_distributions_are_audited_by_the_command_line(shell: Shell) -> None:
    report = json.loads(shell.run("run", "audit", "limit=5"))

    assert report["distributions"] == 5
    assert report["files"] > 5
    assert report["bytes_hashed"] > 0
    assert len(report["slowest"]) == 5
    assert shell.json("query", shell.json("runs")[0]["id"], "progress") == {"checked": 5, "of": 5}


@pytest.mark.crash
def test_an_audit_ends_with_every_distribution_while_its_agents_are_killed(up: Shell) -> None:
    run = up.run("start", "audit", "limit=20")

    for _ in range(2):
        eventually(lambda: len(up.live_agents()) == 2, what="two agents")
        up.kill_an_agent()
    assert up.run("result", run, "--wait") != ""

    report = up.json("result", run)
    assert report["distributions"] == 20
    assert up.json("show", run)["claim"] >= 1
    up.run("doctor")
