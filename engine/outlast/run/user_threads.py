"""The threads of this process in which users' code goes on, whichever agent began them.

Owns the one set of them, by which a process knows whether it can end in good order: Python waits for such a thread, and it may never end.
"""

from __future__ import annotations

import threading

executing: set[threading.Thread] = set()
"""Threads that execute user code now."""


def busy_threads() -> frozenset[threading.Thread]:
    """Those that are alive."""
    return frozenset(thread for thread in list(executing) if thread.is_alive())


def has_busy_threads() -> bool:
    """Whether there is one; then the process has to end by `os._exit`."""
    return bool(busy_threads())
