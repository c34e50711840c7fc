"""What a run wants of the agent that holds it.

Owns the one interface by which a run reaches its agent: slots, the ordered writes, threads and the loop. Refuses any other way, so that
a replay and a test can stand in for an agent whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..operations.atomic import Operation

if TYPE_CHECKING:
    import asyncio
    from collections import deque
    from collections.abc import Callable

    from ..definition import Definition
    from ..journal.plan import Undo
    from ..settings import Settings
    from ..store.committer.group import Done
    from ..store.sqlite import SqliteStore
    from .held import Held
    from .tries import Tried


class Host(Protocol):
    """What a run wants of the agent that holds it."""

    store: SqliteStore
    settings: Settings
    agent_id: int
    is_draining: bool
    """Whether the agent is leaving."""
    has_left: bool
    """Whether its loop does nothing more."""
    left: list[Held]
    """What went on in threads as the agent left, and the file has as strays."""
    reports: deque[Callable[[], None]]
    """What is still to be said of threads that have ended."""
    fingerprints: dict[str, str]
    loop: asyncio.AbstractEventLoop
    """The agent's real one, with its I/O."""
    returns_suspects: bool
    """Whether a run whose suspicion has ended goes back, to run among others again."""

    def compensated(self, undo: Undo) -> Definition | None:
        """The definition whose compensation an undo executes, or None where this agent has not its code."""

    def has_room_in_memory(self) -> bool:
        """Whether one more run may wait in memory."""

    def leave_slot(self) -> None:
        """A run waits: its slot is free for another."""

    def take_slot(self) -> None:
        """A run goes on in its thread: wait for a slot."""

    def take_slot_now(self) -> None:
        """A run goes on on the loop: count it, waiting is not possible there."""

    def submit(self, operation: Operation[Any], done: Done) -> None:
        """Execute an operation in order; `done` is called on the agent's loop."""

    def on_loop(self, function: Callable[[], None]) -> None:
        """Call a function on the agent's loop, from any thread."""

    def run_in_thread(self, function: Callable[[], None]) -> None: ...

    def stray_ended(self, work: Held, path: str, tried: Tried) -> None:
        """A try that overran has ended."""

    def overran(self, task_id: int) -> None:
        """A thread does not end: the agent must be replaced."""
