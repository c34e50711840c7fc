"""An engine in virtual time: a workflow runs to its end at once, whatever it waits for.

Owns the clock's way ahead: where nothing is due, it jumps to the next instant at which something is, so that a week of
sleeps takes milliseconds. Refuses to move the clock for schedules while it waits for a run, since they would never end;
`advance` fires them. What a run waits for that no time brings is `Stuck`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from .. import clock, codec
from ..clock import SECOND
from ..definition import registry
from ..definition.options import DEFAULT, Options
from ..definition.registry import Registry
from ..engine import Engine
from ..engine.handle import StoredRun
from ..errors import OutlastError, ResultTimeout
from ..settings import Settings, resolve
from ..states import FINAL, Status
from ..text.duration import seconds
from ..views.find import find_run
from ..why import why
from .driver import Driver
from .quick import QuickStore
from .virtual import VirtualClock

if TYPE_CHECKING:
    from ..definition import Workflow
    from ..handles import Duration, Run
    from ..store.sqlite import SqliteStore
    from ..views.following import Follower

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

LEASE = "10000d"
"""Longer than any test: nobody is silent who only was not asked to work."""


class Stuck(OutlastError):
    """The run waits for what no time brings."""


class DrivenEngine(Engine):
    """An engine whose roles work while the test asks for it, in the test's own process."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        schedules_of: ModuleType | None = None,
        has_scheduler: bool = True,
        store: SqliteStore | None = None,
        concurrency: int = 8,
        resolved: Settings | None = None,
        **settings: Any,
    ) -> None:
        """`settings` are those of `Engine`; `schedules_of` limits the schedules that fire to a module's workflows."""
        self._use(store or QuickStore(path, create=True), resolved or virtual_settings(**settings))
        self._schedules_of = schedules_of
        self._has_scheduler = has_scheduler
        self._concurrency = concurrency
        self._driver: Driver | None = None
        self._defined: list[object] = []
        self._scheduled: set[str] = set()
        """The workflows that the test itself has given a schedule: that one fires whatever the test's module imports."""

    @overload
    def run(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def run(self, workflow: str, /, *args: Any, **kwargs: Any) -> Any: ...
    def run(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Start a run, carry it to its end, and give its result or raise its error.

        The clock jumps over whatever the run waits for. Raises `Stuck` where no time helps.
        """
        return self.start(workflow, *args, **kwargs).result()

    def until_idle(self) -> None:
        """Let everything work that is due now; the clock stands still."""
        self.driver().settle()

    def advance(self, duration: Duration) -> None:
        """Let time pass: whatever falls due meanwhile happens at its instant, schedules included."""
        self._pass(self.store.now() + round(seconds(duration, place="advance") * SECOND))

    def _pass(self, until: int) -> None:
        driver = self.driver()
        driver.settle()
        while (now := self.store.now()) < until:
            due_at = driver.next_at(with_schedules=True)
            self._move(min(until, due_at or until) - now)
            driver.settle()

    def finish(self, run: StoredRun[Any], *, within_seconds: float | None = None) -> None:
        """Carry a run to its end, or as far as a given time takes it."""
        driver = self.driver()
        began = self.store.now()
        until = None if within_seconds is None else began + round(within_seconds * SECOND)
        driver.settle()
        while run.status not in (*FINAL, Status.HALTED):
            due_at = driver.next_at(with_schedules=False)
            if until is not None and (due_at is None or due_at > until):
                self._pass(until)
                return
            if due_at is None:
                raise self._stuck(run)
            self._pass(due_at)

    def _stuck(self, run: StoredRun[Any]) -> Stuck:
        explanation = why(self.store, find_run(self.store, run.id)[0])
        facts = " ".join([explanation.summary, *explanation.details])
        return Stuck(
            f"Run {run.id} does not continue by itself: {facts}",
            hint="Start it, do in the test what it waits for (`run.signal(...)`), then ask for its result.",
        )

    def _move(self, microseconds: int) -> None:
        if not isinstance(clock.current, VirtualClock):
            raise OutlastError("The clock is not virtual.", hint="Use the fixture outlast_engine, or driven_engine().")
        clock.current.advance(microseconds)

    def driver(self) -> Driver:
        """The roles, made anew where definitions have come since."""
        defined: list[object] = [*registry.workflows(), *registry.steps(), *registry.queues().values()]
        if self._driver is None or defined != self._defined:
            self._end_roles()
            scheduled = _scheduled(self._schedules_of, self._scheduled) if self._has_scheduler else None
            self._driver = Driver(
                self.store, registry.current(), self.settings, concurrency=self._concurrency, scheduled=scheduled,
            )  # fmt: skip
            self._defined = defined
        return self._driver

    def start_input(self, definition: Workflow[..., Any], named: Mapping[str, object], options: Options = DEFAULT) -> DrivenRun[Any]:
        # The roles first: they know the queues that the code declares.
        self.driver()
        return DrivenRun(self, super().start_input(definition, named, options).id)

    def schedule(self, name: str, workflow: Workflow[..., Any] | str, trigger: object, *, input: object = None) -> None:
        super().schedule(name, workflow, trigger, input=input)
        named = workflow.partition("@")[0] if isinstance(workflow, str) else workflow.name
        if named not in self._scheduled:
            self._scheduled.add(named)
            self._end_roles()  # The scheduler that comes next has its code.

    def get(self, reference: Any, /, *, key: str | None = None) -> Any:
        found = super().get(reference) if key is None else super().get(reference, key=key)
        return DrivenRun(self, found.id)

    def runs(self, **filters: Any) -> list[StoredRun[Any]]:
        return [DrivenRun(self, found.id) for found in super().runs(**filters)]

    def signal(self, run: str | Run[Any], name: str, payload: object = None, *, key: str | None = None) -> None:
        super().signal(run, name, payload, key=key)

    def close(self) -> None:
        self._end_roles()
        super().close()

    def crash(self) -> None:
        """End as a killed process does: what its agent holds is dropped where it stands."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.die()
        super().close()

    def _end_roles(self) -> None:
        if self._driver is not None:
            self._driver.close()
            self._driver = None


def virtual_settings(**settings: Any) -> Settings:
    """Every wait parks at once, and no lease ends."""
    return resolve({"lease": LEASE, "park_after": 0, **settings})


class DrivenRun(StoredRun[T]):
    """A run that is driven by whoever waits for its result, or for more of a stream."""

    def __init__(self, engine: DrivenEngine, run_id: str) -> None:
        super().__init__(engine.store, engine.settings, run_id)
        self._engine = engine

    def result(self, timeout: Duration | None = None) -> T:
        """Carry it to its end, and give the value or raise the error; `timeout` is of virtual time."""
        within = None if timeout is None else seconds(timeout, place="timeout")
        self._engine.finish(self, within_seconds=within)
        if self.status not in (*FINAL, Status.HALTED):
            raise ResultTimeout(self.id, within or 0.0)
        return super().result(0)

    async def _wait(self) -> T:
        return self.result()

    def _follow(self, follower: Follower) -> Iterator[object]:
        """What has been emitted so far; who asks for more carries the run to its end."""
        while (found := follower.look()) is not None:
            yield from (codec.decode(data) for _, (_, data, *_) in found)
            if not found:
                self._engine.finish(self)
                if self.status == Status.HALTED:
                    raise self._engine._stuck(self)

    async def _follow_async(self, follower: Follower) -> AsyncIterator[object]:
        for message in self._follow(follower):
            yield message

    def _another(self, run_id: str) -> DrivenRun[Any]:
        return DrivenRun(self._engine, run_id)


@contextmanager
def driven_engine(
    path: str | os.PathLike[str],
    *,
    schedules_of: ModuleType | None = None,
    **settings: Any,
) -> Iterator[DrivenEngine]:
    """An engine in virtual time, for as long as the block lasts; what `outlast_engine` is."""
    with clock.use(VirtualClock()), DrivenEngine(path, schedules_of=schedules_of, **settings) as engine:
        yield engine


def _scheduled(module: ModuleType | None, names: set[str]) -> Registry:
    """The definitions, without workflows whose schedules are none of a module's business: it neither defines nor imports them, alone or
    with their module.
    """
    if module is None:
        return registry.current()
    seen = list(vars(module).values())
    modules = {module.__name__, *(one.__name__ for one in seen if isinstance(one, ModuleType))}
    chosen = Registry()
    for one in registry.workflows():
        if one.module in modules or one.name in names or any(one is other for other in seen):
            chosen.add(one)
    return chosen
