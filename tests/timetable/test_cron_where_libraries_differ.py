"""The rows of the table in docs/cron.md: what well-kept libraries make of a text, beside what is made of it here."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.cron import CronTrigger
from croniter import croniter
from cronsim import CronSim

from outlast.timetable import Cron

Ticks = Callable[[str, str, datetime, int], list[datetime]]


def by_cronsim(text: str, zone: str, after: datetime, count: int) -> list[datetime]:
    ticks = CronSim(text, after.astimezone(ZoneInfo(zone)))
    return [next(ticks) for _ in range(count)]


def by_croniter(text: str, zone: str, after: datetime, count: int) -> list[datetime]:
    ticks = croniter(text, after.astimezone(ZoneInfo(zone)))
    return [ticks.get_next(datetime) for _ in range(count)]


def by_apscheduler(text: str, zone: str, after: datetime, count: int) -> list[datetime]:
    trigger = CronTrigger.from_crontab(text, timezone=ZoneInfo(zone))
    found: list[datetime] = []
    while len(found) < count:
        last = found[-1] if found else None
        found.append(trigger.get_next_fire_time(last, after if last is None else last + timedelta(microseconds=1)))
    return found


def wall(text: str, zone: str, after: datetime, count: int, ticks: Ticks) -> list[str]:
    return [f"{tick.astimezone(ZoneInfo(zone)):%d %H:%M}" for tick in ticks(text, zone, after, count)]


def here(text: str, zone: str, after: datetime, count: int) -> list[datetime]:
    return Cron(text, timezone=zone).next(after, count)


@pytest.mark.parametrize(
    ("library", "text", "zone", "day", "ours", "theirs"),
    [
        (by_cronsim, "*/7 3 * * 5-7", "Australia/Lord_Howe", "2026-10-03", ["04 03:00", "04 03:07"], ["04 03:35", "04 03:42"]),
        (by_cronsim, "0 0 * * 6-6/1", "UTC", "2026-01-01", ["03 00:00", "10 00:00"], ["03 00:00", "04 00:00"]),
        (by_croniter, "30 2 * * *", "Europe/Berlin", "2026-10-24", ["25 02:30", "26 02:30"], ["25 02:30", "25 02:30"]),
        (by_croniter, "*/30 2 * * *", "Europe/Berlin", "2026-03-28", ["30 02:00", "30 02:30"], ["29 03:00", "30 02:00"]),
        (by_croniter, "0 0 */2 * fri", "UTC", "2026-01-01", ["09 00:00", "23 00:00"], ["02 00:00", "03 00:00"]),
        (by_apscheduler, "0 0 * * 0", "UTC", "2026-01-01", ["04 00:00", "11 00:00"], ["05 00:00", "12 00:00"]),
        (by_apscheduler, "0 0 13 * fri", "UTC", "2026-01-01", ["02 00:00", "09 00:00"], ["13 00:00", "13 00:00"]),
        (by_apscheduler, "0 0 * * *", "America/Santiago", "2026-09-05", ["06 01:00", "07 00:00"], ["07 00:00", "08 00:00"]),
    ],
)
def test_a_library_reads_cron_text_otherwise(library: Ticks, text: str, zone: str, day: str, ours: list[str], theirs: list[str]) -> None:
    noon = datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(hours=12)
    assert wall(text, zone, noon, 2, here) == ours
    assert wall(text, zone, noon, 2, library) == theirs
