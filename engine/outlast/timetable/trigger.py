"""A timetable as an APScheduler 3 trigger, for its scheduler to wake by.

Owns nothing but the adapter. Imported only where a scheduler is built, because APScheduler is slow to import.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from apscheduler.triggers.base import BaseTrigger

from ..clock import from_datetime, to_datetime
from .table import Timetable


class TimetableTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler 3 has no types
    """Fires at a timetable's ticks: after the previous one, or from now on where there is none."""

    __slots__ = ("timetable",)

    def __init__(self, timetable: Timetable) -> None:
        self.timetable = timetable

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        after = from_datetime(previous_fire_time or now - timedelta(microseconds=1))
        tick = self.timetable.next(after)
        return None if tick is None else to_datetime(tick)

    def __str__(self) -> str:
        return self.timetable.describe()
