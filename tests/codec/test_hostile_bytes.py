"""Bytes and texts that nobody meant: every reader gives a value or one of our errors, never another one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from outlast import Cron, codec
from outlast.errors import OutlastError
from outlast.text.names import checked_name

EXAMPLES = int(os.environ.get("OUTLAST_TEST_EXAMPLES", "200"))
"""The long form is OUTLAST_TEST_EXAMPLES=5000."""

hostile = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES <= 200, suppress_health_check=list(HealthCheck)
)

VALUES: list[Any] = [
    {"a": [1, 2.5, None, True, "x"]}, (1, (2,)), {1, 2}, frozenset("ab"), b"\0\xff", datetime(2026, 3, 29, 2, 30, tzinfo=UTC),
    timedelta(days=-1), Decimal("NaN"), UUID(int=5), float("inf"), 10**400, {1: 2, (3,): 4}, {"$t": "tuple"}, bytearray(b"x"), complex,
]  # fmt: skip


def stored() -> list[bytes]:
    found = []
    for value in VALUES:
        with contextlib.suppress(OutlastError):
            found.append(codec.encode(value))
    try:
        raise ExceptionGroup("many", [ValueError("a", 1), KeyError("b")]) from OSError(2, "no", "file")
    except ExceptionGroup as error:
        found.append(codec.encode_error(error))
    return found


STORED = stored()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """What a disk may make of something stored: bytes flipped, cut out, doubled; or another's in its place."""
    data = bytearray(draw(st.sampled_from(STORED)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.integers(0, 3)):
            case 0 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[at : at + draw(st.integers(1, 8))]
            case 2:
                data[at:at] = draw(st.sampled_from([b'{"$t":"', b'"}', b"null", b"[", b'"c":"os:system"', b"\0", b"1e999", b'"v":{}']))
            case _:
                data[at:at] = draw(st.sampled_from(STORED))
    return bytes(data)


READERS: list[Callable[[bytes], object]] = [codec.decode, codec.decode_input, codec.decode_error, codec.summary, codec.readable, codec.raw]


@hostile
@given(st.one_of(damaged(), st.binary(max_size=40)))
def test_what_is_stored_is_read_or_refused_as_such(data: bytes) -> None:
    for read in READERS:
        with contextlib.suppress(OutlastError):
            read(data)


def is_one_sentence(error: OutlastError) -> None:
    assert error.message.encode().count(b"\n") == 0


FIELDS = ("*", "*/5", "1-", "-1", "1,,2", "59", "60", "jan", "7", "0-7", "5-1", "?", "L", "#", "1/2", "*/0", "٣", "99999999999")
CRON = st.one_of(st.text(max_size=30), st.lists(st.sampled_from(FIELDS), max_size=7).map(" ".join))


@hostile
@given(CRON)
def test_a_cron_text_is_a_rule_or_one_sentence(text: str) -> None:
    try:
        table = Cron(text).timetable
    except OutlastError as error:
        is_one_sentence(error)
        return
    now = 1_800_000_000_000_000
    for _ in range(3):
        following = table.next(now)
        if following is None:
            break
        assert following > now
        now = following


@hostile
@given(st.text(max_size=300) | st.integers() | st.none())
def test_a_name_is_taken_or_refused_with_one_sentence(name: Any) -> None:
    try:
        checked_name(name, place="workflow")
    except OutlastError as error:
        is_one_sentence(error)
