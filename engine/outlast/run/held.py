"""One claimed task that an agent holds, whatever carries it on.

Owns what the agent, the task's code and the threads of its steps tell each other: intents, the lease, what goes on although it should have
ended. Refuses to carry anything on: runs of either colour, submitted steps and undos do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from .when_used import when_used

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..journal.entry import Entry
    from ..operations.claimed import Claimed
    from .host import Host
    from .tries import Tried


class Held(ABC):
    """A task between its claim and the write with which it leaves."""

    # What most tasks never change stands in the classes: tens of thousands are made in a second, and a thread makes them all.
    kill_isolated: Callable[[], None] | None = None
    """Kills the process of the isolated step that executes in its thread."""
    is_on_loop = False
    """Whether the agent's loop executes its code, not a thread."""
    ended = False
    """Whether its code has ended."""
    lost = False
    """Whether its lease is over: nothing of it can be written any more."""
    ending_decided = False
    """Whether its last write was made while its code goes on in a thread."""
    cancel_requested = False
    pause_requested = False
    drain_requested = False
    late = False
    """Whether its deadline has passed."""

    strays = when_used(set[str])
    """The places of tries that go on although the task has moved on; its ending waits for them."""
    overrunning = when_used(set[str])
    """The strays among them whose threads report their own end."""

    def __init__(self, host: Host, claimed: Claimed) -> None:
        self.host = host
        self.claimed = claimed
        self.fence = claimed.fence
        self.agent_id = host.agent_id
        """By which number the agent claimed it: an agent that begins anew has another."""

    @property
    @abstractmethod
    def is_in_threads(self) -> bool:
        """Whether code of it goes on in a thread, which no drain can stop."""

    def notify(self) -> None:  # noqa: B027 - a submitted step and an undo wait for nothing
        """Look again, if it waits: an intent was set, or something has arrived."""

    def stop(self) -> bool:
        """Kill what can be killed from outside; false where its code goes on."""
        kill = self.kill_isolated
        if kill is not None:
            kill()
        return kill is not None

    @property
    def run_id(self) -> int | None:
        """The run in whose journal its steps are."""
        return self.fence.task_id

    def late_outcome(self, path: str, tried: Tried) -> Entry | None:
        """What the journal keeps of a try that succeeded after the task had moved on, so that it can be undone; None for nothing."""
        return None
