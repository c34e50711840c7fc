"""Workflows of the simulation whose runs stand in line: by a unique key, or by what a schedule says of overlaps.

Owns those workflows, the check that no two of a line are ever at work at once, and the one that the ledger says of each tick what became
of it. A run has begun with its first claim and is at work until it has ended, whatever happens to its agents in between: parked, given
back, halted or being undone it holds the line.
"""

from __future__ import annotations

from typing import Any

from outlast import Every, Schedule, continue_as_new, sleep, workflow
from outlast.clock import SECOND
from outlast.definition import registry
from outlast.states import FINAL

from . import simulated_work as work

KEY = "one"

with registry.isolated() as _made:

    @workflow
    def alone(tag: str) -> int:
        work.act(tag, 0)
        sleep("2s")
        return work.note(tag, 1)

    @workflow
    def alone_saga(tag: str) -> None:
        work.act(tag, 0)
        work.act(tag, 1)
        raise RuntimeError("no")

    @workflow
    def alone_on(tag: str, left: int = 1) -> int:
        work.note(tag, left)
        if left:
            sleep("1s")
            continue_as_new(tag, left - 1)
        return left

    @workflow
    def alone_brittle(tag: str) -> int:
        work.note(tag, 0)
        return work.fragile(tag, 1)

    @workflow(schedule=Schedule(Every("6s"), overlap="skip"))
    def tick_skips() -> None:
        sleep("8s")

    @workflow(schedule=Schedule(Every("6s"), overlap="queue_one"))
    def tick_queues() -> None:
        sleep("8s")

    @workflow(schedule=Schedule(Every("6s"), overlap="cancel_running"))
    def tick_cancels() -> None:
        sleep("8s")


for _one in _made.workflows():
    work.DEFINED.add(_one)

IN_LINE = ("alone", "alone_saga", "alone_on", "alone_brittle", "tick", "tick_skips", "tick_queues")
"""The workflows of which one run is at work at a time."""
_MOVES = "select m.task_id, t.name, m.after from move m join outlast_task t on t.id = m.task_id where t.kind = 'run' order by m.rowid"


def crowded(connection: Any) -> list[str]:
    """What was at work beside another of its line."""
    wrong = []
    at_work: dict[str, set[int]] = {name: set() for name in IN_LINE}
    for task_id, name, after in connection.execute(_MOVES):
        if (line := at_work.get(name)) is None:
            continue
        if after in FINAL:
            line.discard(task_id)
        elif after == "running":
            line.add(task_id)
            if len(line) > 1:
                wrong.append(f"runs {sorted(line)} of {name} were at work at once")
    return wrong


_EVERY = {"tick": 20, "tick_skips": 6, "tick_queues": 6, "tick_cancels": 6}
_LEDGER = "select tick, until from outlast_tick where schedule = ? and not by_hand and tick <= ? order by tick"


def unaccounted(connection: Any) -> list[str]:
    """Where the ledger says nothing of a tick that has been decided on, or two things."""
    wrong = []
    for name, cursor in connection.execute("select name, cursor from outlast_schedule").fetchall():
        rows = connection.execute(_LEDGER, (name, cursor)).fetchall()
        after = [until + _EVERY[name] * SECOND for _, until in rows]
        wrong += [
            f"{name}: after {last - _EVERY[name] * SECOND} comes {tick}"
            for last, (tick, _) in zip(after, rows[1:], strict=False)
            if last != tick
        ]
        if after and after[-1] <= cursor:
            wrong.append(f"{name}: nothing is said of what came after {rows[-1][1]}, until {cursor}")
    return wrong
