"""Attributes that are made at their first use.

Owns one descriptor. Exists because a run has a dozen sets, maps and locks of which a short one uses none, and an agent makes tens of
thousands of runs in a second. Refuses to know what it makes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")


class when_used(Generic[T]):
    """`name = when_used(make)` in a class: each instance has `make()` there, from its first use on."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> when_used[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: Any, owner: type) -> when_used[T] | T:
        if instance is None:
            return self
        # In one step: of two threads that come first at once, both get what the one has made.
        made: T = instance.__dict__.setdefault(self._name, self._make())
        return made
