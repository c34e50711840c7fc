"""The short form of the storm."""

from __future__ import annotations

from pathlib import Path

import pytest

from .storm import storm


@pytest.mark.crash
def test_a_storm_of_kills_loses_and_repeats_nothing(tmp_path: Path) -> None:
    figures = storm(tmp_path, runs=12, kills=6, seed=1)
    assert figures.kills >= 6
    assert figures.taken_over >= 1
