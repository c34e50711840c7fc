"""One child process of a node: its start, its proof of life, its death and what became of it.

Owns the process, its process group and the node's end of its pipe. Refuses to decide: when to start, stop or
replace is the node's. A child has a process group of its own, so that Ctrl-C in a terminal reaches the node
alone, which then lets the children drain; and so that whatever a dead child leaves behind in its group dies
with it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

from ..liveness import FD_VARIABLE, HANG_VARIABLE

YOUNG_SECONDS = 5.0
_FIRST_DELAY_SECONDS = 0.2
_LONGEST_DELAY_SECONDS = 5.0


class Child:
    """A started child. Belongs to the node's thread."""

    def __init__(self, name: str, command: Sequence[str], environ: Mapping[str, str], *, hang_seconds: float) -> None:
        """Start it. Raises `OSError` where the system cannot."""
        self.name = name
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                env={**environ, FD_VARIABLE: str(write), HANG_VARIABLE: str(hang_seconds)},
                pass_fds=(write,),
                process_group=0,
            )
        except BaseException:
            os.close(self._read)
            raise
        finally:
            # Only the child holds the writing end: its death closes it, and the node sees that as the end of
            # the file.
            os.close(write)
        self.pid = self._process.pid
        self.started_at = time.monotonic()
        self.beaten_at = self.started_at
        self.has_beaten = False
        self.told_to_end_at: float | None = None
        self.killed_for: str | None = None
        """Why the node killed it; None where it ended by itself."""
        self.hung = False
        self._renewed_at = self.started_at
        self._pipe_ended = False
        self._pidfd = _open_pidfd(self.pid)

    def fds(self) -> list[int]:
        """What to wait on: its beats, and its death."""
        found = [] if self._pipe_ended else [self._read]
        return found if self._pidfd is None else [*found, self._pidfd]

    def hear(self) -> None:
        """Take the beats that have come."""
        while not self._pipe_ended:
            try:
                beats = os.read(self._read, 512)
            except BlockingIOError:
                return
            if not beats:
                self._pipe_ended = True
                return
            self.beaten_at = time.monotonic()
            self.has_beaten = True

    def forgive(self) -> None:
        """Count its silence from now on: the node itself stood still."""
        self.beaten_at = time.monotonic()

    @property
    def is_killed(self) -> bool:
        return self.killed_for is not None

    def renewal_is_due(self, every_seconds: float) -> bool:
        """Whether so long has passed since this was last true; it counts from now on where it is."""
        now = time.monotonic()
        is_due = now - self._renewed_at >= every_seconds
        if is_due:
            self._renewed_at = now
        return is_due

    def silent_seconds(self) -> float:
        return time.monotonic() - self.beaten_at

    def age_seconds(self) -> float:
        return time.monotonic() - self.started_at

    def reap(self) -> int | None:
        """The exit status (negative: the signal) once it has died, and what was left of its group with it;
        None while it lives.
        """
        if self._process.returncode is not None:
            return self._process.returncode
        if not hasattr(os, "waitid"):
            return self._reap_blindly()
        try:
            # Looked at, not reaped: until then its pid is nobody else's, and so is the group that is named by
            # it.
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                return None
        except ChildProcessError:
            pass  # Somebody set SIGCHLD to be ignored: Popen says 0 for it.
        else:
            self._kill_group()
        status = self._process.wait()
        self.hear()
        self._close()
        return status

    def _reap_blindly(self) -> int | None:
        """For macOS before Python 3.13: the group is ended right after the reaping; its number stays taken
        while it has members.
        """
        status = self._process.poll()
        if status is not None:
            self._kill_group()
            self.hear()
            self._close()
        return status

    def ask_to_end(self) -> None:
        """SIGTERM: drain and end."""
        if self.told_to_end_at is None:
            self.told_to_end_at = time.monotonic()
            # Popen looks first whether it has been reaped, so that no stranger of the same pid is hit.
            self._process.send_signal(signal.SIGTERM)
            # One that was stopped (Ctrl-Z, a debugger) could not hear.
            self._process.send_signal(signal.SIGCONT)

    def kill(self, why: str) -> None:
        """SIGKILL, to its whole group."""
        if self.killed_for is None:
            self.killed_for = why
        if self._process.returncode is None:
            self._process.kill()
            self._kill_group()

    def _kill_group(self) -> None:
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass  # macOS refuses where only zombies are left in it.

    def _close(self) -> None:
        for fd in (self._read, self._pidfd):
            if fd is not None:
                os.close(fd)
        self._pipe_ended = True
        self._pidfd = None


class Place:
    """A place that a node keeps filled: who holds it, and when the next one is due."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.child: Child | None = None
        self.successor: Child | None = None
        """With newer code; it takes the place once it has come up."""
        self.due_at = 0.0
        self._young_deaths = 0

    def delay_after(self, age_seconds: float) -> float:
        """The seconds until a replacement of one that died at this age: none, but growing while they keep
        dying young.
        """
        if age_seconds >= YOUNG_SECONDS:
            self._young_deaths = 0
            return 0.0
        self._young_deaths += 1
        if self._young_deaths == 1:
            return 0.0
        return min(_FIRST_DELAY_SECONDS * 2.0 ** (self._young_deaths - 2), _LONGEST_DELAY_SECONDS)


def describe_exit(status: int) -> str:
    """How a process ended, as `was killed by SIGKILL` or `exited with 3`."""
    if status >= 0:
        return f"exited with {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _open_pidfd(pid: int) -> int | None:
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None
