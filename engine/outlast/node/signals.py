"""The signals that end a node.

Owns which those are: SIGTERM, SIGINT, and SIGHUP where the terminal's closing is not to be outlived. Refuses
to decide what they do. Only the main thread can have handlers; elsewhere a node is stopped by its `stop`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handled(stop: Callable[[int], None]) -> Iterator[None]:
    """Call `stop(number)` for each such signal inside the block; afterwards all is as it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: FrameType | None) -> None:
        stop(number)

    numbers = [signal.SIGTERM, signal.SIGINT]
    # Under nohup it is ignored, and stays so.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
