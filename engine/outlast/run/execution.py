"""One claimed run on its agent: its facts, its journal, and how it ends.

Owns what runs of sync and async workflows share: the fenced entries and their order, decoded outcomes, deterministic values, the
building of parts, and the one place that turns what the code did into an ending. Refuses to call user code: `SyncRun` and `AsyncRun`
do. Once a run is `unwinding` (parked, cancelled, or its lease lost) every durable call raises again and journals nothing.
"""

from __future__ import annotations

import json
import logging
import threading
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn, Protocol
from uuid import UUID

from .. import clock, codec
from ..codec import NotDecodable
from ..codec_errors import decode_error, encode_error
from ..errors import (
    Cancelled,
    CodeMismatch,
    DeadlineExceeded,
    NotStorable,
    OutcomeUnknown,
    Parked,
    PayloadTooLarge,
    ResultTimeout,
    RunCancelled,
    Unwinding,
)
from ..handles import Current
from ..inheritance import part_id
from ..model import DEFAULT_QUEUE, derived_id, idempotency_key, step_code, workflow_code
from ..operations import COMPENSABLE, PREVIEW, Append, Claimed, ContinueAsNew, Emit, End, Entry, GiveBack, Halt, Operation, RetryRun, Start
from ..states import Ending
from ..store import queues, retrying
from ..stored_retry import retry_from, stored_retry
from . import unknown
from .history import History, Record
from .inheriting import PREVIEW_BYTES, Inheritance, entries_of, is_equal
from .tries import cause_of, pause

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

    from ..definition.definition import Definition
    from ..inheritance import Inherited
    from ..options import Options
    from ..settings import Settings
    from ..store.commit import Done
    from ..store.sqlite import SqliteStore
    from .tries import Tried

Ended = End | GiveBack | Halt | ContinueAsNew | RetryRun
"""What a run leaves by."""

log = logging.getLogger("outlast")


class Host(Protocol):
    """What a run wants of the agent that holds it."""

    store: SqliteStore
    settings: Settings
    agent_id: int
    fingerprints: dict[str, str]
    loop: asyncio.AbstractEventLoop
    """The agent's real one, with its I/O."""
    returns_suspects: bool
    """Whether a run whose suspicion has ended goes back, to run among others again."""

    def definition(self, kind: str, name: str, version: str = "") -> Definition | None: ...

    def has_room_in_memory(self) -> bool:
        """Whether one more run may wait in memory."""

    def leave_slot(self) -> None:
        """A run waits: its slot is free for another."""

    def take_slot(self) -> None:
        """A run goes on in its thread: wait for a slot."""

    def take_slot_now(self) -> None:
        """A run goes on on the loop: count it, waiting is not possible there."""

    def submit(self, operation: Operation[Any], done: Done) -> None:
        """Execute an operation in order; `done` is called on the agent's loop."""

    def on_loop(self, function: Callable[[], None]) -> None:
        """Call a function on the agent's loop, from any thread."""

    def run_in_thread(self, function: Callable[[], None]) -> None: ...

    def stray_ended(self, run: Execution, path: str, tried: Tried) -> None:
        """A try that overran has ended."""

    def overran(self, task_id: int) -> None:
        """A thread does not end: the agent must be replaced."""


