"""Places in a workflow's code: every durable call gets the next number of its branch.

Owns the numbering alone. A branch is a Task, numbered by the code that creates it, so that the same code gives the same places
whatever finishes first.
"""

from __future__ import annotations


class Branch:
    """A line of code that runs by itself: the workflow's main line, or one asyncio Task."""

    __slots__ = ("_count", "_values", "born_seq", "parent", "prefix")

    def __init__(self, prefix: str = "", parent: str = "", born_seq: int = 0) -> None:
        self.prefix = prefix
        self.parent = parent
        self.born_seq = born_seq
        """The last outcome that had been delivered when the branch was made."""
        self._count = 0
        self._values = 0

    def place(self) -> str:
        """The next place on this branch."""
        self._count += 1
        self._values = 0
        return f"{self.prefix}{self._count}"

    def value_place(self) -> str:
        """The place of a derived value (an id, a random generator): between two durable calls, shifting neither."""
        self._values += 1
        return f"{self.prefix}{self._count}~{self._values}"

    def fork(self, born_seq: int = 0) -> Branch:
        """The branch of a Task that is created at the next place."""
        return Branch(f"{self.place()}.", self.prefix, born_seq)
