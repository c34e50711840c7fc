"""The suite of benchmarks judges by its bars, says what it could not measure, and draws what it found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> object:
    """The command's module, with two benchmarks that take no time."""
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.__main__ as command
    from benchmarks.figures import Bar, Benchmark, Curve

    rates = iter([3.0, 1.0, 2.0] * 4)
    quick = Benchmark("quick", "a quick one", lambda setting: {"ratio": next(rates)}, (Bar("ratio", at_least=1.5, aim=3),))
    absent = Benchmark("absent", "one with a peer", lambda setting: {"runs/s": 5.0}, is_there=lambda: "not installed: huey")
    monkeypatch.setattr(command, "BENCHMARKS", (quick, absent))
    monkeypatch.setattr(command.growth, "CURVES", {"curve": lambda setting: Curve("claim", "tasks", "ms", ((1, 2.0), (1000, 2.5)))})
    return command


def run(suite: object, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--rounds", "3", *words])
    status: int = suite.main()  # type: ignore[attr-defined]
    return status


def test_the_median_is_judged_and_every_round_is_kept(
    suite: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(suite, monkeypatch, "--json", str(tmp_path / "r.json")) == 0
    assert "| ratio | 1.00 | 2.00 | 3.00 | ≥ 1.5 (aim 3) | met |" in capsys.readouterr().out
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["benchmarks"][0]["rounds"] == [{"ratio": 3.0}, {"ratio": 1.0}, {"ratio": 2.0}]
    assert {"python", "sqlite", "outlast", "processor"} <= found["machine"].keys()


def test_a_missed_bar_ends_with_one_unless_nobody_asks(
    suite: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks.figures import Bar, Benchmark

    slow = Benchmark("slow", "a slow one", lambda setting: {"p50 ms": 9.0}, (Bar("p50 ms", at_most=2),))
    monkeypatch.setattr(suite, "BENCHMARKS", (slow,))
    assert run(suite, monkeypatch) == 1
    assert "missed: a slow one: p50 ms ≤ 2" in capsys.readouterr().err
    assert run(suite, monkeypatch, "--no-bars") == 0


def test_what_is_absent_is_said(suite: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(suite, monkeypatch) == 0
    assert "one with a peer" in (shown := capsys.readouterr().out)
    assert "not installed: huey" in shown


def test_the_chart_and_the_page_hold_every_figure_with_a_bar(suite: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run(suite, monkeypatch, "--svg", str(tmp_path / "r.svg"), "--markdown", str(tmp_path / "r.md"))
    texts = [element.text or "" for element in ElementTree.parse(tmp_path / "r.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert any("a quick one" in text for text in texts)
    assert any("claim, ms by tasks" in text for text in texts)
    page = (tmp_path / "r.md").read_text()
    assert "| **a quick one** (3 rounds) |" in page
    assert "(r.svg)" in page
