"""The scheduler's alarm clock: APScheduler, which wakes the loop at the next tick.

Owns one APScheduler with one date job. Refuses to know schedules: they live in the tables, and the loop looks
there. Its thread, and the import, cost nothing until there is something to wait for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC
from typing import Any

from ..clock import to_datetime

_EXECUTOR = "outlast"


class Alarm:
    """Calls `ring`, on a thread of APScheduler's, at the instant set last. Belongs to one thread."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._scheduler: Any = None
        self._at: int | None = None

    def set(self, wall_at: int) -> None:
        """Ring at this wall instant, and at no other."""
        if wall_at == self._at:
            return
        if self._scheduler is None:
            self._scheduler = _started()
        self._scheduler.add_job(
            self._rang,
            "date",
            run_date=to_datetime(wall_at),
            id="due",
            executor=_EXECUTOR,
            misfire_grace_time=None,
            replace_existing=True,
        )
        self._at = wall_at

    def _rang(self) -> None:
        # Where the wall clock was set back meanwhile it rings early, and is set to the same instant again.
        self._at = None
        self._ring()

    def close(self) -> None:
        """End its thread. It may be set again."""
        scheduler, self._scheduler, self._at = self._scheduler, None, None
        if scheduler is not None:
            scheduler.shutdown(wait=False)


def _started() -> Any:
    from apscheduler.executors.debug import DebugExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    # It would tell of every job that it adds and runs.
    for name in ("apscheduler.outlast", f"apscheduler.executors.{_EXECUTOR}"):
        logging.getLogger(name).setLevel(logging.WARNING)
    scheduler = BackgroundScheduler(
        timezone=UTC,
        executors={_EXECUTOR: DebugExecutor()},
        logger=logging.getLogger("apscheduler.outlast"),
    )
    scheduler.start()
    return scheduler
