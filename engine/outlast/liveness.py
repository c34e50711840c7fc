"""The pulse of a child of `outlast up`: proves, without the file, that its loop still turns.

Owns the pipe from a child to its node, on the child's side. A byte says "I live"; a pipe that nobody reads
any more says that the node is gone: then the child sends itself the SIGTERM that the node would have sent,
drains and ends. Refuses to need the database or another thread: what it must tell of is precisely a loop that
is held up by a lock, a full disk or the interpreter. Outside a node it does nothing.
"""

from __future__ import annotations

import faulthandler
import math
import os
import signal
import time
from collections.abc import MutableMapping
from contextlib import suppress

from .store.descriptor import beyond_standard

FD_VARIABLE = "OUTLAST_LIVENESS_FD"
HANG_VARIABLE = "OUTLAST_LIVENESS_HANG"

BEAT_SECONDS = 0.5
"""How often a byte is written at most; the agent may call `beat` as often as it likes, and must at least once
a second.
"""

_ARM_SECONDS = 10.0


class Pulse:
    """The child's side. Call `beat` from the loop whose life is to be proved, once a second or more often."""

    def __init__(self, environ: MutableMapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        # Taken out: what this process starts must not beat in its stead, nor keep the pipe open after its
        # death.
        fd = environ.pop(FD_VARIABLE, "")
        hang = environ.pop(HANG_VARIABLE, "")
        self._fd = int(fd) if fd.isdecimal() else -1
        self._hang_seconds = float(hang) if hang else 0.0
        # Our own: where a step has closed or replaced `sys.stderr`, the timer could not be set anew, and the one of before would go off.
        self._stderr = -1
        if self._hang_seconds:
            with suppress(OSError):  # There may be no stderr to write to.
                self._stderr = beyond_standard(os.dup(2))
        self._beaten_at = -math.inf
        self._armed_at = -math.inf
        self.is_orphaned = False
        """The node is gone: drain and end."""
        if self._fd >= 0:
            try:
                os.set_inheritable(self._fd, False)
                os.set_blocking(self._fd, False)
            except OSError:
                self._fd = -1
        # At once: from here on silence means something. Before, it may be the import of much code.
        self.beat()

    @property
    def has_node(self) -> bool:
        """Whether this process is a child of `up`, and its node lives."""
        return self._fd >= 0 and not self.is_orphaned

    def beat(self) -> bool:
        """Say "I live"; false once the node is gone. Costs a look at the clock when called again too soon."""
        if not (self._fd >= 0 or self.is_orphaned):
            return True
        now = time.monotonic()
        if now - self._beaten_at >= BEAT_SECONDS:
            self._beaten_at = now
            self._arm(now)
            if not self.is_orphaned:
                self._write()
        return not self.is_orphaned

    def _write(self) -> None:
        try:
            os.write(self._fd, b".")
        except BlockingIOError:
            pass  # Full: the node stands still, but it is there.
        except OSError:
            self.is_orphaned = True
            self._close()
            os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None:
        """End the proof in good order, at the end of the process."""
        if self._fd >= 0:
            self._close()
        if self._stderr >= 0:
            faulthandler.cancel_dump_traceback_later()
            os.close(self._stderr)
            self._stderr = -1

    def _arm(self, now: float) -> None:
        """Let a thread of C end this process should it hang for long over the limit: an orphan that holds the
        interpreter has no node that would kill it, and cannot see that by itself. Where it hung goes to
        stderr.
        """
        if self._stderr >= 0 and now - self._armed_at >= min(_ARM_SECONDS, self._hang_seconds / 2):
            self._armed_at = now
            with suppress(RuntimeError):  # The system has no thread left.
                faulthandler.dump_traceback_later(2 * self._hang_seconds + _ARM_SECONDS, exit=True, file=self._stderr)

    def _close(self) -> None:
        os.close(self._fd)
        self._fd = -1
