"""The monitor: samples are kept, three high ones in a row escalate once, and an acknowledgement ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from shell import eventually

from outlast import Engine, sqlite3


@pytest.fixture
def monitor(workflow_module: Callable[[str], ModuleType]) -> Any:
    return workflow_module("monitor")


@pytest.fixture
def alerts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    file = tmp_path / "alerts.log"
    monkeypatch.setenv("MONITOR_ALERTS", str(file))
    return lambda: [line.split(" [")[0] for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def engine(monitor: Any, tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path / "monitor.db") as engine, engine.agent():
        yield engine


def test_samples_of_this_host_are_kept(monitor: Any, engine: Engine) -> None:
    sample = engine.start(monitor.collect).result(timeout=20)

    assert 0 < sample.memory_percent <= 100
    assert 0 < sample.disk_percent <= 100
    with closing(sqlite3.connect(engine.path)) as connection:
        # The schedule may have taken another one meanwhile.
        assert connection.execute("select count(*) from host_sample").fetchone()[0] in (1, 2)


def test_three_high_samples_in_a_row_escalate_once(monitor: Any, engine: Engine, alerts: Callable[[], list[str]]) -> None:
    # The host may be loaded as it likes.
    limits = monitor.Limits(load_percent=1e6, memory_percent=-1)

    for _ in range(5):
        engine.start(monitor.collect, limits).result(timeout=20)

    (escalation,) = engine.runs(workflow=monitor.escalate)
    eventually(alerts)
    escalation.signal("acknowledged", {"by": "eve"})
    assert escalation.result(timeout=20) == "acknowledged by eve"
    first, second = alerts()
    assert first.startswith("on call: memory ")
    assert first.endswith("(limit -1 %)")
    assert second.startswith("on call: eve looks after it: memory ")


def test_each_level_is_told_when_nobody_acknowledges(monitor: Any, engine: Engine, alerts: Callable[[], list[str]]) -> None:
    assert engine.start(monitor.escalate, "too hot", wait="20ms").result(timeout=20) == "nobody has acknowledged"

    assert alerts() == ["on call: too hot", "the team: too hot", "everybody: too hot"]
