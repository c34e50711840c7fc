"""Cron ticks where wall time repeats or is skipped, against a walk over wall time under the Vixie rule."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from freezegun import freeze_time

from outlast.errors import InvalidInput
from outlast.timetable import Cron
from outlast.timetable.zone import Zone, find_zone

from . import oracle

DAY = 86_400
SECOND = 1_000_000

# zone, an instant of a shift (UTC), what happens there
SHIFTS = [
    ("Europe/Berlin", "2026-03-29T01:00", "an hour is skipped"),
    ("Europe/Berlin", "2026-10-25T01:00", "an hour repeats"),
    ("America/New_York", "2026-03-08T07:00", "an hour is skipped"),
    ("America/New_York", "2026-11-01T06:00", "an hour repeats"),
    ("Australia/Lord_Howe", "2026-10-03T15:30", "half an hour is skipped"),
    ("Australia/Lord_Howe", "2026-04-04T15:00", "half an hour repeats"),
    ("Pacific/Chatham", "2026-09-26T14:00", "an hour at 02:45 is skipped"),
    ("Pacific/Chatham", "2026-04-04T14:00", "an hour until 03:45 repeats"),
    ("Antarctica/Troll", "2026-03-29T01:00", "two hours are skipped"),
    ("Antarctica/Troll", "2026-10-25T01:00", "two hours repeat"),
    ("America/Santiago", "2026-09-06T04:00", "midnight is skipped"),
    ("America/Santiago", "2026-04-05T03:00", "the hour before midnight repeats"),
    ("America/Asuncion", "2023-10-01T04:00", "midnight is skipped"),
    ("America/Asuncion", "2024-03-24T03:00", "the hour before midnight repeats"),
    ("Asia/Beirut", "2026-03-28T22:00", "midnight is skipped"),
    ("Asia/Beirut", "2026-10-24T21:00", "the hour before midnight repeats"),
    ("Africa/Cairo", "2026-04-23T22:00", "midnight is skipped"),
    ("Africa/Casablanca", "2026-02-15T02:00", "Ramadan"),
    ("Europe/Dublin", "2026-10-25T01:00", "negative summer time"),
    ("Pacific/Apia", "2011-12-30T10:00", "a day is skipped"),
    ("Pacific/Fakaofo", "2011-12-30T11:00", "a day is skipped"),
    ("Pacific/Kwajalein", "1969-09-30T13:00", "23 hours repeat"),
    ("Pacific/Kwajalein", "1993-08-21T12:00", "a day is skipped"),
    ("Pacific/Kiritimati", "1994-12-31T10:40", "a day is skipped"),
    ("America/Juneau", "1867-10-18T15:00", "a day repeats, offsets have odd seconds"),
    ("Asia/Manila", "1844-12-31T15:56", "a day is skipped, offsets have odd seconds"),
    ("Pacific/Apia", "1892-07-04T12:00", "a day repeats, offsets have odd seconds"),
    ("Africa/Monrovia", "1972-01-07T00:44", "44.5 minutes are skipped"),
    ("Europe/Amsterdam", "1937-06-30T23:40", "28 seconds are skipped"),
    ("Asia/Pyongyang", "2015-08-14T15:00", "half an hour repeats"),
    ("Asia/Pyongyang", "2018-05-04T15:00", "half an hour is skipped"),
    ("America/Caracas", "2007-12-09T07:00", "half an hour repeats"),
    ("Antarctica/Casey", "2010-03-04T15:00", "three hours repeat"),
    ("Antarctica/Vostok", "1994-01-31T17:00", "seven hours repeat"),
]

FAVOURITES = [
    "* * * * *",
    "*/7 3 * * 5-7",
    "0 0 * * *",
    "30 2 * * *",
    "0,15,30,45 0-3 * * *",
    "0 */2 * * *",
    "*/20 2 * * *",
    "17 * * * *",
    "0 2,3 * * *",
    "59 23 * * *",
    "0-59 2 * * *",
    "5/10 1-4 * * *",
]


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def ours(cron: Cron, start: int, stop: int) -> list[int]:
    found = []
    at = start * SECOND - 1
    while (tick := cron.timetable.next(at)) is not None and tick < stop * SECOND:
        assert tick % SECOND == 0
        found.append(tick // SECOND)
        at = tick
    return found


@pytest.mark.parametrize(("zone", "at", "what"), SHIFTS, ids=[f"{zone}-{at[:10]}" for zone, at, _ in SHIFTS])
def test_ticks_over_a_shift_are_those_of_a_walk_over_wall_time(zone: str, at: str, what: str) -> None:
    dice = random.Random(f"{zone}{at}")
    middle = seconds(at)
    start, stop = middle - DAY - 60 * dice.randint(0, 400), middle + DAY * 5 // 4
    for text in [*FAVOURITES, *(oracle.expression(dice, near_midnight=True) for _ in range(8))]:
        expected = oracle.ticks(text, zone, start, stop)
        try:
            cron = Cron(text, timezone=zone)
        except InvalidInput:
            assert not expected
            continue
        assert ours(cron, start, stop) == expected, text
        # The same ticks asked for in the other ways, from instants inside the shift too.
        assert cron.timetable.count(start * SECOND - 1, stop * SECOND - 1) == len(expected)
        for edge in [middle + 60 * dice.randint(-200, 200) + dice.randint(0, 59) for _ in range(12)]:
            before = [tick for tick in expected if tick <= edge]
            after = [tick for tick in expected if tick > edge]
            latest = cron.timetable.latest(edge * SECOND, after=start * SECOND - 1)
            assert latest == (before[-1] * SECOND if before else None), (text, edge)
            assert cron.timetable.count(start * SECOND - 1, edge * SECOND) == len(before), (text, edge)
            assert cron.timetable.count(edge * SECOND, stop * SECOND - 1) == len(after), (text, edge)
            if after:
                assert cron.timetable.next(edge * SECOND) == after[0] * SECOND


def test_ticks_over_shifts_of_zones_drawn_at_random_are_those_of_the_walk() -> None:
    dice = random.Random(20261004)
    zones = sorted(name for name in available_timezones() if "/" in name)
    compared = 0
    for zone in dice.sample(zones, 30):
        found = oracle.shifts(zone, year := dice.randint(1900, 2037), year)
        for at in dice.sample(found, min(1, len(found))):
            for text in [oracle.expression(dice, near_midnight=True) for _ in range(6)]:
                expected = oracle.ticks(text, zone, at - DAY, at + DAY)
                try:
                    cron = Cron(text, timezone=zone)
                except InvalidInput:
                    assert not expected
                    continue
                assert ours(cron, at - DAY, at + DAY) == expected, (zone, at, text)
                compared += 1
    assert compared > 50


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Africa/Casablanca", "Australia/Lord_Howe", "Africa/Freetown", "UTC"])
def test_a_zone_is_cut_into_stretches_at_its_shifts(zone: str) -> None:
    for year in (1939, 1985, 2026, 2087):
        start = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
        stop = int(datetime(year + 1, 1, 1, tzinfo=UTC).timestamp())
        found = list(find_zone(zone).stretches(start, stop))
        assert [stretch.start for stretch in found] == [start, *oracle.shifts(zone, year, year)]
        assert [stretch.stop for stretch in found] == [*(stretch.start for stretch in found[1:]), stop]
        info = ZoneInfo(zone)
        for stretch in found:
            for at in (stretch.start, stretch.stop - 1):
                offset = datetime.fromtimestamp(at, info).utcoffset()
                assert offset == timedelta(seconds=stretch.offset)


def local(text: str, zone: str, after: str, count: int) -> list[str]:
    found = Cron(text, timezone=zone).next(datetime.fromisoformat(after), count)
    return [tick.astimezone(ZoneInfo(zone)).strftime("%d %H:%M %z") for tick in found]


def test_a_fixed_time_that_is_skipped_comes_just_after_the_gap() -> None:
    assert local("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 2) == ["29 03:00 +0200", "30 02:30 +0200"]


def test_two_fixed_times_in_one_gap_are_one_tick() -> None:
    assert local("0,30 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00", 3) == [
        "29 03:00 +0200",
        "29 03:30 +0200",
        "30 02:00 +0200",
    ]


def test_a_fixed_time_that_repeats_comes_at_the_first_pass_only() -> None:
    assert local("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 2) == ["25 02:30 +0200", "26 02:30 +0100"]


def test_a_wildcard_goes_through_both_passes() -> None:
    assert local("*/30 2 * * *", "Europe/Berlin", "2026-10-24T12:00", 5) == [
        "25 02:00 +0200",
        "25 02:30 +0200",
        "25 02:00 +0100",
        "25 02:30 +0100",
        "26 02:00 +0100",
    ]


def test_a_wildcard_has_no_ticks_in_a_gap() -> None:
    assert local("*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00", 1) == ["30 02:00 +0200"]


def test_no_tick_is_lost_after_lord_howe_skips_half_an_hour() -> None:
    assert local("*/7 3 * * 5-7", "Australia/Lord_Howe", "2026-10-04T00:00", 9) == [
        *(f"04 03:{minute:02} +1100" for minute in range(0, 60, 7))
    ]


def test_a_daily_rule_at_midnight_does_not_lose_the_day_without_midnight() -> None:
    assert local("0 0 * * *", "America/Santiago", "2026-09-05T12:00", 2) == [
        "06 01:00 -0300",
        "07 00:00 -0300",
    ]


def test_a_skipped_day_is_made_up_once_when_it_is_over() -> None:
    assert local("0 2 * * *", "Pacific/Apia", "2011-12-28T12:00", 4) == [
        "29 02:00 -1000",
        "31 00:00 +1400",
        "31 02:00 +1400",
        "01 02:00 +1400",
    ]


@pytest.mark.parametrize(
    ("text", "zone", "day", "expected"),
    [
        ("0,30 2,3 * * *", "Europe/Berlin", "2026-03-29", "03:00 03:30"),
        ("*/30 2 * * *", "Europe/Berlin", "2026-03-29", ""),
        (
            "0 */2 * * *",
            "Europe/Berlin",
            "2026-03-29",
            "00:00 04:00 06:00 08:00 10:00 12:00 14:00 16:00 18:00 20:00 22:00",
        ),
        ("17 1-3 * * *", "Europe/Berlin", "2026-10-25", "01:17 02:17 03:17"),
        ("17 * * * *", "Asia/Beirut", "2026-03-29", " ".join(f"{hour:02}:17" for hour in range(1, 24))),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-04", "02:30"),
        ("0 0 * * *", "America/Santiago", "2026-09-06", "01:00"),
        ("30 0 * * *", "Asia/Beirut", "2026-03-29", "01:00"),
        ("30 1 * * *", "Antarctica/Troll", "2026-10-25", "01:30"),
        ("0 2 * * *", "Pacific/Apia", "2011-12-31", "00:00 02:00"),
    ],
)
def test_the_examples_of_the_documentation_hold(text: str, zone: str, day: str, expected: str) -> None:
    info = ZoneInfo(zone)
    begin = datetime.fromisoformat(day).replace(tzinfo=info).timestamp()
    ticks = Cron(text, timezone=zone).next(datetime.fromtimestamp(begin - 1, UTC), 30)
    local = [tick.astimezone(info) for tick in ticks]
    assert " ".join(f"{tick:%H:%M}" for tick in local if f"{tick:%Y-%m-%d}" == day) == expected


def test_a_repeated_hour_ticks_in_both_passes_where_freezegun_stands_in_for_datetime() -> None:
    """Its datetimes drop `fold` where they come from an instant."""
    berlin = Zone("Europe/Berlin", ZoneInfo("Europe/Berlin"))  # One that has not been asked yet: zones keep what they found out.
    with freeze_time("2026-10-24 20:00"):
        assert [berlin.offset(1_792_882_800 + hour * 3600) for hour in range(4)] == [7200, 7200, 3600, 3600]
