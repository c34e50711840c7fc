"""The one place that reads the time.

Owns two clocks: `wall()` (microseconds since 1970, UTC; jumps when somebody sets it) and `elapsed()` (microseconds since boot,
suspend included; never falls). Refuses to know about files: engine time, which carries elapsed time across boots, is kept by
the store from these two. Tests replace `current` by a `ManualClock`, or freeze the wall clock with freezegun.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

SECOND = 1_000_000
"""Instants and durations in the store are integers of microseconds."""

# Linux: CLOCK_BOOTTIME counts suspend. macOS: its CLOCK_MONOTONIC does.
_ELAPSED = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT_ID_COMMAND = ("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid")


def read_boot_id(path: Path = _BOOT_ID, command: Sequence[str] = _BOOT_ID_COMMAND) -> str:
    """What names this boot: Linux has it in a file, macOS prints it."""
    try:
        return path.read_text().strip()
    except OSError:
        pass
    import subprocess

    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        printed = ""
    else:
        printed = done.stdout.strip()
    # The last resort is the boot instant, to ten seconds: it moves when somebody sets the wall clock.
    return printed or f"boot-{round((time.time() - time.clock_gettime(_ELAPSED)) / 10)}"


class Clock(Protocol):
    def wall(self) -> int: ...

    def elapsed(self) -> int: ...

    def boot_id(self) -> str: ...


class SystemClock:
    """The machine's clocks."""

    def __init__(self) -> None:
        self._boot_id = read_boot_id()

    def wall(self) -> int:
        return int(time.time() * SECOND)

    def elapsed(self) -> int:
        return time.clock_gettime_ns(_ELAPSED) // 1000

    def boot_id(self) -> str:
        return self._boot_id


class ManualClock:
    """Both clocks in a test's hand."""

    def __init__(self, *, wall: int = 1_700_000_000 * SECOND, elapsed: int = 1_000 * SECOND) -> None:
        self._wall = wall
        self._elapsed = elapsed
        self._boot_id = "manual"

    def wall(self) -> int:
        return self._wall

    def elapsed(self) -> int:
        return self._elapsed

    def boot_id(self) -> str:
        return self._boot_id

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self._wall += round(seconds * SECOND)
        self._elapsed += round(seconds * SECOND)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward, or back with a negative number; no time passes."""
        self._wall += round(seconds * SECOND)

    def reboot(self, *, down_seconds: float) -> None:
        """Pass `down_seconds` with the machine off: a new boot, whose elapsed time starts anew."""
        self._wall += round(down_seconds * SECOND)
        self._elapsed = SECOND
        self._boot_id += "'"


current: Clock = SystemClock()


@contextmanager
def use(clock: Clock) -> Iterator[Clock]:
    """Read the time from `clock` inside the block. For tests."""
    global current
    before, current = current, clock
    try:
        yield clock
    finally:
        current = before


def wall() -> int:
    return current.wall()


def elapsed() -> int:
    return current.elapsed()


def boot_id() -> str:
    return current.boot_id()


def to_datetime(wall_at: int) -> datetime:
    """The aware UTC datetime of a wall instant."""
    seconds, microseconds = divmod(wall_at, SECOND)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)


def from_datetime(value: datetime) -> int:
    """The wall instant of a datetime; a naive one is local time, as everywhere in Python."""
    aware = value if value.tzinfo is not None else value.astimezone()
    delta = aware - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * SECOND + delta.microseconds


def iso(wall_at: int) -> str:
    """ISO 8601 in UTC with `Z`, to the millisecond."""
    return to_datetime(wall_at).isoformat(timespec="milliseconds").replace("+00:00", "Z")
