"""The gate before each write of a simulated process, and the store whose writes go through it.

Owns where threads stand until somebody lets them go on, and the death of a process just before or just after what one of them goes
for: from then on nothing reaches the file, and every thread is answered as by a lost lease. Refuses to pick. Group commit is not in
play here: each write is one by itself, on the thread that asks for it.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from outlast import operations as op
from outlast.errors import LeaseLost
from outlast.operations import queues as queue_operations
from outlast.operations import retention as retention_operations
from outlast.operations.atomic import Operation
from outlast.operations.claimed import Fence
from outlast.store.committer import Committer
from outlast.store.committer.group import Done, Pending
from outlast.testing.quick import QuickStore

_UNGATED = (
    op.RegisterAgent, op.LeaveAgent, op.Heartbeat, op.LearnCode, queue_operations.DeclareQueues, retention_operations.DeclareRetention,
)  # fmt: skip
"""An agent's own commits, which the simulation asks for one by one."""


def _dead() -> LeaseLost:
    return LeaseLost("This process is dead, as a simulation has it.")


@dataclass(slots=True, eq=False)
class Standing:
    """A thread before its next write or effect."""

    what: str
    on_loop: bool
    may_go: bool = False
    of: str = ""
    """Which thread it is, of several before the same."""
    dies: str = ""
    """Whether its process dies just `after` what it goes for, or `before` its commit where it has begun a transaction."""


class Gate:
    """Where the threads of one agent wait. `news` is shared by all agents, and by who picks."""

    def __init__(self, news: threading.Condition) -> None:
        self.news = news
        self.standing: list[Standing] = []
        self.is_dead = False
        self.refused: list[Fence | None] = []
        """Of each write that was refused for want of a lease: its fence, or None of a claim."""
        self.loop_thread = 0
        self.here = threading.local()
        """What the thread is there for: `of`, the same in each simulation of a seed."""
        self.leaves: Callable[[], object] = list
        """Called just before its agent leaves in good order, and gives back what it holds."""

    def wait(self, what: str) -> Standing:
        """Wait for leave; `LeaseLost` where the process has died meanwhile."""
        one = Standing(what, threading.get_ident() == self.loop_thread, of=getattr(self.here, "of", ""))
        with self.news:
            self.standing.append(one)
            self.news.notify_all()
            while not (one.may_go or self.is_dead):
                self.news.wait()
            self.standing.remove(one)
        if self.is_dead:
            raise _dead()
        return one

    def passed(self, one: Standing | None) -> None:
        """What it went for is done."""
        if one is not None and one.dies == "after":
            self.die()
        if self.is_dead:
            raise _dead()

    def die(self) -> None:
        with self.news:
            self.is_dead = True
            self.news.notify_all()


class _GatedCommitter(Committer):
    """Writes each operation by itself, on the thread that asks for it."""

    store: GatedStore

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._led: deque[tuple[Operation[Any], Done]] = deque()

    def commit(self, operation: Operation[Any]) -> Any:
        pending = self._through_the_gate(operation)
        if pending.error is not None:
            raise pending.error
        return pending.result

    def submit(self, operation: Operation[Any], done: Done | None = None) -> None:
        pending = self._through_the_gate(operation)
        if done is not None:
            done(pending.result, pending.error)
        for call in list(self.when_answered):
            call()

    def submit_led(self, operation: Operation[Any], done: Done) -> None:
        # Answered at once, a loop would be answered while it asks, for ever if it asks again each time.
        self._led.append((operation, done))

    def lead(self) -> None:
        while self._led:
            self.submit(*self._led.popleft())

    def try_claim(self, operation: op.Claim, done: Done) -> bool:
        self.submit(operation, done)
        return True

    def _through_the_gate(self, operation: Operation[Any]) -> Pending:
        pending = Pending(operation, lambda _, __: None)
        gate = self.store.gate
        try:
            if isinstance(operation, op.LeaveAgent):
                gate.leaves()
            one = None if isinstance(operation, _UNGATED) else gate.wait(type(operation).__name__)
            if gate.is_dead:
                raise _dead()
            with self._busy:
                self._run_group([pending])
            if isinstance(pending.error, LeaseLost):
                gate.refused.append(getattr(operation, "fence", None))
            gate.passed(one)
        except BaseException as error:
            pending.result, pending.error = None, error
        return pending


class _Deaf:
    """A bell that nobody hears: it would wake a loop at a time that no seed knows."""

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        """Nothing was opened."""


class GatedStore(QuickStore):
    """The store of one simulated process."""

    committer_type = _GatedCommitter

    def __init__(self, path: str | os.PathLike[str], gate: Gate) -> None:
        super().__init__(path)
        self.gate = gate
        assert isinstance(self.committer, _GatedCommitter)
        self.committer.store = self
        self._step: Standing | None = None

    def listen(self) -> Any:
        return _Deaf()

    @contextmanager
    def turn_taken(self) -> Iterator[None]:
        # Of a `@transaction` step: from here to its commit the others must not be picked, since it holds the write lock.
        self._step = self.gate.wait("transaction")
        with super().turn_taken():
            yield

    def commit_step(self, connection: Any, name: str) -> None:
        assert self._step is not None
        if self._step.dies == "before":
            self.gate.die()
            raise _dead()
        super().commit_step(connection, name)
        self.gate.passed(self._step)
