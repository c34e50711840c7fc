"""A real file with a set clock, and the operations of the store in few words."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

from outlast import clock
from outlast import operations as op
from outlast.journal.entry import COMPENSABLE, Entry
from outlast.operations.atomic import Operation
from outlast.operations.claimed import Claimed, Fence
from outlast.states import Ending
from outlast.store import next_due
from outlast.store.process import this_process
from outlast.store.sqlite import SqliteStore

LEASE = 30 * clock.SECOND
CODE = {"workflow:w": "f", "step:s": "f", "compensation:s": "f", "workflow:c": "f"}


class Driver:
    """One store in a test's hand."""

    def __init__(self, path: Path, manual: clock.ManualClock) -> None:
        self.store = SqliteStore(path)
        self.clock = manual
        self.number = 0

    def do(self, operation: Operation[Any]) -> Any:
        return self.store.commit(operation)

    def agent(self, *, code: dict[str, str] | None = None, slots: int = 8, root_id: int | None = None) -> int:
        self.number += 1
        who = this_process()
        return self.store.commit(
            op.RegisterAgent(
                f"agent{self.number}", who.host, who.boot_id, who.pid, who.started, slots, None, LEASE,
                CODE if code is None else code, root_id,
            )
        )  # fmt: skip

    def start(self, uid: str, **facts: Any) -> int:
        facts = {"kind": "run", "name": "w", "needs": "workflow:w", "queue": "default", "input": b"{}"} | facts
        return self.store.commit(op.Start(uid, **facts)).task_id

    def claim(self, agent_id: int, limit: int = 100, **facts: Any) -> list[Claimed]:
        return self.store.commit(op.Claim(agent_id, limit, facts.pop("code", CODE), **facts))

    def claimed(self, agent_id: int, uid: str = "r", **facts: Any) -> Fence:
        """Start a run and claim it."""
        alone = facts.pop("alone", False)
        task_id = self.start(uid, **facts)
        taken = {one.fence.task_id: one.fence for one in self.claim(agent_id, alone=alone)}
        return taken[task_id]

    def part(self, fence: Fence, path: str, *, kind: str = "step", seq: int = 1, flags: int = 0, **facts: Any) -> int:
        """Submit a step (or start a child) of a claimed run."""
        name, needs = ("s", "step:s") if kind == "step" else ("c", "workflow:c")
        started = self.store.commit(
            op.StartPart(
                fence,
                entry(seq, path, "started", "task" if kind == "step" else "child", name, flags=flags, input=b"{}"),
                op.Start(
                    f"{fence.task_id}-{path}", kind, name, needs, "default", b"{}",
                    parent_id=fence.task_id, parent_path=path, **facts,
                ),
            )
        )  # fmt: skip
        return started.task_id

    def end(self, fence: Fence, ending: Ending = Ending.COMPLETED, **facts: Any) -> Any:
        return self.store.commit(op.End(fence, ending, **facts))

    def crash(self, agent_id: int, *, status: str = "crashed", seen_dead: bool = True, max_crashes: int = 5) -> list[str]:
        return self.store.commit(op.AgentEnded(agent_id, status, "killed by SIGKILL", max_crashes, seen_dead))

    def fence(self, task_id: int) -> Fence:
        """The task's newest claim, whoever holds it."""
        return Fence(task_id, self.row(task_id, "claim")[0])

    def undoing(self) -> Fence:
        """A run that failed with one step to undo."""
        fence = self.claimed(self.agent())
        self.do(op.Append(fence, [entry(1, "1", "started", flags=COMPENSABLE, input=b"{}")]))
        assert self.end(fence, Ending.FAILED, error=b"null") == "compensating"
        return fence

    def next_due_at(self, code: Collection[str] = CODE) -> int | None:
        now = {"now": self.store.now()} if "now" in signature(next_due.next_due_at).parameters else {}
        return next_due.next_due_at(self.store.connection(), code, None, **now)

    def row(self, task_id: int, columns: str = "status") -> tuple[Any, ...]:
        found: tuple[Any, ...] = self.store.connection().execute(f"select {columns} from outlast_task where id = ?", (task_id,)).fetchone()
        return found

    def status(self, task_id: int) -> str:
        return str(self.row(task_id)[0])

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self.store.connection().execute(sql, parameters)]

    def events(self, task_id: int) -> list[tuple[Any, ...]]:
        return self.query("select seq, path, event from outlast_journal where task_id = ? order by seq", task_id)

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """Everything that the file says."""
        tables = [name for (name,) in self.query("select name from sqlite_schema where type = 'table'")]
        return {name: self.query(f"select * from {name}") for name in tables}


def entry(seq: int, path: str = "1", event: str = "completed", kind: str = "step", name: str = "s", **facts: Any) -> Entry:
    return Entry(seq, path, event, kind, name, 1, **facts)


_new: list[bytes] = []


@contextmanager
def driver(path: Path) -> Iterator[Driver]:
    """A new file. Made once, then copied: a hundred tests need not migrate a hundred times."""
    ours = clock.ManualClock()
    with clock.use(ours):
        if not _new:
            first = path.with_name("first.db")
            SqliteStore(first, create=True).close()
            _new.append(first.read_bytes())
        path.write_bytes(_new[0])
        made = Driver(path, ours)
        try:
            yield made
        finally:
            made.store.close()
