"""Attributes that are made at their first use."""

from __future__ import annotations

from outlast.run.when_used import when_used


class Run:
    places = when_used(set[str])


def test_each_instance_has_its_own_from_the_first_use_on():
    one, other = Run(), Run()
    one.places.add("1")
    assert one.places == {"1"}
    assert other.places == set()
    assert one.places is one.places


def test_of_two_that_come_first_at_once_both_get_the_same():
    run = Run()
    seen: list[set[str]] = []

    def make() -> set[str]:
        # Another thread comes between the look for the attribute and its making, and is done first.
        Run.places._make = set
        seen.append(run.places)
        return set()

    Run.places._make = make
    assert run.places is seen[0]
