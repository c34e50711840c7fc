"""`prune`: options, report, and what it refuses."""

from __future__ import annotations

import pytest

from .conftest import Call


@pytest.fixture
def two(outlast: Call) -> list[str]:
    """A run that completed and one that failed."""
    outlast("run", "add", "a=1")
    outlast("run", "fails")
    return [run["id"] for run in outlast("runs", "--json").json]


def test_prune_deletes_what_completed_and_leaves_what_failed(outlast: Call, two: list[str]) -> None:
    failed, completed = two
    would = outlast("prune", "--older-than", "0s", "--dry-run", "--json").json
    assert would == {"runs": 1, "ticks": 0, "bytes": 0, "dry_run": True}
    assert outlast("show", completed).code == 0
    done = outlast("prune", "--older-than", "0s", "--json")
    assert done.code == 0
    assert (done.json["runs"], done.json["dry_run"]) == (1, False)
    assert outlast("show", completed, "--json").error["type"] == "RunNotFound"
    assert outlast("show", failed).code == 0
    assert outlast("doctor").code == 0


def test_prune_by_status_and_workflow(outlast: Call, two: list[str]) -> None:
    assert outlast("prune", "--older-than", "0s", "--status", "failed", "--workflow", "add", "--json").json["runs"] == 0
    assert outlast("prune", "--older-than", "0s", "--status", "failed", "--yes").out == "Pruned 1 run and 0 ticks.\n"
    assert [run["id"] for run in outlast("runs", "--json").json] == two[1:]


def test_prune_by_status_leaves_the_ledger_of_schedules(outlast: Call, two: list[str]) -> None:
    assert outlast("schedule", "create", "often", "add", "a=1", "--every", "1m").code == 0
    backfill = outlast("schedule", "backfill", "often", "--from", "2026-01-01T00:00Z", "--to", "2026-01-01T00:01Z")
    assert backfill.code == 0, backfill.err
    outlast("cancel", "--all", "--workflow", "add", "--yes")
    assert outlast("prune", "--older-than", "0s", "--status", "failed", "--dry-run", "--json").json["ticks"] == 0
    assert outlast("prune", "--older-than", "0s", "--dry-run", "--json").json["ticks"] == 2


def test_prune_without_an_age_goes_by_the_retention(outlast: Call, two: list[str]) -> None:
    assert outlast("prune", "--json").json["runs"] == 0
    assert "Pruned 0 runs" in outlast("prune", "--older-than", "30d").out


@pytest.mark.parametrize("wrong", [("--older-than", "soon"), ("--older-than", "-1s"), ("--status", "waiting")])
def test_prune_refuses_what_makes_no_sense(outlast: Call, two: list[str], wrong: tuple[str, str]) -> None:
    assert outlast("prune", *wrong).code == 2
    assert len(outlast("runs", "--json").json) == 2


def test_prune_can_rewrite_the_file(outlast: Call, two: list[str]) -> None:
    assert outlast("prune", "--older-than", "0s", "--vacuum").code == 0
    assert outlast("show", two[0]).code == 0


def test_prune_needs_a_file(outlast: Call, project: object) -> None:
    assert outlast("prune", "--older-than", "1d").code == 3
