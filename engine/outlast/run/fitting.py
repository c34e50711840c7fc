"""Whether a signal's payload fits the type that a run waits for, and a word to people where it does not.

Owns that decision, alike for sync and async runs, and that each process tells of a misfit once. Refuses to take or drop a signal: one
that does not fit stays unread, for a later wait of another type.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

from .. import clock, codec
from ..errors import PayloadUnreadable
from ..operations.claimed import Claimed
from ..signature import convert_value

_MOST = 10_000
_told: set[tuple[str, int]] = set()
"""Runs and their signals. A run that waits in a loop meets the same signal each time; so does one that comes back from a park."""


class _Waiter(Protocol):
    @property
    def claimed(self) -> Claimed: ...

    def log(self, message: dict[str, Any]) -> None: ...


def fits(run: _Waiter, name: str, signal_id: int, payload: bytes, type_: Any) -> bool:
    """Whether a signal may be taken; if not, the agent's log and the run's say why."""
    if type_ is object:
        return True
    try:
        convert_value(codec.decode(payload), type_, "its payload")
    except PayloadUnreadable:
        return True  # It is taken, and its run is halted: left unread, it would wait for a key that nobody asks for.
    except Exception as error:  # noqa: BLE001 - a type of the user's may refuse in any way
        _tell(run, name, signal_id, str(error) or type(error).__name__)
        return False
    return True


def _tell(run: _Waiter, name: str, signal_id: int, problem: str) -> None:
    uid = run.claimed.uid
    if (uid, signal_id) in _told:
        return
    if len(_told) >= _MOST:
        _told.clear()
    _told.add((uid, signal_id))
    text = f"A signal {name!r} does not fit the type that is waited for, and stays unread"
    # The problem quotes the payload, which belongs into the file alone: there it is sealed by the application's codec.
    logging.getLogger("outlast").warning("run %s: %s. `outlast logs %s` says how.", uid, text, uid)
    run.log({"level": "WARNING", "logger": "outlast", "message": f"{text}: {problem}", "at": clock.iso(clock.wall())})
