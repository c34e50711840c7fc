"""A replay that stops where the journal does: the workflow's body runs, no step does, and nothing is written.

Owns both colours of such a run and what it has found: a disagreement, or the place where the run stands, with arguments that have
changed since and patches that the code asked about. Refuses a store: what a durable call would write ends the replay instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from .. import codec
from ..codec import NotDecodable
from ..errors import CodeMismatch, Parked
from ..journal.entry import PREVIEW, Entry
from ..operations import ContinueAsNew, End, GiveBack, Halt, Park
from ..operations.claimed import Claimed
from ..settings import Settings
from .async_run import AsyncRun
from .execution import Execution
from .history import Record
from .inheriting import PREVIEW_BYTES
from .sync_run import SyncRun

if TYPE_CHECKING:
    from ..definition.definition import Definition
    from ..definition.options import Options
    from ..handles import Handle, Run


@dataclass(slots=True)
class Found:
    """What a replay has found."""

    difference: CodeMismatch | None = None
    error: BaseException | None = None
    """What the workflow's body ended by, if by an error: on an agent it would end the run."""
    ended: bool = False
    warnings: list[str] = field(default_factory=list)
    patches: dict[str, bool] = field(default_factory=dict)
    """The changes that the code asked about, with the answer of this run."""


class _NoLoop:
    """There is no agent, so there is no loop of one."""


class _ReadOnly:
    """The store of a replay: it can be read, and forgets what it is given."""

    def __init__(self, connection: Callable[[], Any], now: Callable[[], int]) -> None:
        self.connection = connection
        self.now = now

    def submit(self, operation: Any, done: Any = None) -> None:
        """Nothing: whoever replays has no outcome to wait for."""


class ReplayHost:
    """What a replayed run finds in the place of an agent."""

    agent_id = 0
    is_draining = False

    def __init__(self, connection: Callable[[], Any], now: Callable[[], int], settings: Settings | None = None) -> None:
        self.store = _ReadOnly(connection, now)
        self.settings = settings or Settings()
        self.fingerprints: dict[str, str] = {}
        self.loop = _NoLoop()

    def has_room_in_memory(self) -> bool:
        return True

    def leave_slot(self) -> None: ...

    def take_slot(self) -> None: ...

    def take_slot_now(self) -> None: ...

    def submit(self, operation: Any, done: Any) -> None: ...

    def on_loop(self, function: Any) -> None: ...

    def run_in_thread(self, function: Any) -> None: ...

    def stray_ended(self, run: Any, path: str, tried: Any) -> None: ...

    def overran(self, task_id: int) -> None: ...


def replay(host: ReplayHost, claimed: Claimed, definition: Definition, entries: list[Entry]) -> Found:
    """Run a workflow's body over a journal, as far as that goes. An endless loop in the body does not come back."""
    if definition.asynchronous:
        return _AsyncReplay(host, claimed, definition, entries, finished=lambda *_: None).go()
    return _SyncReplay(host, claimed, definition, entries).go()


