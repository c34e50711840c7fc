"""What must hold when a simulation has come to its end.

Owns the record of every move of every task, kept by a trigger of its own, and the verdict: the ends of the runs, the ledger, the
journal, the moves, the invariants of `doctor`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from outlast.doctor import doctor
from outlast.states import LEGAL, Status

from . import simulated_work as work

if TYPE_CHECKING:
    from .simulation import Simulation

_RECORD = (
    "create table move (task_id integer, before text, after text, claim_before integer, claim_after integer)",
    """create trigger outlast_task_moves after update of status, claim on outlast_task
    begin insert into move values (new.id, old.status, new.status, old.claim, new.claim); end""",
    "create table booking (tag text)",
)
_NO_CONCERN = ("free disk", "clock", "agents", "journal mode")
"""What the simulation makes so: a clock that jumps, nobody at work in the end, no fsync."""


def prepare(store: Any) -> None:
    """Have the file record its moves from now on."""
    with store.transaction() as connection:
        for statement in _RECORD:
            connection.execute(statement)


def check(simulation: Simulation) -> None:
    """Raise `AssertionError` that says all that is not as promised."""
    with simulation.store.transaction() as connection:
        connection.execute("drop trigger outlast_task_moves")
    wrong = [*_moves(simulation), *_ends(simulation), *_effects(simulation), *_file(simulation)]
    assert not wrong, "\n".join(wrong)


def _moves(simulation: Simulation) -> list[str]:
    wrong = []
    for task_id, before, after, claim_before, claim_after in simulation.store.connection().execute("select * from move order by rowid"):
        if before != after and Status(after) not in LEGAL[Status(before)]:
            wrong.append(f"task {task_id} went from {before} to {after}")
        if claim_after not in (claim_before, claim_before + 1):
            wrong.append(f"the claim of task {task_id} went from {claim_before} to {claim_after}")
        simulation.figures.takeovers += claim_after > claim_before > 0 and before != "waiting"
    return wrong


def _ends(simulation: Simulation) -> list[str]:
    wrong = []
    for run_id, (shape, tag) in simulation.started.items():
        status = simulation.engine.get(run_id).status
        simulation.figures.ended[str(status)] += 1
        if status != work.SHAPES[shape].ends:
            wrong.append(f"{shape} {tag} ended {status}")
    return wrong


def _effects(simulation: Simulation) -> list[str]:
    wrong: list[str] = []
    ledger = work.world.ledger
    simulation.figures.effects += len(ledger)
    seen = Counter(f"{one.word} {one.tag}.{one.n}" for one in ledger)
    keys: dict[str, set[str]] = {}
    for one in ledger:
        keys.setdefault(f"{one.word} {one.tag}.{one.n}", set()).add(one.key)
    wrong += [f"{name} had the idempotency keys {sorted(found)}" for name, found in keys.items() if len(found) > 1]
    booked = Counter(row[0] for row in simulation.store.connection().execute("select tag from booking"))
    expected: Counter[str] = Counter()
    for run_id, (shape, tag) in simulation.started.items():
        (task_id,) = simulation.store.connection().execute("select id from outlast_task where uid = ?", (run_id,)).fetchone()
        lost = simulation.store.losses[task_id]
        for form, times in work.SHAPES[shape].effects.items():
            name = form.format(tag)
            simulation.figures.repeated += max(0, seen[name] - times)
            if not times <= seen[name] <= times + lost:
                wrong.append(f"{name} happened {seen[name]} times instead of {times}, with {lost} losses")
        expected.update(form.format(tag) for form in work.SHAPES[shape].books)
        undone = list(dict.fromkeys(one.n for one in ledger if one.tag == tag and one.word == "undo"))
        if undone != sorted(undone, reverse=True):
            wrong.append(f"{tag} was undone in the order {undone}")
    if booked != expected:
        wrong.append(f"booked: {booked}, expected: {expected}")
    return wrong


def _file(simulation: Simulation) -> list[str]:
    connection = simulation.store.connection()
    wrong = [f"integrity_check: {row[0]}" for row in connection.execute("pragma integrity_check") if row[0] != "ok"]
    report = doctor(simulation.store)
    wrong += [f"doctor: {one['name']}: {one['detail']}" for one in report["checks"] if not one["ok"] and one["name"] not in _NO_CONCERN]
    for table, what in (("outlast_stray", "strays"), ("outlast_task where agent_id is not null", "tasks that are held")):
        (count,) = connection.execute(f"select count(*) from {table}").fetchone()
        if count:
            wrong.append(f"{count} {what} are left")
    return wrong
