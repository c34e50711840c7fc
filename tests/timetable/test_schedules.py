"""Schedules: options, intervals, instants, foreign triggers, lists, and the way to data and back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.calendarinterval import CalendarIntervalTrigger
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.clock import SECOND, from_datetime
from outlast.errors import InvalidDefinition, InvalidInput
from outlast.timetable import COUNT_LIMIT, At, Cron, Every, Schedule, from_json, schedules_of

NOW = datetime(2026, 7, 1, 12, 0, 30, tzinfo=UTC)
YEAR = 365 * 86_400 * SECOND

TIMETABLES = [
    Cron("*/10 * * * *", timezone="Europe/Berlin"),
    Cron("30 2 * * *", timezone="Europe/Berlin"),
    Cron("0 0,1 * * mon-fri", timezone="America/Santiago"),
    Cron("*/25 */5 */9 * *", timezone="Australia/Lord_Howe"),
    Cron("7 1 1 * *", start=datetime(2020, 1, 1), end=datetime(2029, 1, 1)),
    Every("7h", start=datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)),
    Every("1d"),
    At(datetime(2024, 5, 5, tzinfo=UTC)),
    Schedule(["0 0 * * *", Cron("0 */6 * * *"), At(datetime(2024, 5, 5, tzinfo=UTC))]),
    Schedule(CronTrigger(hour="3,9", timezone="Europe/Berlin")),
    Schedule(IntervalTrigger(hours=5, start_date=datetime(2023, 1, 1, tzinfo=UTC))),
]


@given(
    schedule=st.sampled_from(TIMETABLES),
    after=st.integers(1_600_000_000, 1_900_000_000),
    length=st.integers(0, 200 * 3600),
)
@settings(max_examples=250, deadline=None)
def test_next_latest_and_count_agree_on_the_ticks(schedule: Schedule, after: int, length: int) -> None:
    table = schedule.timetable
    after, until = after * SECOND, (after + length) * SECOND
    ticks = []
    tick = table.next(after)
    while tick is not None and tick <= until:
        ticks.append(tick)
        tick = table.next(tick)
    assert ticks == sorted(set(ticks))
    assert table.count(after, until) == len(ticks)
    assert table.latest(until, after=after) == (ticks[-1] if ticks else None)
    if ticks:
        assert table.latest(until) == ticks[-1]
        assert table.latest(ticks[-1]) == ticks[-1]
        assert table.latest(ticks[-1] - 1, after=after) == (ticks[-2] if len(ticks) > 1 else None)


def test_years_of_downtime_with_a_tick_every_minute_cost_milliseconds() -> None:
    for zone in ("UTC", "America/Havana"):
        table = Cron("* * * * *", timezone=zone).timetable
        now = from_datetime(NOW)
        began = time.perf_counter()
        latest = table.latest(now, after=now - 5 * YEAR)
        count = table.count(now - 5 * YEAR, now)
        assert time.perf_counter() - began < 0.1
        assert latest == now - 30 * SECOND
        assert count == 5 * 365 * 1440


def test_the_next_tick_costs_far_less_than_a_millisecond() -> None:
    for text in ("* * * * *", "0 2 * * *", "0 0 29 2 */7", "*/7 3 * * 5-7"):
        table = Cron(text, timezone="Australia/Lord_Howe").timetable
        at = from_datetime(NOW)
        table.next(at)
        began = time.perf_counter()
        for _ in range(50):
            found = table.next(at)
            assert found is not None
            at = found
            if text.startswith("0 0"):
                at = from_datetime(NOW)
        assert (time.perf_counter() - began) / 50 < 0.005


def test_ticks_end_with_the_calendar() -> None:
    table = Cron("* * * * *", timezone="Europe/Berlin").timetable
    beyond = from_datetime(datetime(9999, 6, 1, tzinfo=UTC))
    assert table.next(beyond) is None
    assert Every("1h").timetable.next(beyond) is None
    assert Cron("0 0 * * *").timetable.next(beyond) is None
    assert table.next(-(10**18)) is not None


def test_an_interval_counts_from_its_start_or_from_1970() -> None:
    assert Every("10m").next(NOW)[0] == datetime(2026, 7, 1, 12, 10, tzinfo=UTC)
    anchored = Every("10m", start=datetime(2026, 7, 1, 11, 59, 7, tzinfo=UTC))
    assert anchored.next(NOW, 2) == [
        datetime(2026, 7, 1, 12, 9, 7, tzinfo=UTC),
        datetime(2026, 7, 1, 12, 19, 7, tzinfo=UTC),
    ]
    assert anchored.next(NOW - timedelta(days=9)) == [datetime(2026, 7, 1, 11, 59, 7, tzinfo=UTC)]


def test_an_interval_is_elapsed_time_whatever_the_zone_does() -> None:
    start = datetime(2026, 10, 24, 22, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    ticks = Every("90m", start=start).next(start, 8)
    assert {after - before for before, after in pairwise(ticks)} == {timedelta(minutes=90)}


def test_an_instant_ticks_once() -> None:
    schedule = At(datetime(2026, 7, 2, tzinfo=UTC))
    assert schedule.next(NOW, 5) == [datetime(2026, 7, 2, tzinfo=UTC)]
    assert schedule.next(datetime(2026, 7, 2, tzinfo=UTC)) == []
    assert At("2026-07-02T00:00:00Z") == schedule


def test_start_and_end_are_inclusive_and_naive_ones_are_in_the_zone() -> None:
    schedule = Cron("0 2 * * *", timezone="Europe/Berlin", start=datetime(2026, 7, 3, 2), end=datetime(2026, 7, 4, 2))
    assert schedule.next(NOW, 9) == [datetime(2026, 7, 3, tzinfo=UTC), datetime(2026, 7, 4, tzinfo=UTC)]
    assert schedule.previous(NOW) is None
    assert schedule.previous(NOW + timedelta(days=99)) == datetime(2026, 7, 4, tzinfo=UTC)


def test_instants_are_in_utc_so_that_their_differences_hold_in_a_repeated_hour() -> None:
    ticks = Cron("*/30 * * * *", timezone="Europe/Berlin").next(datetime(2026, 10, 24, 23, 50, tzinfo=UTC), 4)
    assert {after - before for before, after in pairwise(ticks)} == {timedelta(minutes=30)}
    assert all(tick.tzinfo is UTC for tick in ticks)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"catch_up": "some"}, "'latest', 'all', 'none'"),
        ({"catch_up": None}, "'latest'"),
        ({"overlap": "queue"}, "'queue_one'"),
        ({"catch_up_window": "-1d"}, "negative"),
        ({"catch_up_window": "soon"}, "duration"),
        ({"jitter": -1}, "negative"),
        ({"jitter": "-5s"}, "negative"),
        ({"jitter": float("nan")}, "jitter"),
        ({"jitter": True}, "jitter"),
        ({"start": "tomorrow"}, "ISO 8601"),
        ({"start": date(2026, 1, 1)}, "datetime"),
        ({"start": datetime(2026, 1, 2), "end": datetime(2026, 1, 1)}, "before it starts"),
        ({"start": datetime(2026, 1, 1, 3), "end": datetime(2026, 1, 1, 4)}, "never ticks"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": 3}, "name"),
    ],
)
def test_a_bad_option_is_refused_when_the_schedule_is_made(options: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Cron("0 0 * * *", **options)  # type: ignore[arg-type]
    assert says in str(refused.value)


@pytest.mark.parametrize("interval", ["0s", 0, "-5m", "10ms", "often", None, float("inf"), True, timedelta(seconds=-1)])
def test_a_bad_interval_is_refused(interval: object) -> None:
    with pytest.raises(InvalidInput):
        Every(interval)  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [None, 5, "noon", date(2026, 1, 1)])
def test_a_bad_instant_is_refused(at: object) -> None:
    with pytest.raises(InvalidInput):
        At(at)  # type: ignore[arg-type]


def test_an_instant_out_of_range_is_refused_in_any_zone() -> None:
    for start in ("0001-01-01", "0001-12-31T23:59Z"):
        with pytest.raises(InvalidInput, match="start of .* is out of range"):
            Cron("@daily", timezone="Pacific/Apia", start=start)
    with pytest.raises(InvalidInput, match="9999-12-31T00:00Z' is out of range"):
        At("9999-12-31T00:00Z")
    assert Cron("@daily", end="9999-12-31T23:59:59Z").next(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("trigger", [None, 5, [], object(), NOW, CronTrigger, {"cron": "* * * * *"}])
def test_what_is_no_trigger_is_refused(trigger: object) -> None:
    with pytest.raises(InvalidDefinition):
        Schedule(trigger)


def test_a_schedule_around_one_with_options_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="one place"):
        Schedule(Cron("@daily", overlap="allow"), name="x")


def test_jitter_is_the_same_in_every_process_and_within_its_limit() -> None:
    schedule = Every("1m", jitter="10s")
    delays = [schedule.jitter_seconds("report", tick) for tick in range(2_000)]
    assert delays == [Every("1m", jitter=10).jitter_seconds("report", tick) for tick in range(2_000)]
    assert all(0 <= delay < 10 for delay in delays)
    assert 4.5 < sum(delays) / len(delays) < 5.5
    assert schedule.jitter_seconds("other", 1) != schedule.jitter_seconds("report", 1)
    assert schedule.jitter_seconds("report", 1_782_907_230_000_000) == 9.140511
    assert Every("1m").jitter_seconds("report", 1) == 0


def test_a_fingerprint_follows_the_ticks_and_nothing_else() -> None:
    plain = Cron("0 2 * * *", timezone="Europe/Berlin")
    same = Cron("0  2 * * *", timezone="Europe/Berlin", overlap="allow", jitter=3, catch_up="all", name="x", input=[1])
    assert plain.fingerprint == same.fingerprint
    others = [
        Cron("0 3 * * *", timezone="Europe/Berlin"),
        Cron("0 2 * * *", timezone="Europe/Vienna"),
        Cron("0 2 * * *", timezone="Europe/Berlin", start=NOW),
        Every("1d"),
        Every("1d", start=NOW),
    ]
    assert len({plain.fingerprint, *(other.fingerprint for other in others)}) == 6
    # Stored in tables: it must not change from release to release.
    assert plain.fingerprint == Cron("0 2 * * *", timezone=ZoneInfo("Europe/Berlin")).fingerprint == "0975cfea6767996a1962b277"


@pytest.mark.parametrize(
    "schedule",
    [
        Cron(
            "0 2 * * MON-fri",
            timezone="Europe/Berlin",
            name="n",
            catch_up="all",
            catch_up_window=None,
            overlap="allow",
        ),
        Cron("@daily", start=datetime(2026, 1, 1), end=datetime(2027, 1, 1), jitter="90s"),
        Every("90s", start=NOW, overlap="queue_one"),
        At(NOW, catch_up="none", catch_up_window="2h"),
        Schedule(["@daily", Every("5h"), At(NOW)]),
        schedules_of([Cron("@daily", end=NOW), Every("5h", start=NOW)], "two")["two"],
    ],
)
def test_a_schedule_goes_to_data_and_back(schedule: Schedule) -> None:
    data = json.loads(json.dumps(schedule.to_json()))
    back = from_json(data)
    assert back == schedule
    assert back.fingerprint == schedule.fingerprint
    assert back.to_json() == data
    assert back.describe() == schedule.describe()


@pytest.mark.parametrize("data", [{}, {"trigger": {}}, {"trigger": {"kind": "moon"}}, {"trigger": {"kind": "cron"}}])
def test_data_that_is_no_schedule_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        from_json(data)


def test_a_foreign_trigger_cannot_come_back_from_data() -> None:
    data = Schedule(CronTrigger(hour=3)).to_json()
    assert json.loads(json.dumps(data)) == data
    with pytest.raises(InvalidInput, match="lives in code"):
        from_json(data)


def test_a_list_is_one_schedule_that_ticks_when_any_of_it_does() -> None:
    found = schedules_of(["0 0 * * *", Cron("0 */12 * * *")], "report")
    assert list(found) == ["report"]
    assert [tick.hour for tick in found["report"].next(NOW, 4)] == [0, 12, 0, 12]


def test_named_entries_of_a_list_are_schedules_of_their_own() -> None:
    found = schedules_of(["@daily", Cron("@weekly", name="weekly", overlap="allow", input={"a": 1})], "report")
    assert list(found) == ["report", "weekly"]
    assert found["weekly"].overlap == "allow"


def test_unnamed_entries_of_a_list_with_different_options_are_refused() -> None:
    with pytest.raises(InvalidDefinition, match="options"):
        schedules_of(["@daily", Cron("@weekly", overlap="allow")], "report")


@pytest.mark.parametrize(
    "value",
    [[], [Cron("@daily", name="x"), Cron("@weekly", name="x")], ["@daily", Cron("@weekly", name="report")]],
)
def test_an_empty_list_and_two_of_one_name_are_refused(value: object) -> None:
    with pytest.raises(InvalidDefinition):
        schedules_of(value, "report")


def test_an_apscheduler_trigger_ticks_as_it_does_there() -> None:
    trigger = CronTrigger(hour="*/6", minute=5, timezone="Europe/Berlin")
    expected = []
    fire = trigger.get_next_fire_time(None, NOW)
    for _ in range(10):
        assert fire is not None
        expected.append(fire.astimezone(UTC))
        fire = trigger.get_next_fire_time(fire, fire)
    assert Schedule(trigger).next(NOW, 10) == expected


def test_an_apscheduler_interval_without_a_start_is_the_same_in_every_process() -> None:
    first, second = Schedule(IntervalTrigger(minutes=7)), Schedule(IntervalTrigger(minutes=7))
    assert first.fingerprint == second.fingerprint == Every("7m").fingerprint
    assert first.next(NOW, 3) == second.next(NOW, 3)


def test_an_apscheduler_trigger_that_only_steps_is_stepped() -> None:
    schedule = Schedule(CalendarIntervalTrigger(months=1, hour=4, start_date=date(2020, 1, 31), timezone="UTC"))
    assert schedule.next(NOW)[0] == datetime(2026, 7, 31, 4, tzinfo=UTC)
    assert schedule.previous(NOW) == datetime(2026, 5, 31, 4, tzinfo=UTC)


def test_an_apscheduler_date_ticks_once() -> None:
    schedule = Schedule(DateTrigger(datetime(2026, 7, 2, tzinfo=UTC)))
    assert schedule.next(NOW, 3) == [datetime(2026, 7, 2, tzinfo=UTC)]
    assert schedule.next(NOW + timedelta(days=2), 3) == []


def test_the_jitter_of_an_apscheduler_trigger_becomes_the_schedules() -> None:
    trigger = CronTrigger(hour=3, jitter=120, timezone="UTC")
    schedule = Schedule(trigger)
    assert schedule.jitter_limit_seconds == 120
    assert schedule.next(NOW) == [datetime(2026, 7, 2, 3, tzinfo=UTC)]
    assert trigger.jitter == 120
    nested = Schedule(OrTrigger([CronTrigger(hour=3, jitter=5, timezone="UTC"), CronTrigger(hour=4, timezone="UTC")]))
    assert nested.jitter_limit_seconds == 5
    assert nested.next(NOW, 2) == [datetime(2026, 7, 2, 3, tzinfo=UTC), datetime(2026, 7, 2, 4, tzinfo=UTC)]


def test_the_latest_of_a_foreign_trigger_is_found_without_a_walk_over_years() -> None:
    table = Schedule(CronTrigger(minute="*", timezone="UTC")).timetable
    now = from_datetime(NOW)
    began = time.perf_counter()
    assert table.latest(now, after=now - 5 * YEAR) == now - 30 * SECOND
    assert time.perf_counter() - began < 0.5


def test_a_foreign_trigger_is_counted_to_a_limit() -> None:
    class Minutes:
        def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
            return (now + timedelta(seconds=59, microseconds=999_999)).replace(second=0, microsecond=0)

    table = Schedule(Minutes()).timetable
    now = from_datetime(NOW) - 30 * SECOND
    assert table.count(now, now + COUNT_LIMIT * 60 * SECOND) == COUNT_LIMIT
    assert table.count(now, now + (COUNT_LIMIT + 1) * 60 * SECOND) is None


class FromNow:
    """As one writes them: `first` says what it answers where nothing has fired yet."""

    def __init__(self, first: timedelta, *steps: timedelta | None) -> None:
        self.first, self.steps = first, steps

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        if previous is None:
            return now + self.first
        step = self.steps[previous.year % len(self.steps)]
        return None if step is None else previous + step


@pytest.mark.parametrize("first", [timedelta(), timedelta(minutes=7)], ids=str)
def test_a_trigger_that_only_adds_a_step_counts_from_where_an_interval_does(first: timedelta) -> None:
    schedule = Schedule(FromNow(first, timedelta(minutes=7)))
    assert schedule.next(NOW, 3) == Every("7m").next(NOW, 3)
    assert schedule.previous(NOW) == Every("7m").previous(NOW)


@pytest.mark.parametrize("steps", [(None,), (timedelta(0),), (timedelta(minutes=1), timedelta(minutes=2))], ids=str)
def test_a_trigger_that_begins_whenever_it_is_asked_is_refused(steps: tuple[timedelta | None, ...]) -> None:
    with pytest.raises(InvalidDefinition, match="begins whenever it is asked"):
        Schedule(FromNow(timedelta(minutes=1), *steps))


def test_a_trigger_that_stands_still_is_refused_instead_of_looping() -> None:
    class Still:
        def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
            return NOW

    with pytest.raises(InvalidDefinition, match="does not get past"):
        Schedule(Still()).next(NOW + timedelta(days=1))


def test_a_trigger_that_answers_without_a_zone_is_refused() -> None:
    class Naive:
        def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
            return datetime(2030, 1, 1)

    with pytest.raises(InvalidDefinition, match="aware"):
        Schedule(Naive()).next(NOW)


def test_what_a_trigger_raises_is_told_with_its_name() -> None:
    class Broken:
        def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
            raise KeyError("calendar")

    with pytest.raises(InvalidDefinition, match="Broken raised KeyError: 'calendar'"):
        Schedule(Broken()).next(NOW)


def test_a_foreign_trigger_has_the_same_fingerprint_in_every_process() -> None:
    code = (
        "from apscheduler.triggers.cron import CronTrigger; from outlast.timetable import Schedule;"
        "print(Schedule(CronTrigger(hour=3, timezone='Europe/Berlin')).fingerprint)"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == Schedule(CronTrigger(hour=3, timezone="Europe/Berlin")).fingerprint
    assert other != Schedule(CronTrigger(hour=4, timezone="Europe/Berlin")).fingerprint


def test_a_schedule_is_an_apscheduler_trigger_where_one_is_wanted() -> None:
    trigger = Cron("30 2 * * *", timezone="Europe/Berlin").trigger()
    assert isinstance(trigger, BaseTrigger)
    first = trigger.get_next_fire_time(None, datetime(2026, 10, 25, 0, 30, tzinfo=UTC))
    assert first == datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert trigger.get_next_fire_time(first, first) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    assert At(NOW).trigger().get_next_fire_time(NOW, NOW) is None


def test_neither_apscheduler_nor_cronsim_is_imported_with_the_package() -> None:
    code = "import sys, outlast.timetable;print([name for name in ('apscheduler', 'cronsim', 'tzlocal') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_schedule_describes_itself_in_one_line() -> None:
    schedule = Cron("0 2 * * *", timezone="Europe/Berlin", jitter="30s")
    assert schedule.describe() == "cron 0 2 * * * (Europe/Berlin): At 02:00 every day, up to 30s late"
    assert Every("90m").describe() == "every 1h 30m"
    assert repr(At(NOW)) == "<At once, at 2026-07-01T12:00:30.000Z>"
