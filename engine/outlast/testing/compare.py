"""The differences between a run without a crash and the same run with one, as sentences.

Owns the rule for effects: at least once is what a step promises, so a repeated line is a defect unless the outside can
tell that it is the same effect, by its idempotency key, or the test says that it does not matter.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from .. import codec
from .left import Left
from .trial import Outcome

_ADVICE = (
    "\n    What wrote it ran again: a step, since the crash came before its outcome was on disk (give the service "
    "`current().idempotency_key`, or look first whether it was done), or the workflow's own code, at a replay (write it in a step)."
)


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which lines of the ledger may come again. `chains` are what idempotency keys begin with."""

    chains: frozenset[str]
    repeatable: tuple[str, ...]

    def repeats(self, line: str) -> bool:
        return any(f"{chain}/" in line for chain in self.chains) or any(re.fullmatch(pattern, line) for pattern in self.repeatable)


def differences(whole: Outcome, crashed: Outcome, allowed: Allowed) -> list[str]:
    """What a person has to know; nothing where the two are alike."""
    return [
        *_ends(whole.left, crashed.left),
        *_tables(whole.left, crashed.left),
        *_effects(whole, crashed, allowed),
        *(f"the file is not sound: {name}" for name in crashed.left.broken if name not in whole.left.broken),
    ]


def _ends(whole: Left, crashed: Left) -> list[str]:
    said = []
    for uid, (kind, name, status) in whole.tasks.items():
        if uid not in crashed.tasks:
            said.append(f"{kind} {name} was not started; it ended {_ended(whole, uid)} without the crash")
        elif crashed.tasks[uid][2] != status:
            said.append(f"{kind} {name} ended {_ended(crashed, uid)}; {_ended(whole, uid)} without the crash")
        elif crashed.outputs.get(uid) != whole.outputs.get(uid):
            said.append(f"{kind} {name} gave {_value(crashed.outputs.get(uid))}; {_value(whole.outputs.get(uid))} without the crash")
        elif _error(crashed.errors.get(uid)) != _error(whole.errors.get(uid)):
            said.append(f"{kind} {name} failed by {_error(crashed.errors.get(uid))}; by {_error(whole.errors.get(uid))} without the crash")
    said += [
        f"{kind} {name} was started; it is not without the crash"
        for uid, (kind, name, _) in crashed.tasks.items()
        if uid not in whole.tasks
    ]
    return said


def _tables(whole: Left, crashed: Left) -> list[str]:
    said = []
    for table in sorted({*whole.tables, *crashed.tables}):
        before, after = Counter(whole.tables.get(table, [])), Counter(crashed.tables.get(table, []))
        said += [
            f"table {table} has the row {row} {_times(after[row])}; {_times(before[row])} without the crash"
            for row in _unlike(before, after)
        ]
    return said


def _effects(whole: Outcome, crashed: Outcome, allowed: Allowed) -> list[str]:
    before, after = Counter(whole.ledger), Counter(crashed.ledger)
    said = []
    for line in _unlike(before, after):
        if after[line] > before[line] and before[line] and allowed.repeats(line):
            continue
        happened = f"the effect {line!r} happened {_times(after[line])}; {_times(before[line])} without the crash"
        said.append(f"{happened}{_ADVICE}" if after[line] > before[line] > 0 else happened)
    return said


def _unlike(before: Counter[str], after: Counter[str]) -> list[str]:
    return [one for one in dict.fromkeys([*before, *after]) if before[one] != after[one]]


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _ended(left: Left, uid: str) -> str:
    reason = left.halts.get(uid)
    return left.tasks[uid][2] if reason is None else f"halted ({reason})"


def _value(data: bytes | None) -> str:
    return "nothing" if data is None else data.decode(errors="replace")[:200]


def _error(data: bytes | None) -> str:
    return "nothing" if data is None else repr(codec.decode_error(data))[:200]
