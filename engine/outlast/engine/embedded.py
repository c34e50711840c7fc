"""An agent, a supervisor and a scheduler inside the application's own process.

Owns their order: the supervisor is there before the agent and goes after it, and nobody starts ticks once
the agent drains. Refuses to touch signal handlers, and to stop on an event loop: `async with` starts and
drains in a thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from .. import caller
from ..definition import registry
from ..errors import InvalidInput
from ..text.names import checked_name, checked_whole

if TYPE_CHECKING:
    from ..settings import Settings
    from ..store.sqlite import SqliteStore


class _Role(Protocol):
    def start(self) -> None: ...

    def stop(self) -> None: ...


_counting = threading.Lock()
_count = 0


class EmbeddedAgent:
    """The roles of one `engine.agent()` block. It can be entered again once it has been left."""

    def __init__(self, store: SqliteStore, settings: Settings, *, concurrency: int, queues: list[str] | None) -> None:
        self._store = store
        self._settings = settings
        self._concurrency = checked_whole(concurrency, place="concurrency of an agent", least=1)
        if isinstance(queues, str):
            raise InvalidInput(f"queues of an agent must be a list of names, not {queues!r}.")
        if queues is not None and not queues:
            raise InvalidInput("queues of an agent is empty: it would claim nothing.", hint="Leave it out for all queues.")
        self._queues = None if queues is None else tuple(_known(name, store) for name in queues)
        self._roles: ExitStack | None = None
        self._process = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # Shielded: a second cancel of the task must not leave the draining to itself.
        await asyncio.shield(asyncio.to_thread(self.stop))

    def start(self) -> None:
        """Start the roles in background threads; none is left running where one fails to start."""
        if self._roles is not None and self._process == os.getpid():
            return
        with ExitStack() as roles:
            roles.callback(_announce())
            for role in self._made():
                role.start()
                roles.callback(role.stop)
            self._roles, self._process = roles.pop_all(), os.getpid()

    def stop(self) -> None:
        """Drain: what runs is finished, or handed back after the grace time; then all threads have ended."""
        roles, self._roles = self._roles, None
        if roles is not None and self._process == os.getpid():  # In a fork, the threads are the parent's.
            roles.close()

    def _made(self) -> Iterator[_Role]:
        """The roles in their order, each made once the one before has started."""
        from ..agent import Agent
        from ..agent.side_by_side import in_this_process
        from ..scheduler import Scheduler
        from ..supervisor import Supervisor

        store, settings, code = self._store, self._settings, registry.current()
        yield Supervisor(store, settings)
        yield Agent(store, code, settings, concurrency=self._concurrency, queues=self._queues, embedded=True, beside=in_this_process)
        yield Scheduler(store, code, settings)


def _announce() -> Callable[[], None]:
    """Say that this process has an embedded agent; gives what takes that back."""
    global _count
    with _counting:
        _count += 1
        caller.embedded_agent = True

    def withdraw() -> None:
        global _count
        with _counting:
            _count -= 1
            caller.embedded_agent = _count > 0

    return withdraw


def _known(name: str, store: SqliteStore) -> str:
    """The name, if the app declares such a queue or the file has it."""
    from ..store import queues

    checked_name(name, place="A queue")
    if not queues.exists(store.connection(), name):
        registry.queue(name)
    return name
