"""The facade: a store, its settings and this process's definitions, behind the verbs that applications use.

Owns the way from a call to a run on disk: arguments bound and encoded, limits checked, options merged with
the definition's, one commit. Refuses to execute workflows: `Engine.agent` puts an agent, a supervisor and a
scheduler beside the application where it wants them in its own process. Safe to use from any thread; while
it is the process's only engine, `workflow.start(...)` uses it. What it hands out lies beside: the handle of a run,
the roles in this process (`embedded`), the start inside a caller's transaction (`outbox`).
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, overload

from .. import caller, clock
from ..definition import Workflow, registry
from ..definition.options import DEFAULT, Options, checked_tags
from ..errors import InvalidInput, OutlastError, OutsideRun
from ..settings import Settings, database_path, resolve
from ..starts import start_operation
from ..text.duration import seconds
from ..text.names import checked_whole
from .embedded import EmbeddedAgent
from .handle import StoredRun

if TYPE_CHECKING:
    from ..handles import Duration, Run
    from ..store.sqlite import SqliteStore

P = ParamSpec("P")
R = TypeVar("R")


class Engine:
    """One file of runs: starts and finds them, and with `agent()` executes them beside the application.

    Threads may share it. It survives a fork: the child opens connections of its own. `with Engine() as engine: ...`
    closes it at the end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        lease: Duration | None = None,
        grace: Duration | None = None,
        park_after: Duration | None = None,
        hang_limit: Duration | None = None,
        max_payload: int | str | None = None,
        max_crashes: int | None = None,
        max_entries: int | None = None,
        retention: Duration | None = None,
        durability: str | None = None,
        allow_network: bool | None = None,
    ) -> None:
        """Open the file, and create it if there is none.

        Without a path it is `$OUTLAST_DB`, `db` in `[tool.outlast]`, or `outlast.db` at the root of the
        project. What is not given here comes from `OUTLAST_…` variables and `[tool.outlast]`. Raises
        `InvalidInput`, `FileMissing` if its folder does not exist, and the `StoreError`s; on Windows
        `OutlastError`. Durations are "30s", seconds or a timedelta, `max_payload` bytes or "2MiB".
        """
        settings = resolve(
            {
                "lease": lease,
                "grace": grace,
                "park_after": park_after,
                "hang_limit": hang_limit,
                "max_payload": max_payload,
                "max_crashes": max_crashes,
                "max_entries": max_entries,
                "retention": retention,
                "durability": durability,
                "allow_network": allow_network,
            }
        )
        self._use(_open_store(database_path(path), settings), settings)

    @classmethod
    def over(cls, store: SqliteStore, settings: Settings) -> Engine:
        """An engine over a store that is open already: in agents, for steps that start workflows."""
        engine = cls.__new__(cls)
        engine._use(store, settings)
        return engine

    def _use(self, store: SqliteStore, settings: Settings) -> None:
        self.store = store
        self.settings = settings
        self.path = store.path
        self._agents: list[EmbeddedAgent] = []
        _enter(self)

    @overload
    def start(self, workflow: Workflow[P, R], /, *args: P.args, **kwargs: P.kwargs) -> StoredRun[R]: ...
    @overload
    def start(self, workflow: str, /, *args: Any, **kwargs: Any) -> StoredRun[Any]: ...
    def start(self, workflow: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Start a run of a workflow: the workflow itself, perhaps with options bound to it, or `"name"` or
        `"name@version"`. Arguments are taken as they are: only text and JSON from outside are converted to the annotations.

        When this returns the run is on disk and never forgotten. Raises `InvalidInput` for arguments that
        do not fit or cannot be stored, `WorkflowNotFound`, `QueueNotFound`, and `Conflict` if
        `if_exists="fail"` says so; then nothing was started.
        """
        definition = _workflow(workflow)
        return self.start_call(definition, args, kwargs, _keyed(definition.bound))

    def start_call(
        self,
        definition: Workflow[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: Options = DEFAULT,
    ) -> StoredRun[Any]:
        """`start`, taken apart: for callers that hold arguments and options as values."""
        return self.start_input(definition, definition.signature.named(args, kwargs), options)

    def start_named(self, name: str, given: object, options: Options = DEFAULT) -> StoredRun[Any]:
        """Start with input from outside: plain JSON, an object by name or an array by position, which is converted to the
        annotated types.
        """
        definition = _workflow(name)
        return self.start_input(definition, definition.signature.from_json(given), _keyed(options))

    def start_input(self, definition: Workflow[..., Any], named: Mapping[str, object], options: Options = DEFAULT) -> StoredRun[Any]:
        """Start with arguments that are bound and converted already."""
        operation = start_operation(definition, named, options, self.settings, has_queue=self._has_queue)
        if options.connection is None:
            started = self.store.commit(operation)
        else:
            from .outbox import start_within

            started = start_within(self.store, options.connection, operation)
        return StoredRun(self.store, self.settings, started.uid, is_new=started.created)

    def _has_queue(self, name: str) -> bool:
        from ..store import queues

        return queues.exists(self.store.connection(), name)

    @overload
    def get(self, reference: str, /) -> StoredRun[Any]: ...
    @overload
    def get(self, workflow: Workflow[P, R], /, *, key: str) -> StoredRun[R]: ...
    @overload
    def get(self, workflow: str, /, *, key: str) -> StoredRun[Any]: ...
    def get(self, reference: Any, /, *, key: str | None = None) -> Any:
        """A run by its id, a unique prefix of it, or `WORKFLOW:KEY`; or by a workflow and `key=`.

        Raises `RunNotFound` and `AmbiguousRun`.
        """
        from ..views.find import find_run

        if key is None:
            if not isinstance(reference, str):
                raise InvalidInput("get() needs the id of a run, or a workflow and its key=.")
            return StoredRun(self.store, self.settings, find_run(self.store, reference)[1])
        name = reference if isinstance(reference, str) else reference.name
        return StoredRun(self.store, self.settings, find_run(self.store, f"{name}:{key}")[1])

    def runs(
        self,
        *,
        status: str | list[str] | None = None,
        workflow: Workflow[..., Any] | str | None = None,
        tags: Mapping[str, str] | None = None,
        since: datetime | Duration | None = None,
        until: datetime | Duration | None = None,
        limit: int | None = 100,
    ) -> list[StoredRun[Any]]:
        """The runs that fit every filter, the newest first.

        `since` and `until` are about the instant of the start: a datetime, or how long ago, as `"1h"`.
        `limit=None` returns all. Raises `InvalidInput` for an unknown status.
        """
        from ..views.runs import find_runs

        name = workflow if isinstance(workflow, str) or workflow is None else _workflow(workflow).name
        if limit is not None:
            checked_whole(limit, place="limit", least=0)
        found = find_runs(
            self.store,
            status=status,
            workflow=name,
            tags=None if tags is None else checked_tags(tags),
            since=_instant(since, "since"),
            until=_instant(until, "until"),
            limit=limit,
        )
        return [StoredRun(self.store, self.settings, uid) for _, uid in found]

    def signal(self, run: str | Run[Any], name: str, payload: object = None, *, key: str | None = None) -> None:
        """Send a message to a run: a `Run`, or a reference that `get` takes. On disk when this returns."""
        found = self.get(run) if isinstance(run, str) else run
        found.signal(name, payload, key=key)

    def schedule(self, name: str, workflow: Workflow[..., Any] | str, trigger: object, *, input: object = None) -> None:
        """Start runs of a workflow by a rule from now on: create the schedule of this name, or change it.

        `trigger` is what `@workflow(schedule=...)` takes; `input` the runs' arguments, a dict by name or a
        list by position. The same rule again changes nothing; a new rule never fires for the past.
        Raises `InvalidInput`, `InvalidDefinition`, and `Conflict` for a name that code declares.
        """
        from .. import scheduling

        scheduling.schedule(self.store, registry.current(), name, workflow, trigger, input=input, settings=self.settings)

    def unschedule(self, name: str) -> None:
        """Forget a schedule and its ledger; its runs stay. Raises `ScheduleNotFound`."""
        from .. import scheduling

        scheduling.unschedule(self.store, name)

    def agent(self, *, concurrency: int = 8, queues: list[str] | None = None) -> EmbeddedAgent:
        """An agent, a supervisor and a scheduler in this process, for as long as the block lasts.

        `with engine.agent(): ...` or `async with`. At the end of the block it drains: what is
        running finishes, or is handed back after the grace time. It installs no signal handlers.
        """
        made = EmbeddedAgent(self.store, self.settings, concurrency=concurrency, queues=queues)
        self._agents.append(made)
        return made

    def close(self) -> None:
        """Stop the agents of `agent()` that are still there, which drain, write what is queued and close the file.

        Closing again does nothing.
        """
        if _leave(self):
            for made in self._agents:
                made.stop()
            self.store.close()
            self.store.doorbell.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Engine {self.path}>"


def _workflow(given: Any) -> Workflow[..., Any]:
    if isinstance(given, str):
        name, at_sign, version = given.partition("@")
        return registry.workflow(name, version if at_sign else None)
    if not isinstance(given, Workflow):
        shown = getattr(given, "__name__", None) or repr(given)
        raise InvalidInput(f"{shown} is not a workflow.", hint="Decorate it with @workflow, or give a workflow's name.")
    return given


def _instant(given: datetime | Duration | None, place: str) -> int | None:
    if given is None:
        return None
    if isinstance(given, datetime):
        return clock.from_datetime(given)
    return clock.wall() - round(seconds(given, place=place) * clock.SECOND)


def _system() -> str:
    return os.name


def _open_store(path: str, settings: Settings) -> SqliteStore:
    if _system() == "nt":
        raise OutlastError(
            "Outlast does not run on Windows itself.",
            hint="Run it inside WSL, the Windows Subsystem for Linux.",
        )
    if "://" in path:
        raise InvalidInput(f"{path} is not a file; PostgreSQL is not supported yet.", hint="Give the path of a file.")
    from ..store.sqlite import SqliteStore

    return SqliteStore(Path(path), create=True, allow_network=settings.allow_network, durability=settings.durability)


# The engines of this process that are open. Weakly, so that one which nobody holds does not count.
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_changing = threading.Lock()


def _enter(engine: Engine) -> None:
    with _changing:
        _engines.add(engine)
        caller.start_outside = _start_outside


def _leave(engine: Engine) -> bool:
    with _changing:
        was_open = engine in _engines
        _engines.discard(engine)
        if not _engines:
            caller.start_outside = None
    return was_open


def _keyed(options: Options) -> Options:
    asking = caller.active.get()
    return options if asking is None else asking.keyed(options)


def _start_outside(workflow: Workflow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Run[Any]:
    with _changing:
        engines = list(_engines)
    written = workflow.fn.__name__
    if not engines:
        raise OutsideRun(
            f"{written}.start() finds no engine in this process.",
            hint=f"Keep one, `engine = outlast.Engine()`, then write `engine.start({written}, ...)`.",
        )
    if len({os.path.realpath(engine.path) for engine in engines}) > 1:
        raise OutsideRun(
            f"{written}.start() cannot choose among {len(engines)} engines in this process.",
            hint=f"Write `engine.start({written}, ...)`.",
        )
    return engines[0].start_call(workflow, args, kwargs, options)
