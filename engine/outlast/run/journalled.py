"""A claimed run by its journal: its facts, its values, and the fenced entries in their order.

Owns what each durable call of either colour does with a place: what the journal says of it, the entry that is written, and the decoded
outcome. Refuses to say how the run ends: it begins to unwind, and `Execution` turns that into an ending. Once a run is `unwinding`
(parked, cancelled, or its lease lost) every durable call raises again and journals nothing.
"""

from __future__ import annotations

import json
import threading
from datetime import datetime
from functools import cached_property
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import UUID

from .. import clock, codec
from ..codec import NotDecodable, payloads
from ..codec.errors import decode_error, encode_error
from ..definition.stored_retry import retry_from
from ..errors import (
    CodeMismatch,
    OutcomeUnknown,
    Parked,
    PayloadNotEncoded,
    PayloadTooLarge,
    PayloadUnreadable,
    RunCancelled,
    Unwinding,
)
from ..handles import Current
from ..journal.entry import COMPENSABLE, PREVIEW, Entry
from ..model import idempotency_key
from ..operations import Append, ContinueAsNew, End, GiveBack, Halt, Park
from ..operations.claimed import Claimed, Wanted
from ..states import Ending
from ..store import agents, retrying, sealing
from . import damage, unknown
from .held import Held
from .history import History, Record, void
from .inheriting import PREVIEW_BYTES, Inheritance, entries_of
from .tries import cause_of
from .when_used import when_used

if TYPE_CHECKING:
    from ..definition.definition import Definition
    from ..journal.inheritance import Inherited
    from .host import Host
    from .tries import Tried


