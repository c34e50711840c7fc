"""A run as seen from outside: the handle that `engine.start` and `engine.get` give.

Owns the waiting for a result, from threads and from event loops: the doorbell wakes it, and a read of
SQLite's data version every 50 ms finds commits by processes that ring no bell. Refuses to keep anything but
the run's id: status, result and steps are read anew each time, so a handle is never stale and may be used
from any thread.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .. import clock, codec
from ..codec import payloads
from ..errors import InvalidInput, OutlastError, PayloadTooLarge, RemoteError, ResultTimeout, RunCancelled, RunHalted, RunNotFound
from ..handles import Duration, Run
from ..model import new_id
from ..operations import Cancel, Pause, Resume, Signal, StartRetry
from ..states import Status
from ..store.succession import last_of_line, open_before
from ..text.duration import seconds
from ..text.names import checked_key, checked_text, checked_whole
from ..views.following import Follower
from ..views.runs import children_ids, status_of
from ..views.state import published_value, stored_input
from ..views.steps import steps_json
from ..views.watch import Watch, monotonic

if TYPE_CHECKING:
    from ..settings import Settings
    from ..store.sqlite import SqliteStore

T = TypeVar("T")

_BEGIN_SECONDS = 0.001
"""How long after its start no run has ended yet."""

_TASK_ID = "select id from outlast_task where uid = :uid and kind = 'run'"

_OUTCOME = """
select t.status, t.halt_reason, o.output, o.error, o.successor_id
from outlast_task t left join outlast_outcome o on o.task_id = t.id
where t.uid = :uid
"""


class StoredRun(Run[T]):
    """One run in a store. Two handles of one run are equal."""

    def __init__(self, store: SqliteStore, settings: Settings, run_id: str, *, is_new: bool = False) -> None:
        self.id = run_id
        self._begins_at = monotonic() + _BEGIN_SECONDS if is_new else 0.0
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
            # A look now would find nothing, and keep the agent from a processor that the kernel may have it share with us.
            watch.wait_until(self._begins_at if deadline is None else min(self._begins_at, deadline))
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
            checked_key(key, place="The key of a signal")
        place = f"the payload of signal {name!r}"
        data = codec.encode(payload, place=place)
        if len(data) > self._settings.max_payload:
            raise PayloadTooLarge(place, len(data), self._settings.max_payload)
        self._refuse_plain()
        self._store.commit(Signal(self.id, name, data, key))

    def _refuse_plain(self) -> None:
        """Nothing is stored plain for a run whose input is not: the codec that this process lacks is looked for first."""
        if payloads.writer is None:
            payloads.need_writer(stored_input(self._store, self.id))

    def query(self, key: str) -> object:
        """The value that it has published under `key` last. Raises `KeyNotFound`."""
        return codec.decode(published_value(self._store, self._last_task_id(), key, run_id=self.id))

    def stream(self, name: str, after: int = 0) -> Iterator[object]:
        """The messages of a stream, in order, from the one after number `after` on; ends when the run has
        ended. Where it goes on by `continue_as_new`, those of the next run follow, which counts from 1 again.
        """
        _check_stream(name, after)
        return self._follow(Follower(self._store, self._task_id(), name, after))

    def _follow(self, follower: Follower) -> Iterator[object]:
        with Watch(self._store) as watch:
            while (found := follower.look()) is not None:
                for _, (_, data, *_) in found:
                    yield codec.decode(data)
                if not found:
                    watch.wait(None)

    def astream(self, name: str, after: int = 0) -> AsyncIterator[object]:
        """`stream` for `async for`."""
        _check_stream(name, after)
        return self._follow_async(Follower(self._store, self._task_id(), name, after))

    async def _follow_async(self, follower: Follower) -> AsyncIterator[object]:
        with Watch(self._store) as watch:
            while (found := follower.look()) is not None:
                for _, (_, data, *_) in found:
                    yield codec.decode(data)
                if not found:
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
        stored = None if done is ... else codec.encode(done, place="done")
        if stored is not None:
            self._refuse_plain()
        self._store.commit(Resume(self.id, stored, not_done, _who()))

    def retry(self, from_step: str | None = None) -> StoredRun[T]:
        """Run a final run anew, as another run with its input, tags and key; an unfinished retry is given back.

        It inherits results for equal input up to the failure, or up to `from_step`, a step's path or name (of a name the
        first); what was undone runs again. Raises `Conflict` where it has not ended, `StepNotFound`.
        """
        started = self._store.commit(StartRetry(self.id, new_id(clock.wall()), from_step))
        return self._another(started.uid)

    def to_json(self) -> dict[str, Any]:
        """What `outlast show --json` prints of the run: all its facts, without its steps and children."""
        from ..views.runs import run_json

        return run_json(self._store, self._task_id())

    def steps(self) -> list[dict[str, Any]]:
        """Its steps in order of start, as `outlast show --json` has them."""
        return steps_json(self._store, self._task_id())

    def children(self) -> list[Run[Any]]:
        """The runs that it started, in order."""
        return [self._another(run_id) for _, run_id in children_ids(self._store, self._task_id())]

    def _another(self, run_id: str) -> StoredRun[Any]:
        """A handle of this kind for another run."""
        return StoredRun(self._store, self._settings, run_id)

    def _last_task_id(self) -> int:
        connection = self._store.connection()
        last = last_of_line(connection, self._last)
        if open_before(connection, last) is None:
            # Until the steps of the one before have ended, it may still fail, and nobody goes on.
            self._last = last
        return self._id_of(last)

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


def _check_stream(name: object, after: object) -> None:
    checked_text(name, place="The name of a stream")
    checked_whole(after, place="after", least=0)


def _who() -> str:
    """Who acts, for the record."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError, ImportError):  # A user without a name, as in some containers.
        return socket.gethostname()


def _own_error(run_id: str, status: str, data: bytes | None) -> Exception:
    if data is None:
        return OutlastError(f"Run {run_id} is {status}; no error was recorded.")
    error = codec.decode_error(data)
    # A SystemExit of the workflow must not end the process that waits for it.
    return error if isinstance(error, Exception) else RemoteError(type(error).__name__, str(error))
