"""Cron text, and the naive wall times that it names.

Owns the reading of cron text: it checks every field itself, so that an error names the field and what is
allowed there, writes names as numbers, and leaves to cronsim what the fields mean. What cronsim says of each
kind of month is kept as a bit mask, so that "the first match from here on", "the last until here" and "how
many between" are answered without a walk over minutes. Refuses zones: a pattern knows wall times only
(minutes since 1970-01-01 00:00 on the wall); `cron.py` places them in time. Refuses texts that never match,
as 30 February.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import date, datetime
from typing import NamedTuple, NoReturn

from ..errors import InvalidInput
from ..text.counted import counted

MINUTES = 1440

_MONTHS = {
    name: number for number, name in enumerate(("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1)
}
_DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}

_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_EPOCH = date(1970, 1, 1).toordinal()
# cronsim wants an instant to start from; only its reading of the fields is used.
_SOME_DAY = datetime(2026, 1, 1)  # noqa: DTZ001
_FIRST_YEAR, _LAST_YEAR = 2, 9998


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: dict[str, int]
    special: str

    @property
    def allowed(self) -> str:
        names = list(self.names)
        also = f" or {names[0]}-{names[-1]}" if names else ""
        values = f"{self.low}-{self.high}{also}"
        return f"Allowed there: {values}, *, ranges (a-b), steps (*/n, a-b/n), lists (a,b){self.special}."


_FIELDS = (
    _Field("minute", 0, 59, {}, ""),
    _Field("hour", 0, 23, {}, ""),
    _Field("day-of-month", 1, 31, {}, ", L (the last day), LW (the last weekday)"),
    _Field("month", 1, 12, _MONTHS, ""),
    _Field("day-of-week", 0, 7, _DAYS, " (0 and 7 are Sunday), 5L (the last Friday), 1#2 (the second Monday)"),
)


class Pattern:
    """The wall times of one cron text.

    `text` is canonical (aliases and names resolved), so that two spellings of one rule compare equal.
    `by_elapsed_time` is Vixie cron's distinction: the minute or the hour begins with `*`.
    """

    def __init__(self, text: object) -> None:
        fields = _read(text)
        self.text = " ".join(fields)
        self.by_elapsed_time = fields[0].startswith("*") or fields[1].startswith("*")
        # Imported here: it costs 10 ms, and most processes define no cron schedule.
        from cronsim import CronSim, CronSimError

        never = InvalidInput(
            f"Cron {text!r} never comes: no year has such a day.",
            hint="Check day-of-month, month and day-of-week together.",
        )
        try:
            self._rule = CronSim(self.text, _SOME_DAY)
        except CronSimError:
            raise never from None
        self._times = sorted(hour * 60 + minute for hour in self._rule.hours for minute in self._rule.minutes)
        self._months = frozenset(self._rule.months)
        self._masks: dict[tuple[int, int], int] = {}
        # 2001 to 2028 hold every kind of year (leap or not, beginning on each weekday).
        found = self.first((date(2001, 1, 1).toordinal() - _EPOCH) * MINUTES)
        if found is None or found >= (date(2029, 1, 1).toordinal() - _EPOCH) * MINUTES:
            raise never

    def first(self, minute: int) -> int | None:
        """The first match at or after a wall minute."""
        day, time = divmod(minute, MINUTES)
        if time <= self._times[-1] and self._on(day):
            return day * MINUTES + self._times[bisect_left(self._times, time)]
        found = self._first_day(day + 1)
        return None if found is None else found * MINUTES + self._times[0]

    def last(self, minute: int) -> int | None:
        """The last match at or before a wall minute."""
        day, time = divmod(minute, MINUTES)
        if time >= self._times[0] and self._on(day):
            return day * MINUTES + self._times[bisect_right(self._times, time) - 1]
        found = self._last_day(day - 1)
        return None if found is None else found * MINUTES + self._times[-1]

    def count(self, start: int, stop: int) -> int:
        """The number of matches with `start <= match < stop`."""
        if stop <= start:
            return 0
        first, first_time = divmod(start, MINUTES)
        last, last_time = divmod(stop, MINUTES)
        total = self._count_days(first, last) * len(self._times)
        if first_time and self._on(first):
            total -= bisect_left(self._times, first_time)
        if last_time and self._on(last):
            total += bisect_left(self._times, last_time)
        return total

    def explain(self) -> str:
        """An English sentence without its end, as "At 02:00 every day"."""
        return str(self._rule.explain())

    def _on(self, day: int) -> bool:
        there = date.fromordinal(day + _EPOCH)
        return bool(self._mask(there.year, there.month) >> there.day & 1)

    def _first_day(self, day: int) -> int | None:
        there = date.fromordinal(day + _EPOCH)
        year, month = there.year, there.month
        mask = self._mask(year, month) >> there.day << there.day
        while not mask:
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)
            if year > _LAST_YEAR:
                return None
            mask = self._mask(year, month)
        return date(year, month, (mask & -mask).bit_length() - 1).toordinal() - _EPOCH

    def _last_day(self, day: int) -> int | None:
        there = date.fromordinal(day + _EPOCH)
        year, month = there.year, there.month
        mask = self._mask(year, month) & ((2 << there.day) - 1)
        while not mask:
            year, month = (year - 1, 12) if month == 1 else (year, month - 1)
            if year < _FIRST_YEAR:
                return None
            mask = self._mask(year, month)
        return date(year, month, mask.bit_length() - 1).toordinal() - _EPOCH

    def _count_days(self, first: int, stop: int) -> int:
        begin, end = date.fromordinal(first + _EPOCH), date.fromordinal(stop + _EPOCH)
        year, month = begin.year, begin.month
        total = -(self._mask(year, month) & ((1 << begin.day) - 1)).bit_count()
        while (year, month) != (end.year, end.month):
            total += self._mask(year, month).bit_count()
            year, month = (year + 1, 1) if month == 12 else (year, month + 1)
        return total + (self._mask(year, month) & ((1 << end.day) - 1)).bit_count()

    def _mask(self, year: int, month: int) -> int:
        """Bit `d` is set if the rule matches on day `d` of the month."""
        if month not in self._months:
            return 0
        weekday = date(year, month, 1).weekday()
        length = _length(year, month)
        mask = self._masks.get((length, weekday))
        if mask is None:
            match = self._rule.match_day
            mask = sum(1 << day for day in range(1, length + 1) if match(date(year, month, day)))
            self._masks[length, weekday] = mask
        return mask


def _length(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


def _read(text: object) -> list[str]:
    """Check cron text and write it with numbers alone."""
    if not isinstance(text, str):
        raise InvalidInput(f"Cron text must be a string, not {text!r}.", hint='As "0 2 * * *".')
    words = text.lower().split()
    if len(words) == 1 and words[0].startswith("@"):
        if words[0] == "@reboot":
            raise InvalidInput(
                "@reboot is not an instant, so no schedule can have it.",
                hint="Start the workflow where the machine starts `outlast up`.",
            )
        if words[0] not in _ALIASES:
            raise InvalidInput(f"There is no cron alias {text.strip()!r}.", hint=f"There are {', '.join(_ALIASES)}.")
        words = _ALIASES[words[0]].split()
    if len(words) != 5:
        hint = "They are minute, hour, day-of-month, month and day-of-week."
        if len(words) in (6, 7):
            hint += ' For seconds use Every("10s"); for a zone use timezone=.'
        raise InvalidInput(f"Cron {_clip(text)!r} has {counted(len(words), 'field')}; cron has 5.", hint=hint)
    return [",".join(_term(text, field, term) for term in word.split(",")) for field, word in zip(_FIELDS, words, strict=True)]


def _term(text: str, field: _Field, term: str) -> str:
    if special := _special(text, field, term):
        return special
    base, slash, step = term.partition("/")
    if slash:
        if not _is_number(step) or int(step) == 0:
            _refuse(text, field, term, "a step is a number from 1 on")
        slash = f"/{int(step)}"
    if base == "*":
        return base + slash
    start, dash, end = base.partition("-")
    low = _value(text, field, term, start)
    if not dash and not slash:
        return f"{low}"
    if not dash:
        high, end = field.high, str(field.high)
    else:
        high = _value(text, field, term, end)
    if end == "sun" and low > 0:
        high = 7
    if high < low:
        name = field.name
        wrapped = f"{start}-{field.high},{end}" if low != field.high else f"{start},{end}"
        if name != "day-of-week":
            wrapped = f"{start}-{field.high},{field.low}-{end}"
        elif end in _DAYS or start in _DAYS:
            wrapped = f"{start}-sun,mon-{end}" if end != "mon" else f"{start}-sun,mon"
        _refuse(text, field, term, f"the range runs backwards; write {wrapped}")
    # cronsim would read 3-3/4 as 3/4, which goes on to the end of the field.
    return f"{low}-{high}{slash}" if low < high else f"{low}"


def _special(text: str, field: _Field, term: str) -> str | None:
    if field.name == "day-of-month" and term in ("l", "lw"):
        return term.upper()
    if field.name != "day-of-week":
        return None
    day, hash_mark, nth = term.partition("#")
    if hash_mark:
        if not _is_number(nth) or not 1 <= int(nth) <= 5:
            _refuse(text, field, term, "after # comes which of the month, 1-5")
        return f"{_value(text, field, term, day) % 7}#{int(nth)}"
    if len(term) > 1 and term.endswith("l") and "-" not in term and "/" not in term:
        return f"{_value(text, field, term, term[:-1]) % 7}L"
    return None


def _value(text: str, field: _Field, term: str, word: str) -> int:
    if word in field.names:
        return field.names[word]
    if not word:
        _refuse(text, field, term, "something is missing" if term else "a list has an empty place")
    if not _is_number(word):
        _refuse(
            text,
            field,
            term,
            f"{_clip(word)!r} is not a {'name or ' if field.names else ''}number that belongs there",
        )
    if not field.low <= int(word) <= field.high:
        _refuse(text, field, term, f"{int(word)} is not within {field.low}-{field.high}")
    return int(word)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 9


def _refuse(text: str, field: _Field, term: str, why: str) -> NoReturn:
    raise InvalidInput(f"Cron {_clip(text)!r}: bad {field.name} {_clip(term)!r}: {why}.", hint=field.allowed)


def _clip(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
