"""The errors of Outlast: each carries facts and ends with what to do next.

Owns the tree below and the exit code that the command line gives each branch. Refuses messages without a next action: an
error is built from fields, and its text is one clear sentence plus a hint. `Parked` and `Cancelled` unwind a workflow's code and
are no `Exception`, so that `except Exception` in a workflow cannot swallow them.

    OutlastError                        1
    ├── InvalidInput                    2   bad arguments, values, options, ids
    │   ├── NotStorable                     a value that the codec refuses, with its place
    │   ├── PayloadTooLarge
    │   ├── AmbiguousRun
    │   └── BrokenApp                       a workflow file that cannot be imported
    ├── InvalidDefinition               2   a decorator's arguments, a nested function, a duplicate name
    ├── NotFound                        3
    │   ├── RunNotFound, WorkflowNotFound, StepNotFound, QueueNotFound, ScheduleNotFound, KeyNotFound
    │   └── FileMissing
    ├── Conflict                        4   illegal for the state that the thing is in
    │   ├── RunFinished
    │   ├── AlreadyExists
    │   └── OutcomeNeeded                   a bare resume of an unknown outcome
    ├── TimedOut                        5
    │   ├── ResultTimeout
    │   ├── SignalTimeout
    │   ├── StepTimeout
    │   └── DeadlineExceeded
    ├── RunCancelled, RunHalted         6, 1
    ├── StepDied                        1   the process of an isolated step ended without a result
    ├── OutcomeUnknown                  1   nobody knows whether a step took effect
    ├── RemoteError                     1   an error whose class is not loaded here
    ├── PayloadUnreadable, PayloadNotEncoded   1   a payload codec that is missing, or fails
    ├── StoreError                      7
    │   ├── StoreLocked, StoreFull, StoreDamaged, StoreReadOnly, NotADatabase
    │   ├── StoreReplaced                   removed, or another file in its place, while it was open
    │   ├── StoreTooNew, StoreTooOld
    │   ├── NetworkFileSystem
    │   └── WrongSQLite
    ├── OutsideRun, WrongColour         2   a durable call where no run is; an async call in sync code, or the reverse
    ├── CodeMismatch, LeaseLost         1   the code disagrees with the journal; a fenced write changed nothing
    └── Fail, RetryAfter                1   raised by a step: do not retry, retry after this long
    BaseException
    └── Unwinding
        ├── Parked
        └── Cancelled
"""

from __future__ import annotations

from datetime import timedelta


