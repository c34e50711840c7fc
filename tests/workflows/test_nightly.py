"""The nightly report: what it says of a day's runs, and of which day."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from shell import Shell

from outlast import Engine, clock


@pytest.fixture
def nightly(workflow_module: Callable[[str], ModuleType]) -> Any:
    return workflow_module("nightly")


@pytest.fixture
def engine(nightly: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setenv("OUTLAST_DB", str(tmp_path / "nightly.db"))
    monkeypatch.setenv("REPORT_FOLDER", str(tmp_path / "reports"))
    with Engine() as engine, engine.agent():
        yield engine


def test_a_report_counts_the_runs_of_its_day_and_names_what_failed(nightly: Any, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "reports" / "2026-01-02.md").mkdir(parents=True)
    today = clock.to_datetime(clock.wall()).date()
    with pytest.raises(IsADirectoryError):
        engine.start(nightly.nightly_report, date(2026, 1, 2)).result(timeout=20)

    file = Path(engine.start(nightly.nightly_report, today).result(timeout=20))

    text = file.read_text()
    assert file == tmp_path / "reports" / f"{today}.md"
    assert text.startswith(f"# Runs of {today}\n")
    assert "| nightly_report | 2 | 1 failed, 1 running |" in text
    assert "nightly_report failed: IsADirectoryError" in text.replace("builtins.", "")


def test_a_day_without_runs_has_a_report_too(nightly: Any, engine: Engine) -> None:
    file = Path(engine.start(nightly.nightly_report, date(2001, 1, 1)).result(timeout=20))

    assert file.read_text() == "# Runs of 2001-01-01\n\nNo run was started.\n"


def test_a_report_that_is_caught_up_is_about_the_day_before_its_own_tick(shell: Shell) -> None:
    shell.run("migrate")
    tick = datetime.now(UTC).replace(hour=0, minute=15, second=0, microsecond=0) - timedelta(days=2)
    shell.environment["REPORT_FOLDER"] = str(shell.folder / "reports")

    shell.run("schedule", "create", "again", "nightly_report", "--cron", "15 0 * * *")
    shell.run("schedule", "backfill", "again", "--from", tick.isoformat(), "--to", tick.isoformat())
    shell.run("agent", "--once")

    (report,) = (shell.folder / "reports").iterdir()
    assert report.name == f"{tick.date() - timedelta(days=1)}.md"


def test_code_reads_the_file_that_the_command_line_names(shell: Shell, tmp_path: Path) -> None:
    shell.environment["REPORT_FOLDER"] = str(tmp_path / "reports")
    other = str(tmp_path / "other.db")

    shell.run("--db", other, "run", "nightly_report", "day=2001-01-01")

    assert not (shell.folder / "outlast.db").exists()
