"""Descriptors of ours beyond the three of the standard streams.

Owns one precaution. Where a step has closed a standard stream, the kernel gives its number to the next descriptor that is opened, and
whatever still writes there (a C library, a forked child, `os.write(2, ...)`) would write into it. Refuses to guard what bears that: a
pipe that only wakes, or SQLite, which takes the same precaution (https://www.sqlite.org/howtocorrupt.html, 2.7).
"""

from __future__ import annotations

import fcntl
import os

_FIRST = 3


def beyond_standard(number: int) -> int:
    """`number`, or another descriptor of the same file in its place where it is that of a standard stream."""
    if number >= _FIRST:
        return number
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _FIRST)
    finally:
        os.close(number)
