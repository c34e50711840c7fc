"""A submitted step on its agent: one try, then its end or its next try.

Owns the execution of a task of kind `step`: the try, and what is written under the task's own fence. The run that submitted it copies
the outcome into its journal when it takes it. Refuses to wait in memory for the next try: the task goes back with a `due_at` ahead.
"""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import TYPE_CHECKING

from .. import clock
from ..codec.errors import encode_error
from ..definition.retry import Retry
from ..definition.stored_retry import retry_from
from ..errors import LeaseLost, OutcomeUnknown, PayloadNotEncoded, PayloadUnreadable
from ..handles import Current
from ..journal.entry import Entry
from ..model import idempotency_key
from ..operations import Again, Append, End, Halt
from ..operations.claimed import Claimed
from ..states import Ending
from ..store import journal, last_writes, sealing
from . import damage, execute, strays, transactional, unknown
from .execute import StepCall, ThreadTry
from .held import Held
from .tries import INTERRUPTED, Tried, cause_of, is_worth_another, pause

if TYPE_CHECKING:
    from ..definition.definition import Definition
    from ..store.transaction import Transaction
    from .host import Host

Outcome = End | Again | Halt | None


class TaskRun(Held):
    """One claim of a submitted step."""

    def __init__(self, host: Host, claimed: Claimed, definition: Definition) -> None:
        super().__init__(host, claimed)
        self.definition = definition
        self.is_on_loop = definition.asynchronous
        self.cancel_requested = claimed.cancel_requested
        self.number = claimed.tries + 1
        self.task: asyncio.Task[None] | None = None
        """What executes an async step on the agent's loop."""
        self._probe_tries = 0
        self.policy: Retry = retry_from(claimed.options) if claimed.options else definition.retry
        timeout = claimed.timeout / clock.SECOND if claimed.timeout is not None else definition.timeout_seconds
        self.call = StepCall(
            definition, claimed.input, claimed.parent_path or "", self._facts, self._key, timeout, self.fence, host.store,
            host.settings.max_payload, claimed.parent_id or claimed.fence.task_id,
        )  # fmt: skip

    def _key(self) -> str:
        claimed = self.claimed
        return claimed.idempotency_key or idempotency_key(claimed.chain, claimed.parent_path or "")

    def _facts(self) -> Current:
        claimed = self.claimed
        return Current(
            run_id=claimed.parent_uid or claimed.uid,
            workflow=claimed.parent_name or "",
            parent_id=claimed.grandparent_uid,
            tags=json.loads(claimed.tags) if claimed.tags else {},
            tick=clock.to_datetime(claimed.tick) if claimed.tick is not None else None,
            idempotency_key=claimed.chain,
        )

    @property
    def is_in_threads(self) -> bool:
        return not (self.ended or self.is_on_loop)

    @property
    def run_id(self) -> int | None:
        return self.claimed.parent_id

    def late_outcome(self, path: str, tried: Tried) -> Entry | None:
        if self.run_id is None:
            return None
        return Entry(
            0, self.claimed.parent_path or "", "completed", "task", self.definition.name, clock.wall(), try_number=1,
            started_at=tried.started_at, data=tried.output,
        )  # fmt: skip

    def execute(self) -> Outcome:
        """One try in this thread; gives what is to be written."""
        tried: Tried | None = None
        operation: Outcome = None
        try:
            operation = damage.of_input(self.claimed)
            if operation is None and unknown.asks(self.definition):
                operation = self._begin()
            if operation is None:
                tried = self._try()
                operation = self.after(tried)
        except LeaseLost:
            self.lost = True
        except (PayloadUnreadable, PayloadNotEncoded) as error:
            operation = Halt(self.fence, str(error))
        finally:
            self.ended = True
            strays.code_ended(self, ("", tried) if tried is not None else None)
        return operation

    async def execute_on_loop(self) -> Outcome:
        operation: Outcome = damage.of_input(self.claimed)
        if operation is None and unknown.asks(self.definition):
            operation = await asyncio.to_thread(self._begin)
        if operation is None:
            tried = await execute.run_on_loop(self.call, self.number)
            asks = tried.unknown and unknown.asks(self.definition)
            operation = await asyncio.to_thread(self.after, tried) if asks else self.after(tried)
        self.ended = True
        return operation

    def _begin(self) -> Outcome:
        """Of a step that wants to know what its tries did: say that one begins; but first what became of one that was left."""
        journal_of_it = unknown.TaskJournal.read(sealing.opened(journal.load(self.host.store.connection(), self.fence.task_id)))
        self._probe_tries = journal_of_it.probe_tries
        if journal_of_it.done is not None:
            return End(self.fence, Ending.COMPLETED, output=journal_of_it.done, tries=self.number, simple=True)
        if journal_of_it.began:
            operation = self._find_out(OutcomeUnknown(self.definition.name, INTERRUPTED))
            if operation is not None:
                return operation
        entry = Entry(
            journal_of_it.last_seq + 1, "", "started", "step", self.definition.name, clock.wall(), try_number=self.number,
            started_at=clock.wall(),
        )  # fmt: skip
        self.host.store.commit(Append(self.fence, [entry], clears_suspicion=self.claimed.alone))
        return None

    def _find_out(self, error: BaseException) -> Outcome:
        """What follows from a try of unknown outcome; None where it is known to have done nothing."""
        name = self.definition.name
        if self.definition.probed_by is None:
            if self.definition.on_unknown == "halt":
                return self._ask(error)
            stored = encode_error(OutcomeUnknown(name, cause_of(error)))
            return End(self.fence, Ending.FAILED, error=stored, tries=self.number, simple=True)
        number = self._probe_tries + 1
        found = unknown.run_probe(self.call, number, self.host.loop)
        if found.nothing:
            return None
        if found.error is None:
            return End(self.fence, Ending.COMPLETED, output=found.output, tries=self.number, simple=True)
        if not is_worth_another(self.policy, found.error, number):
            return self._ask(found.error)
        delay = pause(self.policy, found.error, number)
        entry = unknown.probe_entry("", name, found, number=number, due_at=None, data=encode_error(found.error))
        return Again(self.fence, entry, delay, self.claimed.tries)

    def _ask(self, error: BaseException) -> Halt:
        name, cause = self.definition.name, cause_of(error)
        run_id = self.claimed.parent_uid or self.claimed.uid
        return Halt(self.fence, unknown.reason(name, cause, run_id), question=unknown.question("", name, cause, self.number))

    def _try(self) -> Tried:
        if self.definition.kind == "transaction":
            return transactional.run_transaction(
                self.call, self.number, entry_of=self._transaction_entry, committed=self._end_in_transaction
            )
        if self.definition.isolate:
            isolated = execute.isolated_try(self.call, self.number)
            self.kill_isolated = isolated.kill
            return isolated.run()
        if self.call.timeout_seconds is not None:
            thread = ThreadTry(self.call, self.number, on_late_end=self._late_end, on_overrun=partial(strays.goes_on, self))
            tried = thread.run()
            if thread.overran and unknown.asks(self.definition) and (late := self._wait_for(thread)) is not None:
                return late
            if thread.overran and self._is_worth_another(tried) and self._counts() and self._wait_for(thread) is not None:
                return tried
            if thread.overran:
                self.overrunning.add("")
                self.strays.add("")
                if thread.wait(0):
                    self.strays.discard("")
                    self.overrunning.discard("")
            return tried
        return execute.run_here(self.call, self.number)

    def _is_worth_another(self, tried: Tried) -> bool:
        return tried.error is not None and is_worth_another(self.policy, tried.error, self.number)

    def _counts(self) -> bool:
        """Count this try before its end, which may be that of this process: else the next agent would begin it again, for ever."""
        if self.cancel_requested or self.ending_decided:
            return False
        try:
            self.host.store.commit(Append(self.fence, [], tries=self.number))
        except LeaseLost:
            return False  # Its ending was decided beside us: nobody makes another.
        return True

    def _wait_for(self, thread: ThreadTry) -> Tried | None:
        """What came of a try that overran, when its thread has ended: no other begins beside it, and nobody is asked what is known."""
        began = time.monotonic()
        while not thread.wait(0.05):
            if self.cancel_requested or self.ending_decided:
                return None
            if time.monotonic() - began > self.host.settings.grace_seconds:
                self.host.overran(self.fence.task_id)
        return thread.late

    def _transaction_entry(self, output: bytes, started_at: int) -> Entry:
        return Entry(
            0, "", "completed", "transaction", self.definition.name, clock.wall(), try_number=self.number,
            started_at=started_at, data=output,
        )  # fmt: skip

    def _end_in_transaction(self, context: Transaction, entry: Entry) -> None:
        # A submitted transaction's outcome is its task's end: written last, in the application's own transaction.
        last_writes.end(context, End(self.fence, Ending.COMPLETED, output=entry.data, tries=self.number, simple=True))

    def _late_end(self, tried: Tried) -> None:
        self.strays.discard("")
        self.overrunning.discard("")
        self.host.stray_ended(self, "", tried)

    def after(self, tried: Tried) -> Outcome:
        """What follows from a try."""
        if self.ending_decided or tried.committed is not None:
            return None
        if tried.error is None:
            return End(self.fence, Ending.COMPLETED, output=tried.output, tries=self.number, simple=True)
        if self.cancel_requested:
            return End(self.fence, Ending.CANCELLED, tries=self.number, strays=tuple(self.strays))
        error = tried.error
        if tried.unknown and unknown.asks(self.definition):
            operation = self._find_out(error)
            if operation is not None:
                return operation
        if is_worth_another(self.policy, error, self.number) and not self.strays:
            entry = Entry(
                self.number, "", "tried", "step", self.definition.name, clock.wall(), try_number=self.number,
                started_at=tried.started_at, due_at=None, data=encode_error(error),
            )  # fmt: skip
            return Again(self.fence, entry, pause(self.policy, error, self.number), self.number)
        return End(
            self.fence,
            Ending.FAILED,
            error=encode_error(error),
            tries=self.number,
            simple=not self.strays,
            strays=tuple(self.strays),
        )