class Journalled(Held):
    """A run in memory. `claimed` is its row, `history` its journal."""

    asynchronous = False
    has_started_compensable = False
    unwinding: type[Unwinding] | None = None
    wanted: Wanted | None = None
    last_write: GiveBack | Halt | ContinueAsNew | End | Park | None = None
    """What is to be written when the code has unwound, decided where it was told to."""
    last_timer: Entry | None = None
    """The timer that was over last: what raised a `TimeoutError` that no outcome stands behind."""
    step_names = when_used(dict[str, str])
    step_inputs = when_used(dict[str, tuple[bytes, int]])
    """What is kept of the inputs of the steps under way whose start is not in the journal, with its flags."""
    _unpatched = when_used(set[str])
    _raised = when_used(list[tuple[BaseException, Entry]])
    _lock = when_used(threading.Lock)

    def __init__(self, host: Host, claimed: Claimed, definition: Definition, entries: list[Entry]) -> None:
        super().__init__(host, claimed)
        self.store = host.store
        self.definition = definition
        self.history = History(entries)
        self.seq = self.history.last_seq
        self.journal_at = (self.inheritance.began_at if self._is_retry else None) or claimed.started_at
        self.cancel_requested = claimed.cancel_requested
        self.has_parts = self.history.has_parts
        self._clears_suspicion = claimed.alone
        self.policy = retry_from(claimed.options) if claimed.options else definition.retry
        """Of the whole run."""

    @property
    def _is_retry(self) -> bool:
        """Whether its chain began with another run: that of the retry of a whole run."""
        return self.claimed.chain != self.claimed.uid

    @cached_property
    def inheritance(self) -> Inheritance:
        """What it takes from the run that it retries."""
        inherited = retrying.load(self.store.connection(), self.fence.task_id).values() if self._is_retry else ()
        return Inheritance({one.path: one for one in sealing.opened(inherited)}, self.history)

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
        if entry.data is not None and entry.data[:1] == payloads.SEALED:
            entry = self._opened(entry)
        match entry.event:
            case "completed":
                return self._stored_value(entry) if entry.data is not None else None
            case "cancelled":
                cancelled_id = entry.data.decode(errors="replace") if entry.data else self.claimed.uid
                part = "" if entry.kind == "child" else f"Step {entry.name} (at {entry.path})"
                cancelled = RunCancelled(cancelled_id, part=part)
                self._raised.append((cancelled, entry))
                raise cancelled
            case _:
                error = self._stored_error(entry)
                if isinstance(error, OutcomeUnknown) and entry.kind in ("step", "task"):
                    # What on_unknown="undo" says is no error for the code to catch: it could go on as if nothing had happened.
                    self.leave_by(End(self.fence, Ending.FAILED, error=entry.data, strays=tuple(self.strays)))
                self._raised.append((error, entry))
                raise error

    def _opened(self, entry: Entry) -> Entry:
        """The outcome of a part, or a signal, as others have stored it. What cannot be read is no error for the code to handle."""
        try:
            return sealing.opened([entry])[0]
        except PayloadUnreadable as error:
            self.leave_by(self.halt_of_codec(error))

    def halt_of_codec(self, error: PayloadUnreadable | PayloadNotEncoded) -> Halt:
        return Halt(self.fence, str(error), strays=tuple(self.strays))

    def _stored_value(self, entry: Entry) -> Any:
        assert entry.data is not None
        try:
            return codec.decode(entry.data)
        except NotDecodable as error:
            self._leave_unread(entry, error)

    def _stored_error(self, entry: Entry) -> BaseException:
        try:
            return decode_error(entry.data or b"null")
        except NotDecodable as error:
            self._leave_unread(entry, error)

    def _leave_unread(self, entry: Entry, error: NotDecodable) -> NoReturn:
        what = f"the outcome of {entry.kind} {entry.name} at {entry.path}"
        self.leave_by(damage.halt(self.fence, what, entry.data or b"", error, strays=self.strays))

    def arguments(self) -> tuple[tuple[object, ...], dict[str, object]]:
        """What the code is called with."""
        try:
            named = codec.decode_input(self.claimed.input)
        except NotDecodable as error:
            self.leave_by(damage.halt(self.fence, "its input", self.claimed.input, error))
        return self.definition.signature.call(named)

    def timed_out(self, error: BaseException, entry: Entry) -> BaseException:
        """An error that a timer stands behind."""
        self._raised.append((error, entry))
        return error

    def step_name(self, path: str) -> str:
        """The name of the step at a place, as far as the journal tells."""
        record = self.history.records.get(path)
        return record.name if record is not None else self.step_names.get(path, "?")

    def late_outcome(self, path: str, tried: Tried) -> Entry:
        given, flags = self.step_inputs.get(path, (None, 0))
        return Entry(
            0, path, "completed", "step", self.step_name(path), clock.wall(), try_number=1, started_at=tried.started_at,
            data=tried.output, input=given, flags=flags,
        )  # fmt: skip

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
        gaps, self.history.gaps = self.history.gaps, []
        fillers = [void(seq, "lost", entries[0].at) for seq in gaps]
        return Append(self.fence, [*entries, *fillers], signal_id=signal_id, clears_suspicion=clears)

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
                    "raise it, or let the workflow continue with continue_as_new()",
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

    def leave_by(self, operation: GiveBack | Halt | ContinueAsNew | End | Park) -> NoReturn:
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

    def is_to_end(self) -> bool:
        return self.cancel_requested or self.late or self.wanted is Wanted.CANCEL

    def is_to_leave(self) -> bool:
        return self.pause_requested or self.drain_requested or self.wanted is not None

    def heed(self, answer: object) -> None:
        """Note what a write tells is wanted of the run, before its agent has read of it."""
        self.wanted = answer if isinstance(answer, Wanted) else self.wanted

    def unwind(self, kind: type[Unwinding]) -> NoReturn:
        self.unwinding = kind
        raise kind

    def mismatch(self, error: CodeMismatch) -> GiveBack | Halt:
        """Code that disagrees with the journal: a task for other code while such an agent lives, else for a person."""
        fingerprint = self.host.fingerprints.get(self.claimed.needs, "")
        now = self.store.now()
        if agents.others_have_other_code(self.store.connection(), self.claimed.needs, fingerprint, self.fence.task_id, now=now):
            return GiveBack(self.fence, refused=fingerprint)
        return Halt(self.fence, f"the code disagrees with the journal: {error.message}", error=encode_error(error))
