"""Cron ticks away from clock shifts, beside croniter, a library that is not in use here.

Where the two differ, and why (the drawn expressions avoid what is in this table; each row has its test
below):

- `0 0 1-7 * */7` is the first Sunday here, and by default either of both there: with Vixie, a `*` in front means AND.
- `0 0 * * 6-6/1` is Saturday here, and every day there: a range of one value has one value.
- `0 0 * * 5-1` is refused here, and wraps around there: with Vixie, a range runs forwards.
- `* * * * * 30` is refused here, and means seconds there: cron has five fields.

In what looks odd, the two agree: `0 0 * * */3` is Sunday, Wednesday and Saturday, since 0-7 in steps of 3 are 0, 3, 6; `0 0 * * */7` is
Sunday, since 0 and 7 are one day; `0 0 L * fri` is the last day or a Friday, since neither begins with `*`.
"""

from __future__ import annotations

import random
import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from croniter import CroniterError, croniter

from outlast.errors import InvalidInput
from outlast.timetable import Cron
from outlast.timetable.zone import find_zone

from . import oracle

DAY = 86_400


def drawn(dice: random.Random) -> str:
    """A random expression without ranges of one value, which croniter reads as the whole field."""
    return re.sub(r"\b(\d+)-\1\b(/\d+)?", r"\1", oracle.expression(dice))


def test_thousands_of_random_rules_tick_in_utc_as_croniter_has_it() -> None:
    dice = random.Random(2026)
    for _ in range(2_000):
        text = drawn(dice)
        after = datetime(1990, 1, 1, tzinfo=UTC) + timedelta(minutes=dice.randint(0, 60 * 365 * 1440))
        try:
            cron = Cron(text)
        except InvalidInput:
            with pytest.raises(CroniterError):
                croniter(text, after, implement_cron_bug=True, max_years_between_matches=50).get_next()
            continue
        other = croniter(text, after, implement_cron_bug=True, max_years_between_matches=50)
        expected = [other.get_next(datetime) for _ in range(4)]
        assert cron.next(after, 4) == expected, text
        assert cron.previous(expected[-1] - timedelta(seconds=1)) == expected[-2], text
        assert cron.previous(expected[-1]) == expected[-1], text


def test_random_rules_in_random_zones_away_from_shifts_tick_as_croniter_has_it() -> None:
    dice = random.Random(4711)
    zones = sorted(available_timezones())
    compared = 0
    while compared < 400:
        zone = dice.choice(zones)
        start = int(datetime(1975, 1, 1, tzinfo=UTC).timestamp()) + dice.randint(0, 80 * 365) * DAY
        calm = list(find_zone(zone).stretches(start - 2 * DAY, start + 20 * DAY))
        if len(calm) > 1 or calm[0].offset % 60:
            continue
        text = drawn(dice)
        after = datetime.fromtimestamp(start, ZoneInfo(zone))
        try:
            cron = Cron(text, timezone=zone)
        except InvalidInput:
            continue
        found = [tick for tick in cron.next(after, 3) if tick.timestamp() < start + 18 * DAY]
        other = croniter(text, after, implement_cron_bug=True, max_years_between_matches=50)
        for tick in found:
            assert other.get_next(datetime).timestamp() == tick.timestamp(), (text, zone, after)
            compared += 1


def test_a_star_in_front_means_and_where_croniter_by_default_means_or() -> None:
    after = datetime(2026, 1, 1, tzinfo=UTC)
    text = "0 0 1-7 * */7"
    assert Cron(text).next(after)[0].day == 4
    assert croniter(text, after).get_next(datetime).day == 2
    assert croniter(text, after, implement_cron_bug=True).get_next(datetime).day == 4


def test_a_range_of_one_value_has_one_value_where_croniter_has_the_whole_field() -> None:
    after = datetime(2026, 1, 1, tzinfo=UTC)
    assert [tick.day for tick in Cron("0 0 * * 6-6/1").next(after, 2)] == [3, 10]
    assert croniter("0 0 * * 6-6/1", after).get_next(datetime).day != 3


@pytest.mark.parametrize("text", ["0 0 * * */3", "0 0 * * */7", "0 0 * * */2", "0 0 L * fri"])
def test_the_week_in_steps_begins_on_sunday_here_and_there(text: str) -> None:
    after = datetime(2026, 1, 1, tzinfo=UTC)
    other = croniter(text, after, implement_cron_bug=True)
    assert Cron(text).next(after, 20) == [other.get_next(datetime) for _ in range(20)]


@pytest.mark.parametrize("text", ["0 0 * * 5-1", "* * * * * 30"])
def test_what_croniter_takes_beyond_cron_is_refused(text: str) -> None:
    assert croniter.is_valid(text)
    with pytest.raises(InvalidInput):
        Cron(text)
