"""A zombie's late write, step by step on a real file: exits with 1 if it changes anything. Run by `test_guarantees`."""

from __future__ import annotations

import sys

from outlast import clock
from outlast.errors import LeaseLost
from outlast.model import new_id
from outlast.operations import AgentEnded, Append, Claim, Claimed, End, Entry, RegisterAgent, Start
from outlast.states import Ending
from outlast.store.sqlite import SqliteStore

CODE = {"workflow:work": "fingerprint"}


def register(store: SqliteStore) -> int:
    return store.commit(
        RegisterAgent(
            uid=new_id(clock.wall()), host="h", boot_id="b", pid=1, process_started="0", slots=1, queues=None,
            lease=30_000_000, code=CODE,
        )
    )  # fmt: skip


def claim(store: SqliteStore, agent_id: int) -> Claimed:
    return store.commit(Claim(agent_id, 1, CODE))[0]


def refused(store: SqliteStore, operation: object) -> bool:
    try:
        store.commit(operation)  # type: ignore[arg-type]
    except LeaseLost:
        return True
    return False


def main(path: str) -> int:
    store = SqliteStore(path, create=True)
    zombie, heir = register(store), register(store)
    store.commit(Start(uid=new_id(clock.wall()), kind="run", name="work", needs="workflow:work", queue="default", input=b"{}"))
    old = claim(store, zombie)
    store.commit(AgentEnded(zombie, "lost", "its lease ran out", 5, False))
    new = claim(store, heir)
    late = Entry(1, "1", "completed", "step", "charge", clock.wall(), data=b"1")
    holds = (
        refused(store, Append(old.fence, [late]))
        and refused(store, End(old.fence, Ending.COMPLETED, output=b"1", simple=True))
        and store.commit(Append(new.fence, [late])) is True
        and store.connection().execute("select count(*), min(claim) from outlast_journal").fetchone() == (1, new.fence.claim)
    )
    store.close()
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