class OutlastError(Exception):
    """Every error of ours. `exit_code` is the command line's; `hint` says what to do next."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip() if self.hint else self.message


class InvalidInput(OutlastError):
    """Something given from outside does not fit; nothing was done."""

    exit_code = 2


class NotStorable(InvalidInput):
    """A value that the codec refuses, there and then. `place` names the offending part, as `result["items"][3]`.

    What a step returned and cannot be stored is never retried: that would repeat its effect.
    """

    def __init__(self, place: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"{place} cannot be stored: {problem}.", hint=hint)
        self.place = place
        self.problem = problem


class PayloadTooLarge(InvalidInput):
    """A value over `max_payload` (1 MiB unless set), in bytes once encoded. Of a step it is never retried."""

    def __init__(self, place: str, size: int, limit: int) -> None:
        super().__init__(
            f"{place} would take {size:,} bytes once encoded; the limit is {limit:,}.",
            hint="Store the data elsewhere and pass its name, or raise max_payload.",
        )
        self.size = size
        self.limit = limit


class AmbiguousRun(InvalidInput):
    """A prefix that fits several runs."""

    def __init__(self, prefix: str, count: int) -> None:
        super().__init__(f"{prefix!r} fits {count} runs.", hint="Give more characters of the id.")


class BrokenApp(InvalidInput):
    """A workflow file that cannot be imported."""


class InvalidDefinition(OutlastError):
    """A workflow, step, queue or schedule that is defined wrongly."""

    exit_code = 2


class NotFound(OutlastError):
    """Something named does not exist."""

    exit_code = 3


class RunNotFound(NotFound):
    """No run has this id, prefix or key: it was never started, was rolled back with its caller, or has been pruned."""

    def __init__(self, reference: str, *, is_workflow: bool = False) -> None:
        of_it = f" --workflow {reference}` lists those of this workflow." if is_workflow else "` lists them."
        super().__init__(f"There is no run {reference!r}.", hint=f"`outlast runs{of_it}")


class WorkflowNotFound(NotFound):
    """No workflow of this name is defined in what was imported."""

    def __init__(self, name: str, *, close: list[str] | None = None) -> None:
        hint = f"Did you mean {close[0]!r}?" if close else "`outlast workflows` lists what is defined."
        super().__init__(f"There is no workflow {name!r}.", hint=hint)


class StepNotFound(NotFound):
    """A run has no step of this name or path."""

    def __init__(self, name: str, *, run_id: str) -> None:
        super().__init__(f"Run {run_id} has no step {name!r}.", hint=f"`outlast show {run_id}` lists its steps.")


class QueueNotFound(NotFound):
    """No such queue: neither code nor `outlast queue set` declares it."""

    def __init__(self, name: str, *, close: list[str] | None = None) -> None:
        hint = f"Did you mean {close[0]!r}?" if close else "`outlast queues` lists them; declare it with Queue(...) or `outlast queue set`."
        super().__init__(f"There is no queue {name!r}.", hint=hint)


class ScheduleNotFound(NotFound):
    """No such schedule in the file."""

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no schedule {name!r}.", hint="`outlast schedules` lists them.")


class KeyNotFound(NotFound):
    """A published key that is not there."""


class FileMissing(NotFound):
    """A file, or its folder, that is not there."""

    def __init__(self, path: str, *, hint: str = "") -> None:
        super().__init__(f"There is no file {path}.", hint=hint)


class Conflict(OutlastError):
    """The thing is in a state that does not allow this."""

    exit_code = 4


class RunFinished(Conflict):
    """A signal, a pause or a cancel came too late: the run is final, and nothing was done."""

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(f"Run {run_id} is {status}: it has finished.", hint=f"`outlast retry {run_id}` runs it again.")


class AlreadyExists(Conflict):
    """What was to be made is there already."""


class OutcomeNeeded(Conflict):
    """A run was halted by an unknown outcome; a person must say what happened."""

    def __init__(self, run_id: str, step: str) -> None:
        super().__init__(
            f"Run {run_id} is halted since nobody knows whether its step {step} took effect.",
            hint=f"Find out, then `outlast resume {run_id} --done JSON` or `outlast resume {run_id} --not-done`.",
        )


class OutcomeUnknown(OutlastError):
    """Nobody knows whether a try of a step took effect. By `on_unknown="undo"` it ends its run; no workflow can catch that."""

    def __init__(self, step: str, cause: str) -> None:
        super().__init__(f"Nobody knows whether {step} took effect: {cause}.")
        self.step = step
        self.cause = cause


class TimedOut(OutlastError):
    """Something took longer than it was given."""

    exit_code = 5


class ResultTimeout(TimedOut):
    """A result was waited for long enough. Nothing was changed: the run goes on."""

    def __init__(self, run_id: str, seconds: float | None, *, part: str = "") -> None:
        """`part` names what is no run: a step, a signal."""
        waited = "is still open" if seconds is None else f"was not over after {seconds:g} s"
        hint = "" if part else f"`outlast why {run_id}` says what it waits for."
        super().__init__(f"{part or f'Run {run_id}'} {waited}.", hint=hint)


class SignalTimeout(TimedOut):
    """`wait_signal` waited out its timeout; a signal that arrives later stays unread."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(f"No signal {name!r} arrived within {seconds:g} s.")
        self.name = name


class StepTimeout(TimedOut):
    """One try of a step overran its timeout. Whether it took effect is unknown; its Retry may try it again."""

    def __init__(self, step: str, seconds: float) -> None:
        super().__init__(f"Step {step} overran its timeout of {seconds:g} s.")
        self.step = step


class DeadlineExceeded(TimedOut):
    """A run went past its workflow's timeout, or past what its parent had left; it was ended and undone."""

    exit_code = 1

    def __init__(self, run_id: str) -> None:
        super().__init__(f"Run {run_id} went past its deadline.")


class RunCancelled(OutlastError):
    """Whoever waits for a cancelled run gets this; the run's own code is unwound by `Cancelled` instead."""

    exit_code = 6

    def __init__(self, run_id: str, *, part: str = "") -> None:
        """`part` names what is no run: a step."""
        super().__init__(f"{part or f'Run {run_id}'} was cancelled.")
        self.run_id = run_id


class RunHalted(OutlastError):
    """A run waits for a person; `reason` says why. It is not final: a resume goes on with it."""

    def __init__(self, run_id: str, reason: str) -> None:
        super().__init__(
            f"Run {run_id} is halted: {reason.rstrip('.')}.",
            # A reason that asks what a step did says by itself how to answer: a bare resume would be refused.
            hint=f"`outlast why {run_id}` says more"
            + ("." if " --not-done`" in reason else f"; then `outlast resume {run_id}` or `outlast cancel {run_id}`."),
        )
        self.run_id = run_id
        self.reason = reason


class StepDied(OutlastError):
    """The process of an isolated step ended without a result. `how` says by which signal or exit status."""

    def __init__(self, step: str, how: str) -> None:
        hint = "The system kills so when memory runs out." if "SIGKILL" in how else ""
        super().__init__(f"Step {step} died: {how}.", hint=hint)
        self.step = step
        self.how = how


