"""A bench for runs: an engine on a real file and agents in this process, which can be stopped, killed and replaced."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from outlast.agent import Agent
from outlast.doctor import examine
from outlast.engine import Engine
from outlast.journal.entry import Entry
from outlast.operations import AgentEnded, Sweep
from outlast.settings import Settings
from outlast.store import journal

effects: list[Any] = []
"""What steps did to the world, in order; empty at the start of each test."""


def eventually(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    """The first true answer of `look`."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"nothing came of {look}"
        time.sleep(0.005)
    return found


class Gate:
    """Holds code until a test opens it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._open = threading.Event()

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    def pass_through(self) -> None:
        self.reached.set()
        assert self._open.wait(30), "nobody opened the gate"

    def wait_until_reached(self) -> None:
        assert self.reached.wait(20), "the code did not come to the gate"

    def open(self) -> None:
        self._open.set()

    def close(self) -> None:
        self.reached.clear()
        self._open.clear()


class Bench:
    """An engine, and the agents that a test has started on its file."""

    def __init__(self, path: Path, registry: Any) -> None:
        self.registry = registry
        self.engine = Engine(path)
        self.store = self.engine.store
        self.agents: list[Agent] = []
        self.settings: dict[str, Any] = {"park_after_seconds": 0.05, "grace_seconds": 5.0, "lease_seconds": 30.0}

    def agent(self, *, concurrency: int = 8, registry: Any = None, root_id: int | None = None, **settings: Any) -> Agent:
        """Start an agent; what it does not say otherwise is as `settings` has it."""
        agent = Agent(
            self.store,
            registry or self.registry,
            Settings(**{**self.settings, **settings}),
            concurrency=concurrency,
            root_id=root_id,
            embedded=True,
        )
        agent.start()
        self.agents.append(agent)
        return agent

    def stop(self, grace: float | None = None) -> None:
        """Drain every agent."""
        agents, self.agents = self.agents, []
        for agent in agents:
            agent.stop(grace)

    def kill(self) -> None:
        """As far as the file knows, every agent is dead this instant; their threads go on as zombies do."""
        agents, self.agents = self.agents, []
        for agent in agents:
            self.store.commit(AgentEnded(agent.agent_id, "lost", "killed by a test", 5, True))
        self._zombies = [*getattr(self, "_zombies", []), *agents]

    def close(self) -> None:
        self.stop(0.2)
        for agent in getattr(self, "_zombies", []):
            agent.stop(0.0)
        broken = [f"{finding.name}: {finding.detail}" for finding in examine(self.store) if not finding.ok and finding.query]
        self.engine.close()
        assert not broken, f"the test leaves a file in which something does not hold: {broken}"

    def start(self, workflow: Any, *args: Any, **kwargs: Any) -> Any:
        return self.engine.start(workflow, *args, **kwargs)

    def run(self, workflow: Any, *args: Any, timeout: float = 20, **kwargs: Any) -> Any:
        """Start a run and give its result; with an agent of the bench's settings where there is none."""
        if not self.agents:
            self.agent()
        return self.engine.start(workflow, *args, **kwargs).result(timeout=timeout)

    def task_id(self, run: Any) -> int:
        return self.one("select id from outlast_task where uid = ?", run.id)

    def one(self, sql: str, *parameters: Any) -> Any:
        row = self.store.connection().execute(sql, parameters).fetchone()
        return row[0] if row is not None else None

    def field(self, run: Any, name: str) -> Any:
        return self.one(f"select {name} from outlast_task where uid = ?", run.id)

    def status(self, run: Any) -> str:
        return self.field(run, "status")

    def wait_for(self, run: Any, *statuses: str) -> str:
        """The run's status in the file, once it is one of these."""
        return eventually(lambda: (status := self.status(run)) in statuses and status)

    def journal(self, run: Any) -> list[Entry]:
        return journal.load(self.store.connection(), self.task_id(run))

    def lines(self, run: Any) -> list[tuple[str, str, str]]:
        return [(entry.path, entry.event, entry.name) for entry in self.journal(run)]

    def claims(self, run: Any) -> int:
        return self.field(run, "claim")

    def sweep(self) -> list[str]:
        return self.store.commit(Sweep(30_000_000))

    def published(self, run: Any, key: str) -> Any:
        return run.query(key)

    def parts(self, run: Any) -> list[dict[str, Any]]:
        connection = self.store.connection()
        cursor = connection.execute(
            "select name, kind, status, uid, tries, priority, queue from outlast_task where parent_id = ? order by id",
            (self.task_id(run),),
        )
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def strays(self) -> int:
        return self.one("select count(*) from outlast_stray")

    def dump(self, run: Any) -> str:
        """For the message of a test that failed."""
        return json.dumps(self.lines(run))
