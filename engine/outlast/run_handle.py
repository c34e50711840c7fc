"""A run as seen from outside: the handle that `engine.start` and `engine.get` give.

Owns the waiting for a result, from threads and from event loops: the doorbell wakes it, and a read of
SQLite's data version every 50 ms finds commits by processes that ring no bell. Refuses to keep anything but
the run's id: status, result and steps are read anew each time, so a handle is never stale and may be used
from any thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import codec
from .duration import seconds
from .errors import (
    Conflict,
    InvalidInput,
    OutlastError,
    PayloadTooLarge,
    RemoteError,
    ResultTimeout,
    RunCancelled,
    RunHalted,
    RunNotFound,
)
from .handles import Duration, Run
from .model import new_id, workflow_code
from .names import checked_text
from .operations import Cancel, Pause, Resume, Signal, Start
from .states import FINAL, Status
from .store import starting
from .store.succession import last_of_line
from .store.transaction import Transaction
from .views.runs import children_ids, status_of
from .views.state import messages, published_value
from .views.steps import steps_json
from .views.watch import Watch, monotonic

if TYPE_CHECKING:
    from .settings import Settings
    from .store.sqlite import SqliteStore

T = TypeVar("T")

_TASK_ID = "select id from outlast_task where uid = :uid and kind = 'run'"

_OUTCOME = """
select t.status, t.halt_reason, o.output, o.error, o.successor_id
from outlast_task t left join outlast_outcome o on o.task_id = t.id
where t.uid = :uid
"""


class StoredRun(Run[T]):
    """One run in a store. Two handles of one run are equal."""

    def __init__(self, store: SqliteStore, settings: Settings, run_id: str) -> None:
        self.id = run_id
        self._last = run_id
        """The run that goes on with what this one began; itself, unless it went on by continue_as_new."""
        self._store = store
        self._settings = settings

    @property
    def status(self) -> str:
        """The status now, as `outlast runs` shows it. Raises `RunNotFound` once the run has been pruned."""
        return status_of(self._store, self._last_task_id())

    def result(self, timeout: Duration | None = None) -> T:
        """Wait for the end and give the value.

        Raises the run's own error where it failed or was compensated, `RunCancelled`, `RunHalted` as soon
        as it needs a person, and `ResultTimeout`, which changes nothing: the run goes on.
        """
        limit = None if timeout is None else seconds(timeout, place="timeout")
        deadline = None if limit is None else monotonic() + limit
        with Watch(self._store) as watch:
            while True:
                ended, value = self._look()
                if ended:
                    return value
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    raise ResultTimeout(self.id, limit)
                watch.wait(left)

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        with Watch(self._store) as watch:
            while True:
                ended, value = self._look()
                if ended:
                    return value
                await watch.wait_async()

    def _look(self) -> tuple[bool, T]:
        """Whether it has ended, and its value; or raise what it ended with."""
        row = self._store.connection().execute(_OUTCOME, {"uid": self._last}).fetchone()
        if row is None:
            raise RunNotFound(self._last)
        status, halt_reason, output, error, successor_id = row
        if successor_id is not None:
            # It went on by continue_as_new: the handle follows, once its own steps have ended.
            if status != Status.COMPLETED:
                return False, cast(T, None)
            self._last = last_of_line(self._store.connection(), self._last)
            return self._look()
        match Status(status):
            case Status.COMPLETED:
                value: T = codec.decode(output or b"null")
                return True, value
            case Status.CANCELLED:
                raise RunCancelled(self.id)
            case Status.HALTED:
                raise RunHalted(self.id, halt_reason)
            case Status.FAILED | Status.COMPENSATED:
                raise _own_error(self.id, status, error)
            case _:
                return False, cast(T, None)

    def signal(self, name: str, payload: object = None, *, key: str | None = None) -> None:
        """Send it a message, kept until the run takes it; of two with one name and `key`, the first counts.

        When this returns the message is on disk. Raises `RunFinished`, `NotStorable`, `PayloadTooLarge`.
        """
        checked_text(name, place="The name of a signal")
        if key is not None:
            checked_text(key, place="The key of a signal")
        place = f"the payload of signal {name!r}"
        data = codec.encode(payload, place=place)
        if len(data) > self._settings.max_payload:
            raise PayloadTooLarge(place, len(data), self._settings.max_payload)
        self._store.commit(Signal(self.id, name, data, key))

    def query(self, key: str) -> object:
        """The value that it has published under `key` last. Raises `KeyNotFound`."""
        return codec.decode(published_value(self._store, self._last_task_id(), key, run_id=self.id))

    def stream(self, name: str, after: int = 0) -> Iterator[object]:
        """The messages of a stream, in order, from the one after number `after` on; ends when the run has
        ended.
        """
        return self._follow(self._task_id(), name, after)

    def _follow(self, task_id: int, name: str, after: int) -> Iterator[object]:
        with Watch(self._store) as watch:
            while True:
                # The status first: a message between the two looks would otherwise be left behind.
                is_final = status_of(self._store, task_id) in FINAL
                found = messages(self._store, task_id, name, after=after)
                for number, data, *_ in found:
                    yield codec.decode(data)
                    after = number
                if not found:
                    if is_final:
                        return
                    watch.wait(None)

    def astream(self, name: str, after: int = 0) -> AsyncIterator[object]:
        """`stream` for `async for`."""
        return self._follow_async(self._task_id(), name, after)

    async def _follow_async(self, task_id: int, name: str, after: int) -> AsyncIterator[object]:
        with Watch(self._store) as watch:
            while True:
                is_final = status_of(self._store, task_id) in FINAL
                found = messages(self._store, task_id, name, after=after)
                for number, data, *_ in found:
                    yield codec.decode(data)
                    after = number
                if not found:
                    if is_final:
                        return
                    await watch.wait_async()

    def cancel(self, *, undo: bool = True, force: bool = False) -> None:
        """Ask it to end: it, its children and its submitted steps stop, and what it did is undone.

        `undo=False` leaves what it did; `force` does not wait for tries that may still run, and records
        that. Raises `RunFinished`.
        """
        self._store.commit(Cancel(self.id, undo=undo, force=force))

    def pause(self, *, children: bool = False) -> None:
        """Hold it at its next durable call; its children only when asked. Raises `RunFinished`."""
        self._store.commit(Pause(self.id, children=children))

    def resume(self, *, done: object = ..., not_done: bool = False) -> None:
        """End a pause, or send a halted run on.

        A run that was halted by an unknown outcome takes what a person found out: `done=` the step's
        result, or `not_done=True`. Raises `Conflict` where there is nothing to resume, `OutcomeNeeded`
        where only that answer helps.
        """
        if done is not ... and not_done:
            raise InvalidInput("done and not_done exclude each other.", hint="Give what you found out.")
        if done is not ... or not_done:
            raise Conflict(
                f"Run {self.id} does not wait for the outcome of a step.",
                hint="Resume it without done and not_done.",
            )
        self._store.commit(Resume(self.id))

    def retry(self, from_step: str | None = None) -> StoredRun[T]:
        """Start a final run anew, as another run with its input, tags and key; an unfinished retry of it is
        given back.

        Raises `Conflict` where it has not ended.
        """
        if from_step is not None:
            raise OutlastError(
                "Retrying from a step is not supported yet.",
                hint="Leave from_step away: the whole run starts anew.",
            )
        return StoredRun(self._store, self._settings, retry_run(self._store, self.id))

    def steps(self) -> list[dict[str, Any]]:
        """Its steps in order of start, as `outlast show --json` has them."""
        return steps_json(self._store, self._task_id())

    def children(self) -> list[Run[Any]]:
        """The runs that it started, in order."""
        return [StoredRun(self._store, self._settings, run_id) for _, run_id in children_ids(self._store, self._task_id())]

    def _last_task_id(self) -> int:
        self._last = last_of_line(self._store.connection(), self._last)
        return self._id_of(self._last)

    def _task_id(self) -> int:
        # By the id each time: the row of a run that was pruned, or rolled back, may be another's by now.
        return self._id_of(self.id)

    def _id_of(self, run_id: str) -> int:
        row = self._store.connection().execute(_TASK_ID, {"uid": run_id}).fetchone()
        if row is None:
            raise RunNotFound(run_id)
        task_id: int = row[0]
        return task_id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoredRun) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<run {self.id}>"


def _own_error(run_id: str, status: str, data: bytes | None) -> Exception:
    if data is None:
        return OutlastError(f"Run {run_id} is {status}; no error was recorded.")
    error = codec.decode_error(data)
    # A SystemExit of the workflow must not end the process that waits for it.
    return error if isinstance(error, Exception) else RemoteError(type(error).__name__, str(error))


_RETRIED = """
select t.id, t.status, t.name, t.version, t.queue, t.partition, t.priority, t.unique_key, t.undo,
       i.data, i.key, i.tags, i.chain, i.options, i.timeout, i.max_crashes
