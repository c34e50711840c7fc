"""Outlast: workflows that outlast crashes, on one SQLite file.

Owns the public names. What authoring needs is imported at once, and is cheap; the engine, the timetable, the
SQLite library and the codec are imported when they are first named, so that a workflow file costs a process
no more than it uses.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from . import aio
from .definition import NOT_DONE, step, transaction, workflow
from .definition.queues import Queue
from .definition.retry import Retry
from .durable import (
    continue_as_new,
    current,
    emit,
    first,
    gather,
    now,
    patched,
    publish,
    rng,
    signal_handle,
    sleep,
    uuid4,
    wait_signal,
)
from .errors import (
    AlreadyExists,
    AmbiguousRun,
    BrokenApp,
    CodeMismatch,
    Conflict,
    DeadlineExceeded,
    Fail,
    FileMissing,
    InvalidDefinition,
    InvalidInput,
    KeyNotFound,
    LeaseLost,
    NetworkFileSystem,
    NotADatabase,
    NotFound,
    NotStorable,
    OutcomeNeeded,
    OutcomeUnknown,
    OutlastError,
    OutsideRun,
    PayloadNotEncoded,
    PayloadTooLarge,
    PayloadUnreadable,
    QueueNotFound,
    RemoteError,
    ResultTimeout,
    RetryAfter,
    RunCancelled,
    RunFinished,
    RunHalted,
    RunNotFound,
    ScheduleNotFound,
    SignalTimeout,
    StepDied,
    StepNotFound,
    StepTimeout,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreReplaced,
    StoreTooNew,
    StoreTooOld,
    TimedOut,
    WorkflowNotFound,
    WrongColour,
    WrongSQLite,
)
from .handles import Handle, Run

if TYPE_CHECKING:
    from .codec import register_type
    from .codec.payloads import register_payload_codec
    from .engine import Engine
    from .store.library import sqlite3
    from .timetable import At, Cron, Every, Schedule

__version__ = "0.1.0"

__all__ = [
    "NOT_DONE",
    "AlreadyExists",
    "AmbiguousRun",
    "At",
    "BrokenApp",
    "CodeMismatch",
    "Conflict",
    "Cron",
    "DeadlineExceeded",
    "Engine",
    "Every",
    "Fail",
    "FileMissing",
    "Handle",
    "InvalidDefinition",
    "InvalidInput",
    "KeyNotFound",
    "LeaseLost",
    "NetworkFileSystem",
    "NotADatabase",
    "NotFound",
    "NotStorable",
    "OutcomeNeeded",
    "OutcomeUnknown",
    "OutlastError",
    "OutsideRun",
    "PayloadNotEncoded",
    "PayloadTooLarge",
    "PayloadUnreadable",
    "Queue",
    "QueueNotFound",
    "RemoteError",
    "ResultTimeout",
    "Retry",
    "RetryAfter",
    "Run",
    "RunCancelled",
    "RunFinished",
    "RunHalted",
    "RunNotFound",
    "Schedule",
    "ScheduleNotFound",
    "SignalTimeout",
    "StepDied",
    "StepNotFound",
    "StepTimeout",
    "StoreDamaged",
    "StoreError",
    "StoreFull",
    "StoreLocked",
    "StoreReadOnly",
    "StoreReplaced",
    "StoreTooNew",
    "StoreTooOld",
    "TimedOut",
    "WorkflowNotFound",
    "WrongColour",
    "WrongSQLite",
    "aio",
    "continue_as_new",
    "current",
    "emit",
    "first",
    "gather",
    "now",
    "patched",
    "publish",
    "register_payload_codec",
    "register_type",
    "rng",
    "signal_handle",
    "sleep",
    "sqlite3",
    "step",
    "transaction",
    "uuid4",
    "wait_signal",
    "workflow",
]

_LATER = {
    "At": ".timetable",
    "Cron": ".timetable",
    "Engine": ".engine",
    "Every": ".timetable",
    "Schedule": ".timetable",
    "register_payload_codec": ".codec.payloads",
    "register_type": ".codec",
    "sqlite3": ".store.library",
}


def __getattr__(name: str) -> object:
    if name == "testing":
        return import_module(".testing", __name__)
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_LATER[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
