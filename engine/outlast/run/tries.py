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
from ..codec import payloads
from ..codec.errors import encode_error
from ..definition.retry import Retry
from ..errors import NotStorable, OutcomeUnknown, PayloadTooLarge, RetryAfter, StepDied, StepTimeout
from ..journal.entry import COMPENSABLE, Entry
from ..text.duration import seconds
from .history import PROBE_PREFIX, Record


class WaitUntil(Struct, frozen=True, gc=False):
    """Wait durably until this engine instant."""

    due_at: int


class Write(Struct, frozen=True, gc=False):
    """Append an entry and wait for the disk."""

    entry: Entry


class Try(Struct, frozen=True, gc=False):
    """Execute the function once."""

    number: int


class Probe(Struct, frozen=True, gc=False):
    """Execute the step's probe once: what did the last try do?"""

    number: int


class Ask(Struct, frozen=True):
    """Halt: only a person can find out what try `number` did. Nothing comes after it."""

    error: BaseException
    number: int


Command = WaitUntil | Write | Try | Probe | Ask

INTERRUPTED = "its agent left it in the middle of a try"


class Tried(Struct, frozen=True):
    """What came of a try: stored output, or an error. `committed` is the entry that a `@transaction` wrote itself.

    `unknown` where nobody knows whether it took effect; `nothing` where a probe has found that it did not.
    """

    started_at: int
    output: bytes | None = None
    error: BaseException | None = None
    committed: Entry | None = None
    unknown: bool = False
    nothing: bool = False


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
    on_unknown: str = "retry",
    has_probe: bool = False,
) -> Generator[Command, Any, Entry]:
    """Run a step to its outcome; gives the entry that is to be appended (or was, by a transaction)."""
    number, due_at, started_at = 0, None, None
    if record is not None and record.tried is not None:
        number, due_at = record.tried.try_number, record.tried.due_at
        started_at = record.tried.started_at
    asks = has_probe or on_unknown != "retry"
    has_started = record is not None and record.started is not None
    began = record.began if record is not None and asks else 0
    while True:
        interrupted = began > 0
        if interrupted:
            number, began = began, 0
            tried = Tried(clock.wall(), error=OutcomeUnknown(name, INTERRUPTED), unknown=True)
        else:
            if due_at is not None:
                yield WaitUntil(due_at)
            number += 1
            if keeps_start and (asks or not has_started):
                # Of a step that asks, each try: a replay that finds it without an end knows that it was cut off.
                first = {"input": data, "flags": flags} if number == 1 or not has_started else {"flags": flags}
                yield Write(entry(path, "started", kind, name, started_at=clock.wall(), try_number=number if asks else 0, **first))
                has_started = True
            tried = yield Try(number)
        started_at = started_at or tried.started_at
        if tried.unknown and asks and tried.error is not None:
            unknown = tried.error
            if has_probe:
                probed = record.probed if record is not None and interrupted else None
                tried = yield from _probed(path, name, number, policy, probed, entry, now)
                if tried.nothing:
                    if interrupted:
                        # Nothing has happened: the try begins again, and a crash is not counted.
                        number, due_at = number - 1, None
                        continue
                    tried = Tried(tried.started_at, error=unknown)
            elif on_unknown == "halt":
                yield Ask(unknown, number)
            else:
                return entry(
                    path, "unknown", kind, name, try_number=number, started_at=started_at,
                    data=encode_error(OutcomeUnknown(name, cause_of(unknown))), **_input(keeps_start, data, flags),
                )  # fmt: skip
        if tried.committed is not None:
            return tried.committed
        if tried.error is None:
            return entry(
                path, "completed", kind, name, try_number=number, started_at=started_at, data=tried.output,
                **_input(keeps_start, data, flags),
            )  # fmt: skip
        error = tried.error
        if not is_worth_another(policy, error, number):
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


def _probed(
    path: str, name: str, asked: int, policy: Retry, last: Entry | None, entry: Entries, now: Callable[[], int]
) -> Generator[Command, Any, Tried]:
    """Find out by the probe, under the step's policy; asks a person when it gives up."""
    number, due_at = (last.try_number, last.due_at) if last is not None else (0, None)
    while True:
        if due_at is not None:
            yield WaitUntil(due_at)
        number += 1
        found: Tried = yield Probe(number)
        if found.error is None:
            return found
        if not is_worth_another(policy, found.error, number):
            yield Ask(found.error, asked)
        due_at = now() + pause(policy, found.error, number)
        yield Write(
            entry(
                PROBE_PREFIX + path, "tried", "probe", name, try_number=number, started_at=found.started_at, due_at=due_at,
                data=encode_error(found.error),
            )
        )  # fmt: skip


def cause_of(error: BaseException) -> str:
    """Why nobody knows what a try did, as the end of a sentence."""
    match error:
        case OutcomeUnknown():
            return error.cause
        case StepTimeout():
            return "it overran its timeout"
        case StepDied():
            return f"its process died, {error.how}"
        case _:
            return f"its probe gave up by {payloads.told(error, f'{type(error).__name__}: {error}')}"


def pause(policy: Retry, error: BaseException, number: int) -> int:
    """How long to wait before the next try, in microseconds: what the error asks for, else the policy's backoff."""
    if isinstance(error, RetryAfter):
        return round(seconds(error.delay, place="RetryAfter") * clock.SECOND)
    return round(policy.delay_seconds(number, random=random.random()) * clock.SECOND)


def is_worth_another(policy: Retry, error: BaseException, number: int) -> bool:
    """Whether a policy wants another try after try `number` failed so."""
    # What cannot be stored is a failed outcome: the effect has happened, and another try would repeat it.
    if isinstance(error, NotStorable | PayloadTooLarge):
        return False
    if isinstance(error, RetryAfter):
        return number < policy.tries
    return policy.wants(error, number)


def _input(keeps_start: bool, data: bytes, flags: int) -> dict[str, Any]:
    # With a started entry the input is there already.
    return {"flags": flags & ~COMPENSABLE} if keeps_start else {"input": data, "flags": flags}
