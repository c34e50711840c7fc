"""Descriptors of ours beyond the three of the standard streams.

Owns one precaution. Where a step has closed a standard stream, the kernel gives its number to the next descriptor that is opened, and
whatever still writes there (a C library, a forked child, `os.write(2, ...)`) would write into it. Refuses to guard what bears that: a
pipe that only wakes.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress

_FIRST = 3


def beyond_standard(number: int) -> int:
    """`number`, or another descriptor of the same file in its place where it is that of a standard stream."""
    if number >= _FIRST:
        return number
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    finally:
        os.close(number)


def occupy_standard() -> None:
    """Give the numbers of standard streams that are closed to the null device, before SQLite opens a file.

    SQLite takes the precaution too (https://www.sqlite.org/howtocorrupt.html, 2.7), but closes the file that got such a number, and that
    drops the locks of every connection that this process has to it: whoever closes it elsewhere would take itself for the last one, and
    remove the `-wal` that we go on writing to.
    """
    with suppress(OSError):  # With no descriptor left, SQLite will get none either.
        while (number := os.open(os.devnull, os.O_RDWR)) < _FIRST:
            pass
        os.close(number)
