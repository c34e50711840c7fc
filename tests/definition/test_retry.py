"""The retry policy: what is tried again, and after how long."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from outlast.definition.retry import ONCE, Retry, as_retry
from outlast.errors import Cancelled, Fail, InvalidInput, RetryAfter


def test_the_first_try_counts() -> None:
    assert Retry(3).wants(ValueError(), 1)
    assert Retry(3).wants(ValueError(), 2)
    assert not Retry(3).wants(ValueError(), 3)
    assert not ONCE.wants(ValueError(), 1)


def test_only_errors_of_the_named_classes_are_tried_again() -> None:
    policy = Retry(3, on=(OSError, ValueError), unless=FileNotFoundError)
    assert policy.wants(TimeoutError(), 1)
    assert policy.wants(ValueError(), 1)
    assert not policy.wants(FileNotFoundError(), 1)
    assert not policy.wants(KeyError(), 1)


def test_fail_is_never_tried_again() -> None:
    assert not Retry(3, on=Fail).wants(Fail("no"), 1)


def test_fail_can_be_raised_bare_and_of_an_error() -> None:
    # A TypeError of its own would be tried again.
    with pytest.raises(Fail):
        raise Fail
    assert str(Fail(ValueError("no"))) == "no"


def test_retry_after_asks_for_a_try_whatever_the_classes_are_but_not_for_one_too_many() -> None:
    assert Retry(2, on=OSError).wants(RetryAfter("10s"), 1)
    assert not Retry(2, on=OSError).wants(RetryAfter("10s"), 2)


def test_unwinding_is_never_tried_again() -> None:
    assert not Retry(3).wants(Cancelled(), 1)


def test_the_wait_grows_up_to_its_maximum() -> None:
    policy = Retry(9, initial="1s", factor=2, maximum="10s")
    assert [policy.delay_seconds(n, random=0.5) for n in (1, 2, 3, 4, 5)] == [1, 2, 4, 8, 10]


def test_the_jitter_is_symmetric() -> None:
    policy = Retry(2, initial=timedelta(seconds=10), jitter=0.1)
    assert policy.delay_seconds(1, random=0.0) == pytest.approx(9)
    assert policy.delay_seconds(1, random=1.0) == pytest.approx(11)


def test_a_wait_after_very_many_tries_is_the_maximum() -> None:
    assert Retry(10**6, factor=10).delay_seconds(10**6, random=0.5) == 60


def test_no_wait_at_all_can_be_asked_for() -> None:
    assert Retry(2, initial=0).delay_seconds(1, random=0.9) == 0


def test_a_number_of_tries_is_a_policy() -> None:
    assert as_retry(3) == Retry(3)
    assert as_retry(Retry(2)) == Retry(2)


def test_a_policy_is_frozen_and_compared_by_value() -> None:
    assert Retry(3) == Retry(3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Retry(3).tries = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tries": 0}, "tries of a Retry must be a whole number of at least 1, not 0."),
        ({"tries": True}, "tries"),
        ({"tries": 2.5}, "tries"),
        ({"tries": 2, "factor": 0.5}, "factor"),
        ({"tries": 2, "factor": float("nan")}, "factor"),
        ({"tries": 2, "factor": float("inf")}, "factor"),
        ({"tries": 2, "jitter": -0.1}, "jitter"),
        ({"tries": 2, "jitter": 1.1}, "jitter"),
        ({"tries": 2, "initial": "soon"}, "initial"),
        ({"tries": 2, "initial": -1}, "initial"),
        ({"tries": 2, "initial": "2m", "maximum": "1m"}, "larger maximum"),
        ({"tries": 2, "on": "OSError"}, "on of a Retry must be an error class"),
        ({"tries": 2, "on": BaseException}, "on of a Retry"),
        ({"tries": 2, "unless": [OSError]}, "unless of a Retry"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_in_one_sentence(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=r"^[^\n]+$") as refused:
        Retry(**arguments)
    assert said in str(refused.value)


def test_a_first_wait_that_is_longer_than_the_default_maximum_is_the_maximum() -> None:
    policy = Retry(3, initial="2m", jitter=0)
    assert [policy.delay_seconds(number, random=0.5) for number in (1, 2)] == [120, 120]
    assert policy == dataclasses.replace(policy) == Retry(3, initial="2m", maximum="2m", jitter=0)
    assert Retry(3).maximum == "1m"


@pytest.mark.parametrize("value", [0, -1, True, "3", 1.5, None])
def test_what_is_no_policy_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match="retry of x"):
        as_retry(value, place="retry of x")


@pytest.mark.parametrize("delay", ["soon", -1, float("nan"), None])
def test_a_retry_after_what_is_no_duration_is_refused_where_it_is_made(delay: Any) -> None:
    with pytest.raises(InvalidInput, match="delay of RetryAfter must"):
        RetryAfter(delay)
