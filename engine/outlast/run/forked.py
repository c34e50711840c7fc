"""A process that user code has forked, and that comes back out of that code.

Owns its end. It has the memory of its agent, the claims and connections included, and only the thread that forked: going on, it would
journal the outcome a second time, or wait for ever for threads that it does not have. Refuses nothing to a child that runs another
program, or ends by itself.
"""

from __future__ import annotations

import os
import sys

_generation = 0


def generation() -> int:
    """How often this process, or one before it, was forked: another number afterwards means that this is the child."""
    return _generation


def end_child(before: int, what: str, error: BaseException | None = None) -> None:
    """Called where user code has ended, by `error` or not; does not return in a child of the process that began it."""
    if _generation == before:
        return
    status = 1
    # Whatever fails on the way: the step may have closed every stream.
    try:
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            status = error.code or 0
        elif sys.__stderr__ is not None and not sys.__stderr__.closed:  # Else its number may be that of anything.
            os.write(2, f"{what} has forked; the child that came back from it ends here.\n".encode(errors="backslashreplace"))
        sys.stdout.flush()
    finally:
        os._exit(status)


def _in_child() -> None:
    global _generation
    _generation += 1


os.register_at_fork(after_in_child=_in_child)