class Execution:
    """The common part of a run in memory. `claimed` is its row, `history` its journal."""

    asynchronous = False

    def __init__(self, host: Host, claimed: Claimed, definition: Definition, entries: list[Entry]) -> None:
        self.host = host
        self.store = host.store
        self.claimed = claimed
        self.fence = claimed.fence
        self.definition = definition
        self.history = History(entries)
        self.inheritance = Inheritance(
            # Only a retry of a whole run has a chain that began with another run.
            retrying.load(host.store.connection(), claimed.fence.task_id) if claimed.chain != claimed.uid else {},
            self.history,
        )
        self.seq = self.history.last_seq
        self.journal_at = self.inheritance.began_at or claimed.started_at
        self.unwinding: type[Unwinding] | None = None
        self.lost = False
        self.ended = False
        self.ending_decided = False
        self.cancel_requested = claimed.cancel_requested
        self.pause_requested = False
        self.drain_requested = False
        self.late = False
        self.has_parts = self.history.has_parts
        self.agent_id = host.agent_id
        self.last_write: GiveBack | Halt | ContinueAsNew | End | None = None
        """What is to be written when the code has unwound, decided where it was told to."""
        self.strays: set[str] = set()
        self.overrunning: set[str] = set()
        """The strays among them whose threads report their own end."""
        self._clears_suspicion = claimed.alone
        self.step_names: dict[str, str] = {}
        self.step_inputs: dict[str, tuple[bytes, int]] = {}
        """What is kept of the inputs of the steps under way whose start is not in the journal, with its flags."""
        self._unpatched: set[str] = set()
        self._lock = threading.Lock()
        self.policy = retry_from(claimed.options) if claimed.options else definition.retry
        """Of the whole run."""
        self._raised: list[tuple[BaseException, Entry]] = []
        self.last_timer: Entry | None = None
        """The timer that was over last: what raised a `TimeoutError` that no outcome stands behind."""

    # -- facts -----------------------------------------------------------------------------------

    @cached_property
    def tags(self) -> dict[str, str]:
        tags: dict[str, str] = json.loads(self.claimed.tags) if self.claimed.tags else {}
        return tags

    def current(self) -> Current:
        claimed = self.claimed
        return Current(
            run_id=claimed.uid,
            workflow=claimed.name,
            parent_id=claimed.parent_uid,
            tags=self.tags,
            tick=clock.to_datetime(claimed.tick) if claimed.tick is not None else None,
            idempotency_key=claimed.chain,
        )

    def now(self) -> datetime:
        """The instant of the last delivered entry: the same on every replay."""
        return clock.to_datetime(self.journal_at)

    def uuid_at(self, path: str) -> UUID:
        # By the chain: an id that a step got as an argument is the same in a retry, else its result would not be inherited.
        digest = blake2b(f"{self.claimed.chain}\0{path}".encode(), digest_size=16).digest()
        return UUID(bytes=digest, version=4)

    def random_at(self, path: str) -> Random:
        digest = blake2b(f"{self.claimed.chain}\0rng\0{path}".encode(), digest_size=16).digest()
        return Random(int.from_bytes(digest))

    # -- values ----------------------------------------------------------------------------------

    def encode(self, value: object, *, place: str) -> bytes:
        """The stored form of a value; `NotStorable` or `PayloadTooLarge` name the offending part."""
        data = codec.encode(value, place=place)
        limit = self.host.settings.max_payload
        if len(data) > limit:
            raise PayloadTooLarge(place, len(data), limit)
        return data

    def outcome_of(self, entry: Entry) -> Any:
        """The value of an outcome, or its error raised; both as the journal has them, on first run and replay alike."""
        self.journal_at = max(self.journal_at, entry.at)
        match entry.event:
            case "completed":
                return self._stored_value(entry) if entry.data is not None else None
            case "cancelled":
                cancelled = RunCancelled(entry.data.decode() if entry.data else self.claimed.uid)
                self._raised.append((cancelled, entry))
                raise cancelled
            case _:
                error = decode_error(entry.data or b"null")
                if isinstance(error, OutcomeUnknown) and entry.kind in ("step", "task"):
                    # What on_unknown="undo" says is no error for the code to catch: it could go on as if nothing had happened.
                    self.leave_by(End(self.fence, Ending.FAILED, error=entry.data, strays=tuple(self.strays)))
                self._raised.append((error, entry))
                raise error

    def _stored_value(self, entry: Entry) -> Any:
        assert entry.data is not None
        try:
            return codec.decode(entry.data)
        except NotDecodable as error:
            if codec.is_json(entry.data):
                raise
            # Somebody, or a bad disk, has changed the file. No error for the code to handle: its undo would be as blind.
            reason = f"the file is damaged: the outcome of {entry.kind} {entry.name} at {entry.path} cannot be read"
            self.leave_by(Halt(self.fence, reason, error=encode_error(error), strays=tuple(self.strays)))

    def timed_out(self, error: BaseException, entry: Entry) -> BaseException:
        """An error that a timer stands behind."""
        self._raised.append((error, entry))
        return error

    def step_name(self, path: str) -> str:
        """The name of the step at a place, as far as the journal tells."""
        record = self.history.records.get(path)
        return record.name if record is not None else self.step_names.get(path, "?")

    # -- entries ---------------------------------------------------------------------------------

    def next_seq(self) -> int:
        with self._lock:
            self.seq += 1
            return self.seq

    def entry(self, path: str, event: str, kind: str, name: str, **facts: Any) -> Entry:
        """An entry at the end of the journal, dated now."""
        return Entry(self.next_seq(), path, event, kind, name, clock.wall(), **facts)

    def append(self, *entries: Entry, signal_id: int | None = None) -> Append:
        clears, self._clears_suspicion = self._clears_suspicion, False
        if clears and self.claimed.suspect and self.host.returns_suspects:
            # Its suspicion ends with this entry: it leaves at its next durable call, since others wait to be alone.
            self.drain_requested = True
        return Append(self.fence, list(entries), signal_id=signal_id, clears_suspicion=clears)

    def visit(self, path: str, kind: str, name: str) -> Record | None:
        """What the journal says of a place that the code has reached; None for a new one.

        A disagreement, and a journal that is full, unwind the code: an error it could catch, and go on against its journal.
        """
        try:
            record = self.history.at(path, kind, name)
        except CodeMismatch as error:
            self.leave_by(self.mismatch(error))
        if record is None and self.seq >= self.host.settings.max_entries:
            self.leave_by(
                Halt(
                    self.fence,
                    f"its journal has reached max_entries ({self.host.settings.max_entries:,}); "
                    "raise it, or let the workflow go on by continue_as_new()",
                )
            )
        return record

    def inherited(self, path: str, definition: Definition, kind: str, data: bytes) -> Inherited | None:
        """The result of the run that this one retries, for a call with equal input at this place."""
        return self.inheritance.at(path, kind, definition.name, data)

    def entries_of(self, one: Inherited, definition: Definition | None = None, data: bytes = b"") -> list[Entry]:
        """The entries that make an inherited result this run's own."""
        kept, flags = self.kept_part_input(definition, data) if definition is not None else (None, 0)
        return entries_of(one, self.next_seq, kept=kept, flags=flags)

    def asking(self, path: str, name: str, error: BaseException, number: int) -> Halt:
        """The halt by which a person is asked what a try did."""
        cause = cause_of(error)
        return Halt(
            self.fence,
            unknown.reason(name, cause, self.claimed.uid),
            strays=tuple(self.strays),
            question=unknown.question(path, name, cause, number),
        )

    def leave_by(self, operation: GiveBack | Halt | ContinueAsNew | End) -> NoReturn:
        """Unwind the code, and write this when it has unwound."""
        if self.last_write is None:
            self.last_write = operation
        self.unwind(Parked)

    def patch(self, change_id: str, *, is_replaying: bool) -> tuple[bool, Entry | None]:
        """What `patched` answers, and the marker to journal. A run that is past the change's place keeps the old code."""
        path = f"patch:{change_id}"
        if path in self.history.records:
            return True, None
        if change_id in self._unpatched:
            return False, None
        if self.inheritance.at(path, "patch", change_id) is None and (is_replaying or self.inheritance.is_ahead()):
            self._unpatched.add(change_id)
            return False, None
        self.history.mark(path, "patch", change_id)
        return True, self.entry(path, "completed", "patch", change_id)

    # -- steps and parts -------------------------------------------------------------------------

    def named_input(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        named = definition.signature.named(args, kwargs)
        return self.encode(named, place=f"the arguments of {definition.name}")

    def kept_input(self, definition: Definition, data: bytes) -> tuple[bytes, int]:
        """What the journal keeps of an input, with its flags: all of it only where something may need it."""
        flags = COMPENSABLE if definition.compensated_by is not None else 0
        needed = flags or unknown.asks(definition)
        if needed or len(data) <= PREVIEW_BYTES:
            return data, flags
        return codec.preview(data, PREVIEW_BYTES), flags | PREVIEW

    @staticmethod
    def keeps_start(definition: Definition, flags: int) -> bool:
        """Whether the start of a step is journalled before it runs: somebody may have to undo it, or to ask what it did."""
        return bool(flags & COMPENSABLE) or unknown.asks(definition)

    def kept_part_input(self, definition: Definition, data: bytes) -> tuple[bytes, int]:
        """As `kept_input`, and notes that there may be something to undo."""
        kept, flags = self.kept_input(definition, data)
        self.has_started_compensable = self.has_started_compensable or bool(flags & COMPENSABLE)
        return kept, flags

    def step_key(self, path: str) -> str:
        return idempotency_key(self.claimed.chain, path, generation=self.history.key_generation(path) + self.inheritance.generation(path))

    def part(self, path: str, definition: Definition, data: bytes, options: Options, *, is_child: bool) -> Start:
        """The start of a child or a submitted step at a place; its id is the same on every replay."""
        claimed = self.claimed
        queue = options.queue or definition.queue or (DEFAULT_QUEUE if is_child else claimed.queue)
        timeout = options.timeout_seconds if options.timeout_seconds is not None else definition.timeout_seconds
        if queue != claimed.queue and not queues.exists(self.store.connection(), queue):
            raise queues.not_found(self.store.connection(), queue)
        return Start(
            uid=derived_id(claimed.uid, path, generation=self.history.generation(path)),
            kind="run" if is_child else "step",
            name=definition.name,
            needs=workflow_code(definition.name, definition.version) if is_child else step_code(definition.name),
            version=definition.version,
            queue=queue,
            input=data,
            partition=self._partition_of(queue, options),
            priority=options.priority or claimed.priority,
            delay=round(options.delay_seconds * clock.SECOND) if options.delay_seconds is not None else None,
            at_wall=clock.from_datetime(options.at) if options.at is not None else None,
            key=options.key if is_child else None,
            unique_key=options.unique_key if is_child else None,
            if_exists=options.if_exists,
            debounce=_microseconds(options.debounce_seconds) if is_child else None,
            debounce_max=_microseconds(options.debounce_max_seconds) if is_child else None,
            tags=json.dumps(dict(options.tags)) if options.tags else claimed.tags if is_child else None,
            timeout=round(timeout * clock.SECOND) if timeout is not None else None,
            parent_id=self.fence.task_id,
            parent_path=path,
            retry_of=self._child_before(path, definition.name, data) if is_child else None,
            chain="" if is_child else claimed.chain,
            idempotency_key=self.step_key(path),
            options=stored_retry(options.retry) if options.retry is not None else None,
            max_crashes=definition.max_crashes,
        )

    def _child_before(self, path: str, name: str, data: bytes) -> str | None:
        """The child that had stood here for the same input and not completed: the new one goes on from there."""
        aside = self.history.child_set_aside(path, name)
        if aside is not None and is_equal(aside.input, data, is_preview=bool(aside.flags & PREVIEW)):
            return part_id(aside)
        return self.inheritance.child_before(path, name, data)

    def _partition_of(self, queue: str, options: Options) -> str | None:
        """A part waits in its run's partition, unless it waits in another queue or was given one of its own."""
        if options.partition is not None or queue != self.claimed.queue:
            return options.partition
        return self.claimed.partition

    def log(self, message: dict[str, Any]) -> None:
        """A record that the workflow's code has logged: kept once, not again on replay."""
        if self.unwinding is None and not self.history.is_ahead():
            data = codec.encode(message, place="a log record")
            self.store.submit(Emit(self.fence, None, "log", [data]))

    # -- endings ---------------------------------------------------------------------------------

    def check_intents(self) -> None:
        """Begin to unwind where somebody wants the run to stop; unwinding again where it has begun."""
        if self.unwinding is not None:
            raise self.unwinding
        if self.cancel_requested or self.late:
            self.unwind(Cancelled)
        if self.pause_requested or self.drain_requested:
            self.give_back()

    def unwind(self, kind: type[Unwinding]) -> NoReturn:
        self.unwinding = kind
        raise kind

    def give_back(self) -> None:
        """Leave the agent where the code stands; it comes back by replay."""
        raise NotImplementedError  # pragma: no cover

    def ending_of(self, returned: bool, value: Any) -> Ended | None:
        """What to write when the code has ended: by a value, by an error, or by unwinding."""
        if self.lost or self.ending_decided:
            return None
        if self.last_write is not None:
            return self.last_write
        if self.unwinding is Parked:
            return None
        if self.unwinding is Cancelled:
            return self.abort()
        if returned:
            try:
                self.history.check_end()
                data = self.encode(value, place="the result")
                return End(
                    self.fence,
                    Ending.COMPLETED,
                    output=data,
                    simple=not (self.has_parts or self.claimed.cancel_requested or self.cancel_requested),
                )
            except (NotStorable, PayloadTooLarge, CodeMismatch) as error:
                value = error
        elif not self.asynchronous and not isinstance(value, CodeMismatch):
            # An async run has refused this where it ended. Code that fails where it once went on is other code.
            try:
                self.history.check_end(f"the end of the workflow, by {type(value).__name__}: {_first_line(value)}")
            except CodeMismatch as error:
                value = error
        if isinstance(value, CodeMismatch):
            return self.mismatch(value)
        number = self.claimed.tries + 1
        is_its_own = not isinstance(value, NotStorable | PayloadTooLarge) or not returned
        if is_its_own and self.policy.wants(value, number):
            failed, branches = self._to_set_aside(value)
            return RetryRun(self.fence, failed, branches, pause(self.policy, value, number), number)
        error_data = encode_error(value)
        if getattr(self.definition, "on_error", "fail") == "halt":
            return Halt(
                self.fence,
                f"{type(value).__name__}: {_first_line(value)}",
                error_data,
                tuple(self.strays),
                *self._to_set_aside(value),
            )
        failed, branches = self._to_set_aside(value)
        return End(
            self.fence,
            Ending.FAILED,
            error=error_data,
            simple=not (self.has_parts or self.has_undo() or self.strays),
            strays=tuple(self.strays),
            failed=failed,
            branches=branches,
        )

    def _to_set_aside(self, error: BaseException) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The places of the outcomes whose error ended the run, and the branches that saw it."""
        entries = self._behind(error) or self._timer_behind(error)
        if not entries:
            return (), ()
        paths = tuple(entry.path for entry in entries)
        return paths, self.branches_that_saw(paths, min(entry.seq for entry in entries))

    def branches_that_saw(self, paths: tuple[str, ...], seq: int) -> tuple[str, ...]:
        """The prefixes of the branches that an outcome at `seq` has reached."""
        return ("",)

    def _behind(self, error: BaseException) -> list[Entry]:
        """The outcomes behind an error: itself, its group's members, or the nearest in its cause chain."""
        seen: set[int] = set()
        at: BaseException | None = error
        while at is not None and id(at) not in seen:
            seen.add(id(at))
            found = [entry for raised, entry in self._raised if raised is at]
            if not found and isinstance(at, BaseExceptionGroup):
                found = [entry for member in at.exceptions for entry in self._behind(member)]
            if found:
                return found
            at = at.__cause__ or at.__context__
        return []

    def _timer_behind(self, error: BaseException) -> list[Entry]:
        """The timer of an `asyncio.timeout`, whose error no outcome gave."""
        seen: set[int] = set()
        at: BaseException | None = error
        while at is not None and id(at) not in seen and self.last_timer is not None:
            seen.add(id(at))
            members = at.exceptions if isinstance(at, BaseExceptionGroup) else (at,)
            if any(isinstance(member, TimeoutError | ResultTimeout) for member in members):
                return [self.last_timer]
            at = at.__cause__ or at.__context__
        return []

    def successor(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ContinueAsNew:
        """The end of this run and the start of the next, with other arguments."""
        claimed = self.claimed
        return ContinueAsNew(
            self.fence,
            Start(
                uid=derived_id(claimed.uid, "continue_as_new"),
                kind="run",
                name=claimed.name,
                needs=claimed.needs,
                queue=claimed.queue,
                input=self.named_input(self.definition, args, dict(kwargs)),
                version=claimed.version,
                partition=claimed.partition,
                priority=claimed.priority,
                tags=claimed.tags,
                tick=claimed.tick,
            ),
        )

    def abort(self) -> End:
        """The ending of a run that is cancelled, or past its deadline."""
        if self.late and not self.cancel_requested:
            error = encode_error(DeadlineExceeded(self.claimed.uid))
            return End(self.fence, Ending.FAILED, error=error, strays=tuple(self.strays))
        return End(self.fence, Ending.CANCELLED, strays=tuple(self.strays))

    def mismatch(self, error: CodeMismatch) -> GiveBack | Halt:
        """Code that disagrees with the journal: a task for other code while such an agent lives, else for a person."""
        fingerprint = self.host.fingerprints.get(self.claimed.needs, "")
        if self._others_have_other_code(fingerprint):
            return GiveBack(self.fence, refused=fingerprint)
        return Halt(self.fence, f"the code disagrees with the journal: {error.message}", error=encode_error(error))

    def has_undo(self) -> bool:
        return (
            any(record.started is not None and record.started.flags & COMPENSABLE for record in self.history.records.values())
            or self.has_started_compensable
        )

    has_started_compensable = False

    def _others_have_other_code(self, fingerprint: str) -> bool:
        row = self.store.connection().execute(
            _OTHER_CODE,
            {"needs": self.claimed.needs, "fingerprint": fingerprint, "now": self.store.now(), "id": self.fence.task_id},
        )
        return row.fetchone() is not None


_OTHER_CODE = """
select 1
from outlast_agent_code c join outlast_agent a on a.id = c.agent_id
where c.needs = :needs and a.status = 'active' and a.lease_until > :now and c.fingerprint <> :fingerprint
  and c.fingerprint not in (
    select value from json_each(coalesce((select refused from outlast_input where task_id = :id), '[]')))
limit 1
"""


def _first_line(error: object) -> str:
    try:
        lines = str(error).splitlines()
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything
        return ""
    return lines[0][:500] if lines else ""


def _microseconds(seconds: float | None) -> int | None:
    return round(seconds * clock.SECOND) if seconds is not None else None
