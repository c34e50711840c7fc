"""The tries of one step: how often, after which pauses, and what goes to the journal.

Owns the policy loop, written once as a generator that asks its driver to wait, to write or to try; the sync and the async run drive the
same one. Refuses I/O and user code: a `Try` is executed by the driver. Crashes are not counted here: a try that a crash cut off simply
runs again with the same idempotency key.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator
from typing import Any

from msgspec import Struct

from .. import clock
from ..codec_errors import encode_error
from ..duration import seconds
from ..errors import NotStorable, PayloadTooLarge, RetryAfter
from ..operations import COMPENSABLE, Entry
from ..retry import Retry
from .history import Record


class WaitUntil(Struct, frozen=True, gc=False):
    """Wait durably until this engine instant."""

    due_at: int


class Write(Struct, frozen=True, gc=False):
    """Append an entry and wait for the disk."""

    entry: Entry


class Try(Struct, frozen=True, gc=False):
    """Execute the function once."""

    number: int


Command = WaitUntil | Write | Try


class Tried(Struct, frozen=True):
    """What came of a try: stored output, or an error. `committed` is the entry that a `@transaction` wrote itself."""

    started_at: int
    output: bytes | None = None
    error: BaseException | None = None
    committed: Entry | None = None
    unknown: bool = False


Entries = Callable[..., Entry]


def tries(
    path: str,
    kind: str,
    name: str,
    *,
    policy: Retry,
    data: bytes,
    flags: int,
    keeps_start: bool,
    record: Record | None,
    entry: Entries,
    now: Callable[[], int],
) -> Generator[Command, Any, Entry]:
    """Run a step to its outcome; gives the entry that is to be appended (or was, by a transaction)."""
    number, due_at, started_at = 0, None, None
    if record is not None and record.tried is not None:
        number, due_at = record.tried.try_number, record.tried.due_at
        started_at = record.tried.started_at
    if keeps_start and (record is None or record.started is None):
        started = entry(path, "started", kind, name, input=data, flags=flags, started_at=clock.wall())
        yield Write(started)
    while True:
        if due_at is not None:
            yield WaitUntil(due_at)
        number += 1
        tried: Tried = yield Try(number)
        started_at = started_at or tried.started_at
        if tried.committed is not None:
            return tried.committed
        if tried.error is None:
            return entry(
                path, "completed", kind, name, try_number=number, started_at=started_at, data=tried.output,
                **_input(keeps_start, data, flags),
            )  # fmt: skip
        error = tried.error
        if not _is_worth_another(policy, error, number):
            return entry(
                path, "failed", kind, name, try_number=number, started_at=started_at, data=encode_error(error),
                **_input(keeps_start, data, flags),
            )  # fmt: skip
        due_at = now() + pause(policy, error, number)
        yield Write(
            entry(
                path,
                "tried",
                kind,
                name,
                try_number=number,
                started_at=started_at,
                due_at=due_at,
                data=encode_error(error),
                **_input(keeps_start, data, flags),
            )  # fmt: skip
        )


def pause(policy: Retry, error: BaseException, number: int) -> int:
    """How long to wait before the next try, in microseconds: what the error asks for, else the policy's backoff."""
    if isinstance(error, RetryAfter):
        return round(seconds(error.delay, place="RetryAfter") * clock.SECOND)
    return round(policy.delay_seconds(number, random=random.random()) * clock.SECOND)


def _is_worth_another(policy: Retry, error: BaseException, number: int) -> bool:
    # What cannot be stored is a failed outcome: the effect has happened, and another try would repeat it.
    if isinstance(error, NotStorable | PayloadTooLarge):
        return False
    if isinstance(error, RetryAfter):
        return number < policy.tries
    return policy.wants(error, number)


def _input(keeps_start: bool, data: bytes, flags: int) -> dict[str, Any]:
    # With a started entry the input is there already.
    return {"flags": flags & ~COMPENSABLE} if keeps_start else {"input": data, "flags": flags}