def replay_within(seconds: float, host: ReplayHost, claimed: Claimed, definition: Definition, entries: list[Entry]) -> Found | None:
    """`replay` in a thread of its own, which is left to itself where it takes longer; then None."""
    answer: list[Found] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(replay(host, claimed, definition, entries))
        except BaseException as error:  # noqa: BLE001 - carried over to the thread that asked
            failure.append(error)

    thread = threading.Thread(target=run, name="outlast-replay", daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    return answer[0] if answer else None


class _Replay(Execution):
    """What both colours do: look at each place, and keep what disagrees."""

    _given: tuple[Definition, tuple[Any, ...], dict[str, Any]] | None = None
    """The call that comes to its place next."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.found = Found()
        self.cancel_requested = False

    def submit(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Handle[Any]:
        self._given = definition, args, kwargs
        return super().submit(definition, args, kwargs, options)

    def start(self, workflow: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Run[Any]:
        self._given = workflow, args, kwargs
        return super().start(workflow, args, kwargs, options)

    def patch(self, change_id: str, *, is_replaying: bool) -> tuple[bool, Entry | None]:
        decided, entry = super().patch(change_id, is_replaying=is_replaying)
        self.found.patches.setdefault(change_id, decided)
        return decided, entry

    def mismatch(self, error: CodeMismatch) -> GiveBack | Halt:
        self.found.difference = error
        return Halt(self.fence, error.message)

    def _leave_unread(self, entry: Entry, error: NotDecodable) -> NoReturn:
        # On an agent this halts the run. Code that merely stopped here would be blamed for what the journal holds beyond, or not at all.
        found = f"no way to read its outcome: {error.message.removesuffix('.')}"
        self.found.difference = self.found.difference or CodeMismatch(entry.path, recorded=f"{entry.kind} {entry.name}", found=found)
        super()._leave_unread(entry, error)

    def leave_by(self, operation: GiveBack | Halt | ContinueAsNew | End | Park) -> NoReturn:
        self.found.ended |= isinstance(operation, ContinueAsNew)
        super().leave_by(operation)

    def ending_of(self, returned: bool, value: Any) -> Any:
        if self.unwinding is None:
            self.found.ended, self.found.error = True, None if returned else value
        return super().ending_of(returned, value)

    def compare(self, record: Record | None) -> None:
        given, self._given = self._given, None
        if record is None or given is None:
            return
        definition, args, kwargs = given
        stored = next((e for e in (record.started, record.tried, record.outcome) if e is not None and e.input is not None), None)
        if stored is None or stored.input is None:
            return
        try:
            data = codec.encode(definition.signature.named(args, kwargs), place=f"the arguments of {definition.name}")
        except Exception as error:  # noqa: BLE001 - whatever does not fit is what is to be told
            self.found.warnings.append(f"{record.name} (at {record.path}) is called with what cannot be stored: {error}")
            return
        is_preview = bool(stored.flags & PREVIEW)
        if stored.input == (codec.preview(data, PREVIEW_BYTES) if is_preview else data):
            return
        before, after = (codec.decode(one) for one in (stored.input, codec.preview(data, PREVIEW_BYTES)))
        self.found.warnings.append(
            f"{record.name} (at {record.path}) was called with {before!r} and is called with {after!r}"
            + (" (beginnings of both)" if is_preview else "")
        )


class _SyncReplay(_Replay, SyncRun):
    def go(self) -> Found:
        self.execute()
        if self.found.difference is None and not self.found.ended:
            # It stands at a place that has no outcome yet: whatever was journalled must have been passed by then.
            for ahead in self.history.ahead():
                self.found.difference = CodeMismatch(ahead.path, recorded=f"{ahead.kind} {ahead.name}", found="a wait for something else")
                break
        return self.found

    def _beyond(self) -> Any:
        self.unwind(Parked)

    def call(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Any:
        self._given = definition, args, kwargs
        return super().call(definition, args, kwargs, options)

    def visit(self, path: str, kind: str, name: str) -> Record | None:
        record = super().visit(path, kind, name)
        if record is None and kind in ("task", "child"):
            self._beyond()
        self.compare(record)
        return record

    def _run_step(self, *_: Any) -> Any:
        self._beyond()

    def _wait(self, ready: Callable[[], bool], **_: Any) -> None:
        if not ready():
            self._beyond()

    def _commit(self, operation: Any) -> Any:
        self._beyond()

    def _flush(self) -> None: ...


class _AsyncReplay(_Replay, AsyncRun):
    def go(self) -> Found:
        self.begin()
        return self.found

    async def _call(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Any:
        self._given = definition, args, kwargs
        return await super()._call(definition, args, kwargs, options)

    def visit(self, path: str, kind: str, name: str) -> Record | None:
        record = super().visit(path, kind, name)
        self.compare(record)
        return record

    def _start_fresh(self) -> bool:
        return False

    def _write(self, entry: Entry, **_: Any) -> None: ...

    def _submit(self, operation: Any, done: Any) -> None: ...

    def _rest(self) -> None:
        """Every branch waits for what is not in the journal: here the replay ends."""
        self.unwinding = Parked
        self.ended = True
        self._close()