from outlast_task t join outlast_input i on i.task_id = t.id
where t.uid = :uid and t.kind = 'run'
"""

_UNFINISHED_RETRY = """
select t.uid from outlast_task t join outlast_input i on i.task_id = t.id
where t.id > :id and t.finished_at is null and t.kind = 'run' and t.name = :name
  and i.retry_of is not null and (i.chain = :root or i.chain >= :root || '~' and i.chain < :root || '~~')
limit 1
"""


def retry_run(store: SqliteStore, run_id: str) -> str:
    """Start a final run anew and give the new run's id; an unfinished retry of its chain is given back
    instead.

    Look and start are one transaction, so two retries at once cannot both find nobody.
    """
    with store.transaction() as connection:
        engine_time = store.engine_time()
        now = engine_time.now()
        transaction = Transaction(connection, now=now, wall=engine_time.to_wall(now))
        row = transaction.one(_RETRIED, {"uid": run_id})
        if row is None:
            raise RunNotFound(run_id)
        (task_id, status, name, version, queue, partition, priority, unique_key, undo,
         data, key, tags, chain, options, timeout, max_crashes) = row  # fmt: skip
        if status not in FINAL:
            raise Conflict(
                f"Run {run_id} is {status}: only a run that has ended can be retried.",
                hint=f"`outlast why {run_id}` says what it waits for.",
            )
        root, _, generation = chain.partition("~")
        found = transaction.one(_UNFINISHED_RETRY, {"id": task_id, "name": name, "root": root})
        if found is not None:
            unfinished: str = found[0]
            return unfinished
        if undo == "completed":
            # The keys of what was undone must not come back: a service would take the new charge for the
            # refunded one.
            chain = f"{root}~{int(generation or 0) + 1}"
        started = starting.start(
            transaction,
            Start(
                uid=new_id(transaction.wall),
                kind="run",
                name=name,
                version=version,
                needs=workflow_code(name, version),
                queue=queue,
                partition=partition,
                priority=priority,
                input=data,
                key=key,
                unique_key=unique_key,
                if_exists="fail",
                tags=tags,
                timeout=timeout,
                retry_of=run_id,
                chain=chain,
                options=options,
                max_crashes=max_crashes,
            ),
        )
    store.ring()
    return started.uid
