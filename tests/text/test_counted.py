"""Numbers of things, as a sentence has them."""

from __future__ import annotations

from outlast.text.counted import counted, times


def test_how_often_is_said_without_a_number_of_one() -> None:
    assert [times(count) for count in (1, 2, 1_000)] == ["once", "2 times", "1,000 times"]


def test_a_plural_is_for_all_but_one() -> None:
    assert [counted(count, "run") for count in (0, 1, 2, 3_000)] == ["0 runs", "1 run", "2 runs", "3,000 runs"]
