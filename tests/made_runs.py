"""Runs in every state, made by the operations that make them in earnest."""

from __future__ import annotations

from typing import Any

from outlast import clock, codec
from outlast import operations as op
from outlast.journal.entry import COMPENSABLE, Entry
from outlast.model import new_id, step_code, workflow_code
from outlast.operations import Started
from outlast.operations.claimed import Claimed, Fence
from outlast.states import Ending, Status
from outlast.store.sqlite import SqliteStore

LEASE = 30 * clock.SECOND
HOST = "elsewhere/0000/4026531836"
"""A host whose processes cannot be seen from here."""


class Maker:
    """Writes runs into a store."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.code = {
            "workflow:fulfil": "f1",
            "step:charge": "f2",
            "step:pack": "f3",
            "compensation:charge": "f4",
        }

    def start(self, name: str = "fulfil", given: dict[str, Any] | None = None, **facts: Any) -> Started:
        uid = facts.pop("uid", new_id(clock.wall()))
        return self.store.commit(
            op.Start(
                uid=uid,
                kind="run",
                name=name,
                needs=facts.pop("needs", workflow_code(name, facts.get("version", ""))),
                queue=facts.pop("queue", "default"),
                input=codec.encode(given or {}),
                **facts,
            )
        )

    def agent(self, code: dict[str, str] | None = None, **facts: Any) -> int:
        return self.store.commit(
            op.RegisterAgent(
                uid=new_id(clock.wall()),
                host=facts.pop("host", HOST),
                boot_id=clock.boot_id(),
                pid=facts.pop("pid", 4711),
                process_started="123",
                slots=facts.pop("slots", 8),
                queues=facts.pop("queues", None),
                lease=facts.pop("lease", LEASE),
                code=self.code if code is None else code,
                root_id=facts.pop("root_id", None),
            )
        )

    def claim(self, agent_id: int, **facts: Any) -> Claimed:
        [claimed] = self.store.commit(op.Claim(agent_id, 1, self.code, **facts))
        return claimed

    def running(self, name: str = "fulfil", **facts: Any) -> Claimed:
        """A run that a new agent holds."""
        started = self.start(name, **facts)
        return self.claim(self.agent(), root_id=started.task_id)

    def append(self, fence: Fence, *entries: Entry) -> None:
        self.store.commit(op.Append(fence, list(entries)))

    def entry(self, seq: int, path: str, event: str, kind: str, name: str, **facts: Any) -> Entry:
        return Entry(seq, path, event, kind, name, facts.pop("at", clock.wall()), **facts)

    def submit(self, fence: Fence, seq: int, path: str, name: str = "pack", **facts: Any) -> Started:
        """Submit a step of a held run."""
        part = op.Start(
            uid=new_id(clock.wall()),
            kind="step",
            name=name,
            needs=step_code(name),
            queue="default",
            input=codec.encode({"item": 1}),
            parent_id=fence.task_id,
            parent_path=path,
            **facts,
        )
        entry = self.entry(seq, path, "started", "task", name)
        return self.store.commit(op.StartPart(fence, entry, part))

    def child(self, fence: Fence, seq: int, path: str, name: str = "invoice") -> Started:
        part = op.Start(
            uid=new_id(clock.wall()),
            kind="run",
            name=name,
            needs=workflow_code(name),
            queue="default",
            input=codec.encode({}),
            parent_id=fence.task_id,
            parent_path=path,
        )
        entry = self.entry(seq, path, "started", "child", name)
        return self.store.commit(op.StartPart(fence, entry, part))

    def park(self, fence: Fence, **facts: Any) -> None:
        assert self.store.commit(op.Park(fence, facts.pop("due_at", None), **facts))

    def complete(self, fence: Fence, value: Any = None, **facts: Any) -> Status:
        return self.store.commit(op.End(fence, Ending.COMPLETED, output=codec.encode(value), simple=facts.pop("simple", True), **facts))

    def fail(self, fence: Fence, error: BaseException, **facts: Any) -> Status:
        return self.store.commit(op.End(fence, Ending.FAILED, error=codec.encode_error(error), **facts))

    def charge(self, fence: Fence, seq: int = 1, path: str = "1", *, outcome: bool = True) -> int:
        """A step with a compensation, started and (with `outcome`) completed; gives the next seq."""
        given = codec.encode({"order": "o-1", "amount": 100})
        started = self.entry(seq, path, "started", "step", "charge", input=given, flags=COMPENSABLE)
        entries = [started]
        if outcome:
            entries.append(self.entry(seq + 1, path, "completed", "step", "charge", try_number=1, data=codec.encode("p-1")))
        self.append(fence, *entries)
        return seq + len(entries)
