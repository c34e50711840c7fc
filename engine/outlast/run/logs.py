"""What a run's code logs becomes its stream `log`.

Owns one handler on the root logger of processes that carry runs, from INFO. Refuses to touch the user's handlers, and to log anything
of a replay: what was said the first time is in the stream. A record is a hint, not a journal entry: it is written soon, unfenced only by
the lease, and a crash may lose the last ones.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from .. import clock
from ..caller import active
from ..text.printable import safe_lines

_LONGEST = 8192
_installed = threading.Lock()


class RunLog(logging.Handler):
    """Hands records that are logged inside a run or a step to it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._inside = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        caller: Any = active.get()
        log = getattr(caller, "log", None)
        if log is None or getattr(self._inside, "is_logging", False) or record.name == "outlast":
            return
        self._inside.is_logging = True
        try:
            log(message_of(record))
        except Exception:  # noqa: BLE001 - logging must never break the code that logs
            self.handleError(record)
        finally:
            self._inside.is_logging = False


class _Harmless(logging.Formatter):
    """A record as Python's last resort prints it, without control characters: data that is logged may hold some."""

    def format(self, record: logging.LogRecord) -> str:
        return safe_lines(super().format(record))


def message_of(record: logging.LogRecord) -> dict[str, Any]:
    """A record as the stream keeps it."""
    text = record.getMessage()
    if record.exc_info and record.exc_info[0] is not None:
        text += "\n" + logging.Formatter().formatException(record.exc_info)
    # A lone surrogate cannot be stored; a log line is text for people, so it is escaped.
    text = text[:_LONGEST].encode("utf-8", "backslashreplace").decode()
    return {"level": record.levelname, "logger": record.name, "message": text, "at": clock.iso(clock.wall())}


def install() -> None:
    """Add the handler once, and let INFO through where nobody has set the root logger's level."""
    root = logging.getLogger()
    with _installed:
        if any(isinstance(handler, RunLog) for handler in root.handlers):
            return
        if not root.handlers:
            # Our handler would silence Python's last resort, which prints warnings to stderr.
            printing = logging.StreamHandler()
            printing.setLevel(logging.WARNING)
            printing.setFormatter(_Harmless())
            root.addHandler(printing)
        if root.level == logging.WARNING:
            for handler in root.handlers:
                if handler.level == logging.NOTSET:
                    handler.setLevel(logging.WARNING)
            root.setLevel(logging.INFO)
        root.addHandler(RunLog())
