"""Seeing processes die: a descriptor for each, readable from the instant its process ends.

Owns the pidfds of the processes that a supervisor watches. Refuses to mistake one process for another: a pid
alone is reused, so a descriptor counts only once the process's start time was read with the descriptor
already open. Where there are no pidfds (macOS, an old kernel) it says so, and the supervisor looks again
twice a second.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable

from ..store.process import ProcessIdentity, is_alive


class DeathWatch:
    """Watches a changing set of processes. Belongs to one thread."""

    def __init__(self) -> None:
        self._fds: dict[ProcessIdentity, int | None] = {}

    def follow(self, processes: Iterable[ProcessIdentity]) -> None:
        """Watch these from now on, and no others."""
        wanted = set(processes)
        for gone in self._fds.keys() - wanted:
            fd = self._fds.pop(gone)
            if fd is not None:
                os.close(fd)
        for new in wanted - self._fds.keys():
            self._fds[new] = _open(new)

    def fds(self) -> list[int]:
        """The descriptors to wait on; readable ones belong to the dead."""
        return [fd for fd in self._fds.values() if fd is not None]

    def is_dead(self, process: ProcessIdentity) -> bool:
        """Whether it was seen dead; false also where nothing can be said from here."""
        fd = self._fds.get(process)
        if fd is None:
            return is_alive(process) is False
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(0))

    def has_unwatched(self) -> bool:
        """Whether some process is alive here without a descriptor that would tell of its end."""
        return any(fd is None and is_alive(process) for process, fd in self._fds.items())

    def close(self) -> None:
        self.follow(())


def _open(process: ProcessIdentity) -> int | None:
    if not hasattr(os, "pidfd_open") or is_alive(process) is not True:
        return None
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:
        return None
    # Between the first look and the opening the process may have died and its pid been given away. Alive now,
    # with the start time that we know, it was alive at the opening too, and nobody else can have had its pid
    # then.
    if is_alive(process) is not True:
        os.close(fd)
        return None
    return fd
