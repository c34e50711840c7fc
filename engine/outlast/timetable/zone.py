"""Time zones as stretches of constant offset.

Owns the lookup of a zone by its IANA name and the question that the cron rule asks: which stretches of time,
each with one offset from UTC, does this interval consist of? Refuses fixed offsets and abbreviations ("CET"
apart, which the IANA has): a rule that is stored must mean the same tomorrow and on another machine. The
stretches exist because `fold` answers only for one repeated or skipped hour, while zones have skipped whole
days and moved by odd seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import NamedTuple

from ..errors import InvalidInput

FIRST = -62_100_000_000
"""The first second that rules look at, in year 2; `LAST` is the last, in year 9998. Beyond, datetime
overflows.
"""

LAST = 253_370_000_000

DAY = 86_400

# The closest two shifts of any zone in the IANA data are four days apart; a look every day and a half misses
# none.
_PROBE = 1 << 17
_BLOCK = _PROBE << 6


class Stretch(NamedTuple):
    """`start <= instant < stop`, in seconds since 1970, where local time is UTC plus `offset` seconds."""

    start: int
    stop: int
    offset: int


class Zone:
    """One time zone. Get it by `find_zone`, so that all rules of a zone share what was found out about it."""

    def __init__(self, name: str, info: tzinfo) -> None:
        self.name = name
        self.info = info
        self._blocks: dict[int, list[tuple[int, int]]] = {}

    def offset(self, seconds: int) -> int:
        """Local time less UTC at an instant, in seconds."""
        # Not by `utcoffset()`: that of a stand-in for datetime, like freezegun's, which drops `fold`, is the first pass's in the second.
        wall, utc = (datetime.fromtimestamp(seconds, info).replace(tzinfo=None) for info in (self.info, UTC))
        offset = wall - utc
        return offset.days * DAY + offset.seconds

    def stretches(self, start: int, stop: int) -> Iterator[Stretch]:
        """Cut `start <= instant < stop` into stretches, in order."""
        start, stop = max(start, FIRST), min(stop, LAST)
        if self.name == "UTC":
            if start < stop:
                yield Stretch(start, stop, 0)
            return
        pending: Stretch | None = None
        for number in range(start // _BLOCK, (stop - 1) // _BLOCK + 1 if start < stop else start // _BLOCK):
            pieces = self._block(number)
            for index, (piece, offset) in enumerate(pieces):
                end = pieces[index + 1][0] if index + 1 < len(pieces) else (number + 1) * _BLOCK
                low, high = max(piece, start), min(end, stop)
                if low >= high:
                    continue
                if pending is not None and pending.offset == offset:
                    pending = Stretch(pending.start, high, offset)
                    continue
                if pending is not None:
                    yield pending
                pending = Stretch(low, high, offset)
        if pending is not None:
            yield pending

    def _block(self, number: int) -> list[tuple[int, int]]:
        found = self._blocks.get(number)
        if found is None:
            # Two threads may both compute a block; both get the same, and either may stay.
            found = self._blocks[number] = self._probe(number * _BLOCK)
        return found

    def _probe(self, start: int) -> list[tuple[int, int]]:
        pieces = [(start, self.offset(start))]
        for at in range(start, start + _BLOCK, _PROBE):
            after = self.offset(at + _PROBE)
            if after != pieces[-1][1]:
                shift = self._shift(at, at + _PROBE)
                if shift < start + _BLOCK:
                    pieces.append((shift, after))
        return pieces

    def _shift(self, before: int, after: int) -> int:
        """The first second with the offset of `after`."""
        offset = self.offset(after)
        while after - before > 1:
            middle = (before + after) // 2
            if self.offset(middle) == offset:
                after = middle
            else:
                before = middle
        return after


def find_zone(name: str | tzinfo | None) -> Zone:
    """The zone of an IANA name or a `ZoneInfo`; None is the machine's own. Raises `InvalidInput` with a close
    name.
    """
    if name is None:
        return _named(_local_name())
    if isinstance(name, tzinfo):
        if name is UTC:
            return _named("UTC")
        key = getattr(name, "key", None)
        if not isinstance(key, str):
            raise InvalidInput(
                f"{name!r} is not a named time zone.",
                hint='Give an IANA name, as "Europe/Berlin" ("Etc/GMT-2" is two hours ahead of UTC).',
            )
        name = key
    if not isinstance(name, str):
        raise InvalidInput(f"A time zone is an IANA name, not {name!r}.", hint='As "Europe/Berlin".')
    return _named(name)


@lru_cache(maxsize=1024)
def _named(name: str) -> Zone:
    if name in ("UTC", "Etc/UTC"):
        return Zone("UTC", UTC)  # It needs no data, and a machine may have lost them.
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

    try:
        return Zone(name, ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        if isinstance(error, ValueError) and name in available_timezones():
            raise _unreadable(name, error) from None
        raise InvalidInput(f"There is no time zone {name!r}.", hint=_close(name)) from None
    except Exception as error:  # noqa: BLE001 - what zoneinfo raises for a damaged file is not documented
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> InvalidInput:
    return InvalidInput(
        f"The data of the time zone {name!r} cannot be read on this machine: {error}.",
        hint="Install the system's time zones anew (tzdata), and look at PYTHONTZPATH.",
    )


def _close(name: str) -> str:
    from difflib import get_close_matches
    from zoneinfo import available_timezones

    zones = available_timezones()
    if not zones:
        return "This machine has no time zones but UTC: install tzdata, or look at PYTHONTZPATH."
    names = {known.lower(): known for known in sorted(zones)}
    tails = {known.rsplit("/", 1)[-1].lower(): known for known in sorted(zones, reverse=True)}
    wanted = name.strip().lower().replace(" ", "_")
    tail = wanted.rsplit("/", 1)[-1]
    found = names.get(wanted) or tails.get(tail)
    if found is None:
        near = get_close_matches(wanted, names, 1, 0.75)
        near_tail = get_close_matches(tail, tails, 1, 0.75)
        found = names[near[0]] if near else tails[near_tail[0]] if near_tail else None
    return f"Did you mean {found!r}?" if found else 'Give an IANA name, as "Europe/Berlin" or "UTC".'


def _local_name() -> str:
    # APScheduler brings tzlocal along.
    from tzlocal import get_localzone_name

    try:
        name = get_localzone_name()
    except Exception as error:  # noqa: BLE001 - tzlocal raises several types for a machine that is set up oddly
        raise InvalidInput(f"This machine's time zone cannot be told: {error}.", hint="Name one with timezone=.") from None
    return str(name or "UTC")
