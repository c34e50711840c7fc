"""The state machine of a task, as data: the one place that says which status may follow which.

Owns `Status`, the table of legal moves and the SQL of the trigger that makes the database refuse the others. Refuses intents (a
wish to cancel or pause is a column beside the status) and refuses I/O. A test holds the schema's trigger equal to this table.
"""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    WAITING = "waiting"
    COMPENSATING = "compensating"
    HALTED = "halted"
    COMPLETED = "completed"
    FAILED = "failed"
    COMPENSATED = "compensated"
    CANCELLED = "cancelled"


class Ending(StrEnum):
    """How a run was decided to end, while parts of it may still be running."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.COMPENSATED, Status.CANCELLED})

LEGAL: dict[Status, frozenset[Status]] = {
    # Claimable from `due_at` on.
    Status.PENDING: frozenset({Status.RUNNING, Status.COMPENSATING, Status.FAILED, Status.CANCELLED, Status.HALTED}),
    # Leased by an agent.
    Status.RUNNING: frozenset(
        {
            Status.PENDING,
            Status.WAITING,
            Status.COMPLETED,
            Status.FAILED,
            Status.COMPENSATING,
            Status.CANCELLED,
            Status.HALTED,
        }
    ),
    # Off every agent: for a timer, a signal, a child; or, its ending decided, for what is still running of it.
    Status.WAITING: frozenset(
        {
            Status.PENDING,
            Status.RUNNING,
            Status.COMPLETED,
            Status.COMPENSATING,
            Status.FAILED,
            Status.CANCELLED,
            Status.HALTED,
        }
    ),
    # Undoing; leased, or claimable from `due_at` on.
    Status.COMPENSATING: frozenset({Status.COMPENSATED, Status.CANCELLED, Status.HALTED}),
    # Needs a person.
    Status.HALTED: frozenset({Status.PENDING, Status.COMPENSATING, Status.CANCELLED, Status.FAILED}),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.COMPENSATED: frozenset(),
    Status.CANCELLED: frozenset(),
}


def is_legal(before: Status, after: Status) -> bool:
    """Whether a task may go from `before` to `after`. Staying is no move."""
    return after in LEGAL[before]


def event_of_end(status: Status) -> str:
    """The event by which the journal of a run tells that a part of it has ended so."""
    match status:
        case Status.COMPLETED:
            return "completed"
        case Status.CANCELLED:
            return "cancelled"
        case _:
            return "failed"


def guard_trigger() -> str:
    """The trigger by which the database refuses every move that `LEGAL` does not list."""
    # Equality by equality: SQLite makes a table of each longer list of `in`, in a trigger anew for every row.
    lines = [
        f"(old.status = '{before}' and ({' or '.join(f'new.status = {one.value!r}' for one in sorted(after))}))"
        for before, after in LEGAL.items()
        if after
    ]
    body = "\n   or ".join(lines)
    return (
        "create trigger outlast_task_legal_move before update of status on outlast_task\n"
        "when old.status <> new.status and not (\n"
        f"      {body}\n"
        ")\n"
        "begin\n"
        "  select raise(abort, 'illegal move of a task');\n"
        "end;"
    )
