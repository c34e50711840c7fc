"""Cron text: what it means, and what is refused with which sentence."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outlast.errors import InvalidInput
from outlast.timetable import Cron
from outlast.timetable.zone import find_zone

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


def days(text: str, count: int, after: datetime = NEW_YEAR) -> list[str]:
    return [tick.strftime("%a %d %b %Y") for tick in Cron(text).next(after, count)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 jan *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * sun"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("@Daily", " 0  00 *\t* * "),
        ("0 0 * JAN-mar MON-Fri", "0 0 * 1-3 1-5"),
        ("0 0 * * fri-sun", "0 0 * * 5-7"),
        ("5/20 * * * *", "5-59/20 * * * *"),
        ("3-3/4 * * * *", "3 * * * *"),
        ("0 0 * * friL", "0 0 * * 5L"),
        ("0 0 * * 7#2", "0 0 * * sun#2"),
    ],
)
def test_two_spellings_of_one_rule_are_the_same_rule(one: str, other: str) -> None:
    assert Cron(one).fingerprint == Cron(other).fingerprint
    assert Cron(one).next(NEW_YEAR, 20) == Cron(other).next(NEW_YEAR, 20)


def test_0_and_7_are_sunday() -> None:
    assert days("0 0 * * 0", 2) == days("0 0 * * 7", 2) == days("0 0 * * sun", 2) == ["Sun 04 Jan 2026", "Sun 11 Jan 2026"]


def test_day_of_month_or_day_of_week_when_neither_begins_with_a_star() -> None:
    assert days("0 0 13 * fri", 4) == [
        "Fri 02 Jan 2026",
        "Fri 09 Jan 2026",
        "Tue 13 Jan 2026",
        "Fri 16 Jan 2026",
    ]


def test_day_of_month_and_day_of_week_when_one_begins_with_a_star() -> None:
    assert days("0 0 */2 * fri", 2) == ["Fri 09 Jan 2026", "Fri 23 Jan 2026"]
    assert days("0 0 1-7 * */7", 2) == ["Sun 04 Jan 2026", "Sun 01 Feb 2026"]


def test_L_is_the_last_day_and_LW_the_last_weekday() -> None:
    assert days("0 0 L * *", 3) == ["Sat 31 Jan 2026", "Sat 28 Feb 2026", "Tue 31 Mar 2026"]
    assert days("0 0 LW * *", 3) == ["Fri 30 Jan 2026", "Fri 27 Feb 2026", "Tue 31 Mar 2026"]
    assert days("0 0 * * 5L", 2) == ["Fri 30 Jan 2026", "Fri 27 Feb 2026"]


def test_a_hash_names_which_weekday_of_the_month() -> None:
    assert days("0 0 * * mon#1,wed#3", 3) == ["Mon 05 Jan 2026", "Wed 21 Jan 2026", "Mon 02 Feb 2026"]
    assert days("0 0 * * sat#5", 2) == ["Sat 31 Jan 2026", "Sat 30 May 2026"]


def test_29_february_comes_in_leap_years() -> None:
    assert days("0 0 29 2 *", 2) == ["Tue 29 Feb 2028", "Sun 29 Feb 2032"]
    assert days("0 0 29 2 */7", 1, datetime(2061, 1, 1, tzinfo=UTC)) == ["Sun 29 Feb 2088"]


def test_a_fifth_monday_in_february_is_rare_but_comes() -> None:
    assert days("0 0 * 2 mon#5", 2) == ["Mon 29 Feb 2044", "Mon 29 Feb 2072"]


@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31 feb *", "0 0 */30 2 mon#5", "0 0 */30 * mon#2"])
def test_an_instant_that_never_comes_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="never comes"):
        Cron(text)


def test_30_february_or_a_monday_comes_on_mondays() -> None:
    assert days("0 0 30 2 mon", 1) == ["Mon 02 Feb 2026"]


@pytest.mark.parametrize(
    ("text", "field", "allowed"),
    [
        ("60 * * * *", "minute '60'", "0-59"),
        ("-1 * * * *", "minute '-1'", "0-59"),
        ("* 24 * * *", "hour '24'", "0-23"),
        ("* * 0 * *", "day-of-month '0'", "1-31"),
        ("* * 32 * *", "day-of-month '32'", "1-31"),
        ("* * 15W * *", "day-of-month '15w'", "1-31"),
        ("* * L/2 * *", "day-of-month 'l/2'", "the last day"),
        ("* * * 13 *", "month '13'", "jan-dec"),
        ("* * * foo *", "month 'foo'", "jan-dec"),
        ("* * * * 8", "day-of-week '8'", "0 and 7 are Sunday"),
        ("* * * * monday", "day-of-week 'monday'", "sun-sat"),
        ("* * * * mon#6", "day-of-week 'mon#6'", "which of the month, 1-5"),
        ("* * * * mon#", "day-of-week 'mon#'", "1-5"),
        ("*/0 * * * *", "minute '*/0'", "from 1 on"),
        ("*/x * * * *", "minute '*/x'", "from 1 on"),
        ("*/ * * * *", "minute '*/'", "from 1 on"),
        ("*-5 * * * *", "minute '*-5'", "0-59"),
        ("1,,2 * * * *", "minute ''", "empty place"),
        ("1- * * * *", "minute '1-'", "missing"),
        ("? * * * *", "minute '?'", "0-59"),
        ("١ * * * *", "minute", "0-59"),
        ("9" * 5000 + " * * * *", "minute", "0-59"),
        ("* 5-2 * * *", "hour '5-2'", "write 5-23,0-2"),
        ("* * * * fri-mon", "day-of-week 'fri-mon'", "write fri-sun,mon"),
    ],
)
def test_a_bad_field_is_named_with_what_is_allowed_there(text: str, field: str, allowed: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Cron(text)
    assert f"bad {field}" in str(refused.value)
    assert allowed in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has 0 fields; cron has 5"),
        ("10m", "has 1 field; cron has 5"),
        ("* * * *", "has 4 fields"),
        ("0 * * * * *", 'Every("10s")'),
        ("@reboot", "not an instant"),
        ("@dayly", "@daily"),
    ],
)
def test_a_text_that_is_no_cron_text_is_refused(text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        Cron(text)
    assert says in str(refused.value)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must be a string"):
        Cron(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Europe/Berln", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("berlin", "Europe/Berlin"),
        ("utc", "UTC"),
    ],
)
def test_an_unknown_zone_is_refused_with_a_close_name(name: str, meant: str) -> None:
    with pytest.raises(InvalidInput, match=f"no time zone '{name}'. Did you mean '{meant}'"):
        Cron("@daily", timezone=name)


@pytest.mark.parametrize("data", [b"TZif2" + b"\0" * 20, b"TZif2" + b"\0" * 30 + b"\1" * 9], ids=["header", "body"])
def test_the_data_of_a_zone_that_are_cut_short_are_named_and_utc_needs_none(tmp_path: Path, data: bytes) -> None:
    before = zoneinfo.TZPATH
    (tmp_path / "Cut_Short").write_bytes(data)
    zoneinfo.reset_tzpath(to=[str(tmp_path)])
    try:
        with pytest.raises(InvalidInput, match="data of the time zone 'Cut_Short' cannot be read"):
            Cron("@daily", timezone="Cut_Short")
        assert find_zone("UTC").info is UTC
    finally:
        zoneinfo.reset_tzpath(to=before)


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "Europe", "Mars/Olympus", "a\0b", 5, "/etc/localtime"])
def test_what_is_no_zone_at_all_is_refused(name: object) -> None:
    with pytest.raises(InvalidInput):
        Cron("@daily", timezone=name)  # type: ignore[arg-type]
