"""A crash at every point: does the workflow end as it does without one, and was nothing done twice?

Owns the plan (one execution to learn the commits of a run, then one for each of them with a crash just before, and one with
a crash just after it) and the report. Refuses to accept a difference: what a crash may change is said by the test.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..definition import Workflow
from ..errors import InvalidInput
from ..text.names import checked_whole
from .compare import Allowed, differences
from .points import CLAIM, SIDES, Point
from .trial import Outcome, Trials

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class CrashReport:
    """What was tried. `points` are the names of the uncrashed run's commits, in their order."""

    points: tuple[str, ...]
    trials: int
    crashes: int
    seconds: float


def crash_everywhere(
    workflow: Workflow[..., Any],
    /,
    *args: Any,
    ledger: str | os.PathLike[str] | None = None,
    crashes: int = 1,
    processes: bool = False,
    signals: Mapping[str, object] | None = None,
    setup: Callable[[Any], object] | None = None,
    repeatable: Collection[str] = (),
    folder: str | os.PathLike[str] | None = None,
    **kwargs: Any,
) -> CrashReport:
    """Run a workflow once, then again and again with a crash at each of its commits; hold every end against the first.

    Compared are the result or error, the status of the run and its parts, the application's own tables in the engine's file,
    and `ledger`: a file to which the test's steps append a line for each effect on the outside. A line with the step's
    idempotency key (`current().idempotency_key`) in it may come again, since the service knows the key; so may a line that a
    regular expression of `repeatable` matches whole. Any other must be there as often as without a crash.

    `crashes=2` puts a second crash into each recovery: the square of the trials. `processes` makes each life a process
    and each crash a SIGKILL. `signals` are sent at the start. `setup(connection)` makes the application's tables.
    Raises `AssertionError` that says which step did what twice.
    """
    if not isinstance(workflow, Workflow):
        raise InvalidInput(f"{workflow!r} is not a workflow.", hint="Give crash_everywhere a function that @workflow decorates.")
    checked_whole(crashes, place="crashes", least=1)
    began = time.perf_counter()
    path = None if ledger is None else Path(ledger)
    with tempfile.TemporaryDirectory(prefix="outlast-crash-", dir=folder, ignore_cleanup_errors=True) as kept:
        trials = Trials(
            Path(kept), workflow, args, kwargs,
            ledger=path, signals=signals or {}, setup=setup, processes=processes,
        )  # fmt: skip
        whole = trials.execute()
        allowed = Allowed(whole.left.chains, tuple(repeatable))
        executed = happened = 0
        found: list[str] = []
        for points, outcome in _all(trials, whole, crashes):
            executed += 1
            happened += outcome.crashes
            wrong = differences(whole, outcome, allowed)
            if wrong:
                found.append(_told(whole, outcome, points, wrong))
    if found:
        more = f"\n\nand {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise AssertionError(
            f"{workflow.name}: {len(found)} of {executed} executions with a crash end otherwise than the one without.\n\n"
            + "\n\n".join(found[:_SHOWN])
            + more
        )
    return CrashReport(whole.lives[-1], executed, happened, time.perf_counter() - began)


def _all(trials: Trials, whole: Outcome, crashes: int) -> Iterator[tuple[tuple[Point, ...], Outcome]]:
    """Every execution with up to so many crashes."""
    known: list[tuple[tuple[Point, ...], Outcome]] = [((), whole)]
    for _ in range(crashes):
        further = []
        for before, outcome in known:
            for point in _points(outcome.lives[-1]):
                points = (*before, point)
                next_outcome = trials.execute(points)
                if next_outcome.crashes == len(points):
                    further.append((points, next_outcome))
                yield points, next_outcome
        known = further


def _points(names: tuple[str, ...]) -> Iterator[Point]:
    for number, name in enumerate(names, 1):
        for side in SIDES[1:] if name.startswith(CLAIM) else SIDES:
            yield Point(number, side)


def _told(whole: Outcome, outcome: Outcome, points: tuple[Point, ...], wrong: list[str]) -> str:
    lives = (whole.lives[-1], *outcome.lives[1:])
    where = [f"killed just {point.side} the commit of {_named(names, point)}" for point, names in zip(points, lives, strict=False)]
    return f"{', then '.join(where)}:\n" + "\n".join(f"  - {line}" for line in wrong)


def _named(names: tuple[str, ...], point: Point) -> str:
    return f"«{names[point.number - 1]}» (point {point.number})" if point.number <= len(names) else f"point {point.number}"
