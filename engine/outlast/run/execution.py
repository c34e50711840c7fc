"""One claimed run on its agent: the parts that it starts, and how it ends.

Owns what runs of sync and async workflows share beyond their journal (`Journalled`): the building of parts, and the one place that turns
what the code did into an ending. Refuses to call user code: `SyncRun` and `AsyncRun` do.
"""

from __future__ import annotations

import json
import logging
from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import clock, codec
from ..codec import payloads
from ..codec.errors import encode_error
from ..definition.stored_retry import stored_retry
from ..errors import (
    Cancelled,
    CodeMismatch,
    DeadlineExceeded,
    NotStorable,
    Parked,
    PayloadNotEncoded,
    PayloadTooLarge,
    PayloadUnreadable,
    ResultTimeout,
)
from ..journal.entry import COMPENSABLE, PREVIEW, Entry
from ..journal.inheritance import part_id
from ..model import DEFAULT_QUEUE, derived_id, step_code, workflow_code
from ..operations import ContinueAsNew, Emit, End, GiveBack, Halt, Park, RetryRun, Start
from ..states import Ending
from ..store import queues
from .inheriting import is_equal
from .journalled import Journalled
from .tries import pause

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from ..definition.definition import Definition
    from ..definition.options import Options
    from ..handles import Handle, Run
    from .parts import Part

Ended = End | GiveBack | Halt | ContinueAsNew | RetryRun | Park
"""What a run leaves by."""

log = logging.getLogger("outlast")


class Execution(Journalled):
    """The common part of a run of either colour."""

    def submit(self, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Handle[Any]:
        return self.start_part("task", definition, args, kwargs, options)

    def start(self, workflow: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Run[Any]:
        part: Any = self.start_part("child", workflow, args, kwargs, options)
        return part  # type: ignore[no-any-return]

    @abstractmethod
    def uuid4(self) -> UUID:
        """The same at this place on every replay."""

    def keyed(self, options: Options) -> Options:
        # Not a child, and not in the journal: by its place a replay gets the same run.
        return options if options.key is not None else replace(options, key=str(self.uuid4()))

    @abstractmethod
    def start_part(self, kind: str, definition: Definition, args: tuple[Any, ...], kwargs: dict[str, Any], options: Options) -> Part[Any]:
        """Start a child or a submitted step at the next place, or find it there; its handle at once."""

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
        if isinstance(value, PayloadUnreadable | PayloadNotEncoded) and not returned:
            return self.halt_of_codec(value)
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
                because = payloads.told(value, first_line(value)).removesuffix(".")
                self.history.check_end(f"the end of the workflow, by {type(value).__name__}: {because}")
            except CodeMismatch as error:
                value = error
        if isinstance(value, CodeMismatch):
            return self.mismatch(value)
        number = self.claimed.tries + 1
        if not self._is_spoiled(value) and self.policy.wants(value, number):
            failed, branches = self._to_set_aside(value)
            return RetryRun(self.fence, failed, branches, pause(self.policy, value, number), number)
        error_data = encode_error(value)
        if getattr(self.definition, "on_error", "fail") == "halt":
            return Halt(
                self.fence,
                payloads.told(value, f"{type(value).__name__}: {first_line(value)}"),
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

    def _is_spoiled(self, error: BaseException) -> bool:
        """Whether something that cannot be stored is behind an error: its effect has happened, and would be repeated."""
        behind = {entry.path for entry in self._behind(error)}
        errors = [error, *(raised for raised, entry in self._raised if entry.path in behind)]
        return any(isinstance(one, NotStorable | PayloadTooLarge) for one in errors)

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

    def has_undo(self) -> bool:
        return self.has_started_compensable or any(
            record.started is not None and record.started.flags & COMPENSABLE for record in self.history.all_records()
        )


def first_line(error: object) -> str:
    try:
        lines = str(error).splitlines()
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything
        return ""
    return lines[0][:500] if lines else ""


def _microseconds(seconds: float | None) -> int | None:
    return round(seconds * clock.SECOND) if seconds is not None else None
