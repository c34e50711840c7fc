"""Durations: what is allowed, and the sentence for what is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.errors import InvalidInput
from outlast.text.duration import describe, seconds


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1500ms", 1.5),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        (" 2D ", 172_800),
        ("1.5s", 1.5),
        ("30", 30),
        (0, 0),
        (2.5, 2.5),
        (timedelta(minutes=2), 120),
        ("1s500ms", 1.5),
    ],
)
def test_a_duration_is_read_as_seconds(value: Any, expected: float) -> None:
    assert seconds(value) == pytest.approx(expected)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "s",
        "-5s",
        "5 parsecs",
        "1h1h",
        "30m1h",
        "1e3s",
        "nan",
        "inf",
        "５s",
        "\ud800",
        "5s\0",
        "9" * 5000,
        "9" * 500 + "s",
        True,
        None,
        [],
        -1,
        -0.5,
        float("nan"),
        float("inf"),
        10**400,
        -(10**400),
        10**30,
        timedelta(-1),
        timedelta.max,
        b"5s",
    ],
)
def test_nonsense_is_refused_with_one_sentence_that_names_what_is_allowed(value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        seconds(value, place="timeout")
    assert str(refused.value).startswith("timeout must")
    assert '"1h30m"' in str(refused.value)
    str(refused.value).encode()


@settings(deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert seconds(text) >= 0
    except InvalidInput:
        pass


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5400, "1h 30m"),
        (0.25, "250ms"),
        (0, "0ms"),
        (30, "30s"),
        (2.5, "2.5s"),
        (59.96, "1m"),
        (90, "1m 30s"),
        (86_400 * 7, "7d"),
        (3601, "1h"),
        (0.9999, "1s"),
        (0.0025, "2.5ms"),
        (-90, "-1m 30s"),
        (float("inf"), "forever"),
    ],
)
def test_a_duration_is_described_in_its_two_largest_units(value: float, text: str) -> None:
    assert describe(value) == text
