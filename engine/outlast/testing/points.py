"""The commit points of a run, and a store that dies at one of them.

Owns their names and the moment of death. Between two commits nothing reaches the file, so that a crash anywhere between
them is a crash just after the one or just before the other: a run has two places to die for each commit, and no more.
Refuses to let anything through once it is dead: what a killed process would still have written is answered as by a lost
lease, and the agent drops it silently.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import operations as op
from ..errors import LeaseLost
from ..operations import queues as queue_operations
from ..operations import retention as retention_operations
from ..store.committer import Committer
from ..store.transaction import Transaction
from .quick import QuickStore

if TYPE_CHECKING:
    from ..store.library import sqlite3

SIDES = ("before", "after")

CLAIM = "the claim of"
"""Before a claim, nothing is under way."""

_OF_THE_ROLES = (
    op.RegisterAgent, op.LeaveAgent, op.Heartbeat, op.LearnCode, op.Sweep, op.AgentEnded,
    queue_operations.DeclareQueues, retention_operations.DeclareRetention,
)  # fmt: skip
"""Commits that belong to no run."""


@dataclass(frozen=True, slots=True)
class Point:
    """Where to die: at the commit of this number, just `before` or just `after` it."""

    number: int
    side: str


class CrashCommitter(Committer):
    """Counts the commits of runs, and dies at the one that `store` names."""

    store: CrashStore

    def _run_group(self, group: list[Any], *, has_turn: bool = False) -> None:
        # One by one: what comes together in one group is a matter of chance, and points are to be the same in every trial.
        for pending in group:
            if self.store.passes([pending]):
                try:
                    super()._run_group([pending], has_turn=has_turn)
                except LeaseLost:
                    if not self.store.is_dead:
                        raise
                self.store.passed([pending])

    def _context(self, connection: sqlite3.Connection) -> Transaction:
        # Whoever waited for the write lock while a @transaction step died with it would write after the death.
        if self.store.is_dead:
            raise _dead()
        return super()._context(connection)

    def _run_here(self, pending: Any) -> bool:
        if not self.store.passes([pending]):
            return True
        done = super()._run_here(pending)
        if done:
            self.store.passed([pending])
        return done


class CrashStore(QuickStore):
    """A store that dies at `dies_at`: by SIGKILL of this process, or by answering nothing any more."""

    committer_type = CrashCommitter

    def __init__(self, path: str | os.PathLike[str], *, dies_at: Point | None = None, kills: bool = False) -> None:
        super().__init__(path, create=True)
        assert isinstance(self.committer, CrashCommitter)
        self.committer.store = self
        self.is_counting = False
        self.is_dead = False
        self.points: list[str] = []
        """The names of the commits so far."""
        self._dies_at = dies_at
        self._kills = kills
        self._names: dict[int, str] = {}

    def passes(self, group: Sequence[Any]) -> bool:
        """Count the commit that begins; false where it is not made any more."""
        if self._counts(group) and not _claims_only(group):
            self.points.append(_joined(self._name(pending.operation) for pending in group))
            self._die_at("before")
        return self._is_let_through(group)

    def passed(self, group: Sequence[Any]) -> None:
        """Take note that the commit is on disk."""
        claimed = [one for p in group if isinstance(p.operation, op.Claim) and p.error is None for one in p.result]
        for one in claimed:
            self._names[one.fence.task_id] = one.name
        if self._counts(group):
            if _claims_only(group):
                # Of a claim, only what it took counts: agents also look where nothing is, as it happens.
                if not claimed:
                    return
                self.points.append(f"{CLAIM} {', '.join(one.name for one in claimed)}")
            self._die_at("after")
        self._is_let_through(group)

    def commit_step(self, connection: sqlite3.Connection, name: str) -> None:
        if self.is_counting:
            self.points.append(f"the transaction {name} and its entry")
            self._die_at("before")
        if self.is_dead:
            raise _dead()
        super().commit_step(connection, name)
        if self.is_counting:
            self._die_at("after")
        if self.is_dead:
            raise _dead()

    def _counts(self, group: Sequence[Any]) -> bool:
        return self.is_counting and not self.is_dead and not all(isinstance(p.operation, _OF_THE_ROLES) for p in group)

    def _die_at(self, side: str) -> None:
        if self._dies_at == Point(len(self.points), side):
            if self._kills:
                os.kill(os.getpid(), signal.SIGKILL)
            self.is_dead = True

    def _is_let_through(self, group: Sequence[Any]) -> bool:
        if self.is_dead:
            for pending in group:
                pending.result, pending.error = None, _dead()
        return not self.is_dead

    def _name(self, operation: Any) -> str:
        name = self._names.get(operation.fence.task_id, "?") if hasattr(operation, "fence") else ""
        match operation:
            case op.Append(entries=entries):
                return _joined(f"{entry.kind} {entry.name} {entry.event}" for entry in entries)
            case op.Claim():
                return ""
            case op.StartPart(start=start):
                return f"the start of {'child' if start.kind == 'run' else 'submitted step'} {start.name}"
            case op.Start(name=started):
                return f"the start of {started}"
            case op.End(ending=ending):
                return f"the end of {name} ({ending})"
            case op.EndUndo():
                return f"the end of the undo of {name}"
            case op.RecordUndo(entry=entry):
                return f"undo of {entry.name} {entry.event}"
            case op.Park():
                return f"{name} parks"
            case op.Again(entry=entry):
                return f"submitted step {entry.name} tries again"
            case _:
                words = "".join(" " + c.lower() if c.isupper() else c for c in type(operation).__name__).strip()
                return f"{words} of {name}" if name else words


def _claims_only(group: Sequence[Any]) -> bool:
    return all(isinstance(pending.operation, op.Claim) for pending in group)


def _joined(names: Any) -> str:
    return " and ".join(name for name in names if name)


def _dead() -> LeaseLost:
    return LeaseLost("This process is dead, as a test has it.")