class RemoteError(OutlastError):
    """An error of a class that is not loaded in this process: its type's name and its message."""

    def __init__(self, type_name: str, message: str) -> None:
        super().__init__(message)
        self.type_name = type_name

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class PayloadUnreadable(OutlastError):
    """A stored payload whose codec is not registered here, or cannot decode it. `codec` is its name."""

    def __init__(self, codec: str, problem: str) -> None:
        super().__init__(
            f"A stored payload was written by the payload codec {codec!r}: {problem}.",
            hint="Register it, with its key, in a module of the app.",
        )
        self.codec = codec


class PayloadNotEncoded(OutlastError):
    """The payload codec could not encode: nothing was stored. `codec` is its name."""

    def __init__(self, codec: str, problem: str) -> None:
        super().__init__(f"The payload codec {codec!r} cannot encode: {problem}.", hint="Fix it; nothing was stored.")
        self.codec = codec


class StoreError(OutlastError):
    """The file cannot be used."""

    exit_code = 7
    may_pass = False
    """Whether waiting may help: then an agent holds what has been done, and tries again."""


class StoreLocked(StoreError):
    """Somebody held the write lock for longer than was waited. Nothing was done."""

    may_pass = True

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(
            f"{path} has been locked by another process for {seconds:g} s.",
            hint="Find the process that holds a write transaction on it, and end it.",
        )


class StoreFull(StoreError):
    """There is no room on the disk. What was to be written was not; agents stop claiming until there is room."""

    may_pass = True

    def __init__(self, path: str) -> None:
        super().__init__(f"The disk of {path} is full.", hint="Make room; work then continues by itself.")


class StoreDamaged(StoreError):
    """SQLite finds the file's contents malformed."""

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(f"{path} is damaged: {detail}.", hint="Restore a backup, or run sqlite3's `.recover` on a copy.")


class StoreReadOnly(StoreError):
    """The file, or its folder, cannot be written."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} cannot be written.", hint="Check the rights of the file and of its folder.")


class NotADatabase(StoreError):
    """The file is there and is something else."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is not a SQLite database.", hint="Name another file with --db.")


class StoreReplaced(StoreError):
    """The file is not the one any more that this process has open. What it would write now, nobody would find."""

    def __init__(self, path: str, *, is_gone: bool) -> None:
        super().__init__(
            f"{path} was {'removed' if is_gone else 'replaced by another file'} while this process had it open.",
            hint="Stop whatever uses the file before one is put in its place; then start it again.",
        )
        self.is_gone = is_gone


class StoreTooNew(StoreError):
    """The file's schema is newer than this code; nothing was touched."""

    def __init__(self, path: str, found: str) -> None:
        super().__init__(f"{path} was written by newer code (schema {found}).", hint="Upgrade outlast.")


class StoreTooOld(StoreError):
    """The file's schema is older than this code, and nobody asked to migrate it."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} has an older schema than this code.", hint="Run `outlast migrate` (it makes a backup first).")


class NetworkFileSystem(StoreError):
    """The file lies where SQLite's locks cannot be trusted."""

    def __init__(self, path: str, kind: str) -> None:
        super().__init__(
            f"{path} is on a network file system ({kind}), where SQLite's locks cannot be trusted.",
            hint="Use a local disk, or set OUTLAST_ALLOW_NETWORK=1 if you know that its locks work.",
        )


class WrongSQLite(StoreError):
    """Another SQLite library of this process opened the engine's file; the two would lose each other's locks."""


class OutsideRun(OutlastError):
    """A durable call where no run is, or where it does not belong. Nothing was done; the hint says what to write."""

    exit_code = 2


class WrongColour(OutlastError):
    """An async call in a sync workflow, or the reverse. Nothing was done; the hint says what to write."""

    exit_code = 2


class CodeMismatch(OutlastError):
    """The code disagrees with the journal at a place."""

    def __init__(self, path: str, *, recorded: str, found: str) -> None:
        super().__init__(
            f"At {path} the journal has {recorded}, the code has {found}.",
            hint="Deploy code that fits, or guard the change with outlast.patched().",
        )
        self.path = path
        self.recorded = recorded
        self.found = found


class LeaseLost(OutlastError):
    """A fenced write changed nothing: the task belongs to another claim by now."""


class Fail(OutlastError):
    """Raised by a step that must not be tried again, whatever its Retry says; bare, or with a message."""

    def __init__(self, message: object = "", *, hint: str = "") -> None:
        super().__init__(str(message), hint=hint)


class RetryAfter(OutlastError):
    """Raised by a step that wants its next try after `delay` ("10s"), whatever `on` of its Retry says, while tries are left."""

    def __init__(self, delay: str | float | timedelta, message: str = "") -> None:
        from .text.duration import seconds

        seconds(delay, place="delay of RetryAfter")
        super().__init__(message or f"retry after {delay}")
        self.delay = delay


class Unwinding(BaseException):
    """Leaves a workflow's code; caught by the engine alone."""


class Parked(Unwinding):
    """The run waits for something and leaves its agent; it comes back by replay."""


class Cancelled(Unwinding):
    """The run is being cancelled."""
