"""What an operation is: a value that a store executes as one atomic change, and whose execution gives an answer.

Owns the type that all of them have, whichever module lists them, and the one that stands for what could not be made ready.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from msgspec import Struct

R = TypeVar("R")


class Operation(Struct, Generic[R], frozen=True, gc=False):
    """An atomic change whose execution gives an `R`."""


class Refused(Operation[None], frozen=True, gc=False):
    """Nothing, in the place of what could not be made ready for the store; its answer is the error."""

    error: Exception
