"""Timetables: which instants a schedule names. Pure: no I/O, and `now` is always an argument.

Owns the public `Cron`, `Every`, `At` and `Schedule`, the protocol `Timetable` that the scheduler role asks,
the reading of what people may write in their place, and the rules of `catch_up`. Refuses to keep state: what has
fired is the store's, and is an argument too; who fires is the scheduler's. APScheduler and cronsim are imported
where they are first needed, never with this package.
"""

from __future__ import annotations

from .rules import from_json, from_text, schedules_of
from .schedule import At, CatchUp, Cron, Every, Options, Overlap, Schedule
from .table import COUNT_LIMIT, Timetable

__all__ = [
    "COUNT_LIMIT",
    "At",
    "CatchUp",
    "Cron",
    "Every",
    "Options",
    "Overlap",
    "Schedule",
    "Timetable",
    "from_json",
    "from_text",
    "schedules_of",
]
