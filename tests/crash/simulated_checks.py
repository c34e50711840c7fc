"""What must hold when a simulation has come to its end.

Owns the record of every move of every task, kept by a trigger of its own, and the verdict: the ends of the runs, the ledger, the
journal, the moves, the invariants of `doctor`.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from outlast.doctor import doctor
from outlast.states import LEGAL, Status
from outlast.store import journal
from outlast.store.succession import last_of_line

from . import simulated_lines as lines
from . import simulated_work as work
from .simulated_shapes import SHAPES

if TYPE_CHECKING:
    from .simulation import Simulation

_RECORD = (
    "create table move (task_id integer, before text, after text, claim_before integer, claim_after integer)",
    """create trigger outlast_task_moves after update of status, claim on outlast_task
    begin insert into move values (new.id, old.status, new.status, old.claim, new.claim); end""",
    "create table booking (tag text, n integer)",
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
    checks = (_moves, _ends, _effects, _bookings, _lines, _undo, _silence, _file)
    wrong = [line for one in checks for line in one(simulation)]
    assert not wrong, "\n".join(wrong)


def _moves(simulation: Simulation) -> list[str]:
    wrong = []
    for task_id, before, after, claim_before, claim_after in simulation.store.connection().execute("select * from move order by rowid"):
        if before != after and Status(after) not in LEGAL[Status(before)]:
            wrong.append(f"task {task_id} went from {before} to {after}")
        if claim_after not in (claim_before, claim_before + 1):
            wrong.append(f"the claim of task {task_id} went from {claim_before} to {claim_after}")
        simulation.figures.takeovers += claim_after > claim_before and (task_id, claim_before) in simulation.store.taken_from
    refused = [found for found in simulation.refused if found not in simulation.store.taken_from]
    wrong += [f"a write to task {task_id} was refused, although its claim {claim} had not been lost" for task_id, claim in refused]
    return wrong


def _ends(simulation: Simulation) -> list[str]:
    wrong = []
    person = simulation.person
    connection = simulation.store.connection()
    for tag, shape in person.shapes.items():
        allowed = {SHAPES[shape].ends, SHAPES[shape].or_ends}
        if tag in person.cancelled:
            # One that came during the undo changes nothing, and nobody retries what was to be cancelled.
            allowed |= {"cancelled", "failed", "compensated"} if SHAPES[shape].fails_first else {"cancelled"}
        (status,) = connection.execute(
            "select status from outlast_task where uid = ?", (last_of_line(connection, person.runs[tag].id),)
        ).fetchone()
        if status not in allowed:
            wrong.append(f"{shape} {tag} ended {status}")
    rows = connection.execute("select status, count(*) from outlast_task where kind = 'run' group by status").fetchall()
    simulation.figures.ended.update(dict(rows))
    simulation.figures.runs += sum(count for _, count in rows)
    return wrong


def _effects(simulation: Simulation) -> list[str]:
    wrong: list[str] = []
    person, ledger = simulation.person, work.world.ledger
    simulation.figures.effects += len(ledger)
    seen = Counter(one.name for one in ledger)
    keys: dict[str, set[str]] = {}
    for one in ledger:
        keys.setdefault(one.name, set()).add(one.key)
    for name, found in keys.items():
        # What was undone is done again by a retry, under another key.
        most = 2 if name.startswith("act") and name.split()[1].split(".")[0] in person.retried else 1
        if len(found) > most:
            wrong.append(f"{name} had the idempotency keys {sorted(found)}")
    wrong += [f"{one.name} happened, although its call had to come to nothing" for one in ledger if root_of(one.tag) in person.vain]
    for tag, shape in person.shapes.items():
        lost = simulation.store.losses[tag]
        for form, times in SHAPES[shape].effects.items():
            name = form.format(tag)
            simulation.figures.repeated += max(0, seen[name] - times)
            least = 0 if tag in person.cancelled or SHAPES[shape].or_ends == "failed" else times
            if not least <= seen[name] <= times + lost:
                wrong.append(f"{name} of {shape} happened {seen[name]} times instead of {times}, with {lost} losses")
    return wrong


def _bookings(simulation: Simulation) -> list[str]:
    """A transaction happens exactly once, and so does its undo."""
    wrong = []
    person = simulation.person
    rows = simulation.store.connection().execute("select tag, sum(n > 0), sum(n < 0) from booking group by tag").fetchall()
    booked = {tag: (made, undone) for tag, made, undone in rows}
    for tag, shape in person.shapes.items():
        expected = dict.fromkeys(SHAPES[shape].books, (1, 0)) | dict.fromkeys(SHAPES[shape].unbooks, (1, 1))
        for form, times in expected.items():
            if booked.get(form.format(tag)) != times and tag not in person.cancelled:
                wrong.append(f"{form.format(tag)} of {shape} was booked and unbooked {booked.get(form.format(tag))} times")
    wrong += [f"{tag} was booked {made} and unbooked {undone} times" for tag, (made, undone) in booked.items() if made > 1 or undone > made]
    return wrong


def _lines(simulation: Simulation) -> list[str]:
    """Of the queue that takes one at a time, never two are at work; each tick that fired has its one run."""
    wrong = []
    connection = simulation.store.connection()
    narrow = {row[0] for row in connection.execute("select id from outlast_task where queue = 'narrow'")}
    at_work: set[int] = set()
    for task_id, after in connection.execute("select task_id, after from move order by rowid"):
        if task_id in narrow:
            (at_work.add if after == "running" else at_work.discard)(task_id)
            if len(at_work) > 1:
                wrong.append(f"tasks {at_work} were at work at once in a queue that takes one")
    wrong += lines.crowded(connection) + lines.unaccounted(connection)
    fired = Counter(row[0] for row in connection.execute("select run_id from outlast_tick where run_id is not null"))
    runs = Counter(row[0] for row in connection.execute("select uid from outlast_task where name glob 'tick*'"))
    if fired != runs:
        wrong.append(f"ticks fired {fired}, and their runs are {runs}")
    return wrong


def _undo(simulation: Simulation) -> list[str]:
    """Of what was undone, everything was, in the reverse order of the starts; and nothing of it happened afterwards."""
    wrong = []
    ledger = work.world.ledger
    connection = simulation.store.connection()
    ids = _ids(connection)
    for run_id in dict.fromkeys(one.run_id for one in ledger if root_of(one.tag) not in simulation.person.forced):
        mine = [one for one in ledger if one.run_id == run_id]
        undone = list(dict.fromkeys(one.n for one in mine if one.name.startswith("undo ")))
        acted = {one.n for one in mine if one.name.startswith("act ")}
        run = simulation.engine.get(run_id)
        starts = [
            json.loads(one.input)["n"] for one in journal.load(connection, ids[run_id]) if one.name == "act" and one.event == "started"
        ]
        expected = [n for n in reversed(starts) if n in undone]
        if undone != expected:
            wrong.append(f"{run_id} {mine[0].tag} was undone in the order {undone}, its steps were started in the order {starts}")
        if run.status in ("compensated", "cancelled") and not acted <= set(undone):
            wrong.append(f"{run_id} {mine[0].tag} is {run.status}, and of {acted} only {undone} were undone")
        if run.status not in ("compensated", "cancelled") and undone:
            wrong.append(f"{run_id} {mine[0].tag} is {run.status}, and {undone} were undone")
        words = [one.name.split()[0] for one in mine]
        if "undo" in words and "act" in words[words.index("undo") :]:
            wrong.append(f"{run_id} {mine[0].tag} went on while it was undone: {[one.name for one in mine]}")
    return wrong


def root_of(tag: str) -> str:
    """The tag of the run that a part with this tag belongs to."""
    return tag.rstrip("abc")


def _ids(connection: Any) -> dict[str, int]:
    return dict(connection.execute("select uid, id from outlast_task").fetchall())


def _silence(simulation: Simulation) -> list[str]:
    """Nothing of a run happens once it has ended badly. One that has completed did not wait for a process whose lease it took over."""
    connection = simulation.store.connection()
    ids = dict(connection.execute("select uid, id from outlast_task where status <> 'completed'").fetchall())
    return [
        f"{one.name} happened after its run had ended"
        for number, one in enumerate(work.world.ledger)
        if root_of(one.tag) not in simulation.person.forced
        and one.run_id in ids
        and number >= simulation.over.get(ids[one.run_id], number + 1)
    ]


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
