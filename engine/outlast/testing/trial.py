"""One execution of a run with crashes in it: lives that end at a commit, and a last one that goes on to the end.

Owns the file of a trial, the lives on it, and what is kept of each: the names of its commits. Every trial is the same run
to the letter (its id, its input, the instant of its start), so that idempotency keys, `uuid4()` and `now()` can be compared
between trials. With `processes`, each life is a process of its own (a fork of this one) and its death a SIGKILL.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from .. import clock
from ..clock import SystemClock
from ..definition import Workflow, registry
from ..errors import LeaseLost, OutlastError
from ..model import new_id
from ..operations import AgentEnded
from ..operations import queues as queue_operations
from ..starts import start_operation
from ..store import agents, queues
from ..store.library import sqlite3
from .driven import DrivenEngine, DrivenRun, virtual_settings
from .left import Left, left_in
from .points import CrashStore, Point
from .quick import QuickStore
from .virtual import Instants, VirtualClock

_MAX_CRASHES = 1_000_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial has left, and the commits of each of its lives."""

    left: Left
    ledger: tuple[str, ...]
    lives: tuple[tuple[str, ...], ...]
    crashes: int


class Trials:
    """Executions of one run, each on a file of its own in `folder`."""

    def __init__(
        self,
        folder: Path,
        workflow: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        ledger: Path | None,
        signals: Mapping[str, object],
        setup: Callable[[sqlite3.Connection], object] | None,
        processes: bool,
    ) -> None:
        self._folder = folder
        self._workflow = workflow
        self._named = workflow.signature.named(args, dict(kwargs))
        self._ledger = ledger
        self._signals = signals
        self._processes = processes
        self._settings = virtual_settings()
        self._numbers = count(1)
        self._began = (clock.wall(), SystemClock().elapsed())
        self._run_id = new_id(clock.wall())
        self._empty = folder / "empty.db"
        QuickStore(self._empty, create=True).close()
        if setup is not None:
            connection = sqlite3.connect(self._empty)
            with connection:
                setup(connection)
            connection.close()

    def execute(self, points: tuple[Point, ...] = ()) -> Outcome:
        """Execute the run with a crash at each of these points, one for each life; the last life goes on to the end."""
        path = self._folder / f"trial-{next(self._numbers)}.db"
        shutil.copyfile(self._empty, path)
        if self._ledger is not None:
            self._ledger.write_bytes(b"")
        instants = memoryview(mmap.mmap(-1, 16)).cast("q")
        instants[0], instants[1] = self._began
        lives: list[tuple[str, ...]] = []
        crashes = 0
        for point in (*points, None):
            names = self._live(path, instants, point, is_first=not lives)
            lives.append(names or ())
            if names is not None:
                break
            crashes += 1
        return Outcome(self._look(path, instants), self._effects(), tuple(lives), crashes)

    def _live(self, path: Path, instants: Instants, point: Point | None, *, is_first: bool) -> tuple[str, ...] | None:
        """One life; the names of its commits, or None where it died."""

        def live() -> tuple[str, ...] | None:
            with clock.use(VirtualClock(instants)):
                return self._carry_on(path, point, is_first=is_first)

        return _in_a_process(live) if self._processes else live()

    def _carry_on(self, path: Path, point: Point | None, *, is_first: bool) -> tuple[str, ...] | None:
        store = CrashStore(path, dies_at=point, kills=self._processes)
        # One slot, so that the order of commits is the same in every trial.
        engine = DrivenEngine(path, store=store, concurrency=1, has_scheduler=False, resolved=self._settings)
        try:
            for agent in agents.live(store.connection()):
                store.commit(AgentEnded(agent.id, "crashed", "killed by a test", _MAX_CRASHES, True))
            if is_first:
                self._start(engine)
            # Before there are roles: an agent claims as soon as it has begun.
            store.is_counting = True
            run: DrivenRun[Any] = DrivenRun(engine, self._run_id)
            try:
                engine.finish(run)
                engine.until_idle()
            except LeaseLost:
                if not store.is_dead:
                    raise
                return None
            return tuple(store.points)
        finally:
            store.is_counting = False
            if store.is_dead:
                engine.crash()
            else:
                engine.close()

    def _start(self, engine: DrivenEngine) -> None:
        store = engine.store
        store.commit(queue_operations.declaration(registry.current()))
        operation = start_operation(
            self._workflow, self._named, self._workflow.bound, engine.settings,
            has_queue=lambda name: queues.exists(store.connection(), name),
        )  # fmt: skip
        store.commit(replace(operation, uid=self._run_id, chain=self._run_id))
        for name, payload in self._signals.items():
            engine.signal(self._run_id, name, payload)

    def _look(self, path: Path, instants: Instants) -> Left:
        with clock.use(VirtualClock(instants)):
            store = QuickStore(path)
            try:
                left = left_in(store)
            finally:
                store.close()
        for file in self._folder.glob(f"{path.name}*"):
            # The last thread of a dead life may be closing its connection just now.
            file.unlink(missing_ok=True)
        return left

    def _effects(self) -> tuple[str, ...]:
        return () if self._ledger is None else tuple(self._ledger.read_text(errors="replace").splitlines())

    @property
    def run_id(self) -> str:
        return self._run_id


def _in_a_process(live: Callable[[], tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """Call it in a fork of this process, whose answer it gives; None where it was killed."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        # Other threads of this process (a test runner's) hold no lock that the child needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        _answer(live, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return None
    answer = json.loads(said)
    if "error" in answer:
        raise OutlastError(f"A process of the trial failed:\n{answer['error']}")
    return tuple(answer["points"])


def _answer(live: Callable[[], tuple[str, ...] | None], write: int) -> None:
    try:
        try:
            answer: dict[str, Any] = {"points": live()}
        except BaseException:  # noqa: BLE001 - told to the parent
            answer = {"error": traceback.format_exc()}
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(answer).encode())
    finally:
        os._exit(0)
