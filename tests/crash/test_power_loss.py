"""Power cuts at many points of a workload of the engine; the long form is `python -m tests.crash.long`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outlast.store import connection, library

# Named by its package: without it nothing here is tested, and the summary (`-ra`) says so.
pytest.importorskip("apsw", reason="POWER CUTS ARE NOT TESTED: `pip install 'outlast[test]'` brings apsw")

from .power_loss import Figures, cut_off, record_workload

IMAGES = int(os.environ.get("OUTLAST_TEST_POWER_CUTS", "50"))


@pytest.fixture(params=["wal", "a library without the fix, hence a rollback journal"])
def journal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "wal":
        monkeypatch.setattr(library, "safe", False)
        monkeypatch.setattr(connection, "_warned", True)
    return str(request.param)


def cuts(folder: Path, *, goes_on: int = 0, keeps_all: bool = True, images: int = IMAGES, **workload: str) -> Figures:
    (folder / "images").mkdir()
    record = record_workload(folder, **workload)  # type: ignore[arg-type]
    figures = cut_off(record, folder / "images", images=images, seed=1, goes_on=goes_on, keeps_all=keeps_all)
    assert figures.in_checkpoints >= images // 20
    return figures


def test_a_power_cut_takes_no_commit_that_was_answered_and_leaves_a_sound_file(tmp_path: Path, journal: str) -> None:
    figures = cuts(tmp_path, goes_on=3)
    assert not figures.problems, "\n".join(figures.problems)
    assert len(figures.states) >= IMAGES // 10, "the cuts are all at one place"


def test_with_durability_normal_a_power_cut_takes_the_last_commits_and_leaves_a_sound_file(tmp_path: Path) -> None:
    figures = cuts(tmp_path, keeps_all=False, goes_on=3, durability="normal")
    assert not figures.problems, "\n".join(figures.problems)
    assert figures.lost
    assert not figures.broken


@pytest.mark.parametrize("synchronous", ["off", "normal"])
def test_the_cuts_show_it_when_commits_are_not_fsynced(tmp_path: Path, synchronous: str) -> None:
    figures = cuts(tmp_path, images=50, synchronous=synchronous)
    assert figures.lost
    assert (figures.broken > 0) == (synchronous == "off")


def test_the_cuts_show_it_when_the_folder_is_not_synced_after_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "safe", False)
    monkeypatch.setattr(connection, "_warned", True)
    assert cuts(tmp_path, images=50, synchronous="full").lost
