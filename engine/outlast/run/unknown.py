"""Tries of which nobody knows whether they took effect: who is asked, and what is journalled of the answer.

Owns the probe's call, the questions put to a person, and the reading of a submitted step's own journal. Refuses to decide what a run does
about it: the drivers of tries do. Unknown is a try that its agent died in, that was left at once by a drain or a lost lease, that
overran, or whose process died. A step says that it wants to know by `on_unknown` or a probe; it then journals the start of each try.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from .. import clock, codec
from ..definition.undo import NOT_DONE
from ..journal.entry import Entry
from ..store.questions import PREFIX as QUESTION_PREFIX
from .execute import StepCall, ThreadTry, run_here, wait_on_loop
from .history import PROBE_PREFIX
from .tries import Tried

if TYPE_CHECKING:
    from ..definition import Definition

_NOTHING = b""
"""What a probe that found nothing has as its stored result: no value is stored so."""


def asks(definition: Definition) -> bool:
    """Whether somebody wants to know what an unknown try did, before another one begins."""
    return definition.probed_by is not None or definition.on_unknown != "retry"


def question(path: str, name: str, cause: str, try_number: int) -> Entry:
    """What a person is asked; its number is the store's."""
    data = msgspec.json.encode({"cause": cause})
    return Entry(0, QUESTION_PREFIX + path, "started", "question", name, clock.wall(), try_number=try_number, data=data)


def reason(name: str, cause: str, run_id: str) -> str:
    """Why a run is halted by a question, and how it goes on."""
    return (
        f"nobody knows whether its step {name} took effect: {cause}. "
        f"Find out, then `outlast resume {run_id} --done JSON` or `outlast resume {run_id} --not-done`"
    )


def probe_entry(path: str, name: str, tried: Tried, *, number: int, due_at: int | None, data: bytes) -> Entry:
    """A probe that failed, and when it is tried again."""
    return Entry(
        0, PROBE_PREFIX + path, "tried", "probe", name, clock.wall(), try_number=number, started_at=tried.started_at,
        due_at=due_at, data=data,
    )  # fmt: skip


@dataclass(slots=True)
class ProbeCall(StepCall):
    """A try of a step's probe: with the step's arguments, its key and its timeout."""

    @classmethod
    def of(cls, call: StepCall) -> ProbeCall:
        return cls(
            call.definition, call.data, call.path, call.facts, call.key, call.timeout_seconds, call.fence, call.store,
            call.max_payload, call.run_id,
        )  # fmt: skip

    @property
    def function(self) -> Any:
        probe = self.definition.probed_by
        assert probe is not None
        return probe.fn

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self.definition.spelled_out(codec.decode_input(self.data))

    def encode(self, value: object) -> bytes:
        return _NOTHING if value is NOT_DONE else StepCall.encode(self, value)


def read(tried: Tried) -> Tried:
    """What a try of the probe has found."""
    return replace(tried, nothing=tried.error is None and tried.output == _NOTHING)


def run_probe(call: StepCall, number: int, loop: Any) -> Tried:
    """Execute the probe once, in this thread; an async one on the agent's loop. It runs in the agent, of isolated steps too."""
    probe = ProbeCall.of(call)
    assert call.definition.probed_by is not None
    if call.definition.probed_by.asynchronous:
        return read(wait_on_loop(probe, number, loop))
    if call.timeout_seconds is None:
        return read(run_here(probe, number))
    return read(ThreadTry(probe, number, on_late_end=_nobody).run())


@dataclass(slots=True)
class TaskJournal:
    """What a submitted step has journalled of itself."""

    last_seq: int = 0
    began: int = 0
    """The try that was begun and has not come to an end; else 0."""
    probe_tries: int = 0
    done: bytes | None = None
    """What a person has said its result is."""

    @classmethod
    def read(cls, entries: Iterable[Entry]) -> TaskJournal:
        made = cls()
        for entry in entries:
            made.last_seq = max(made.last_seq, entry.seq)
            if entry.kind == "probe":
                made.probe_tries = entry.try_number
            elif entry.kind == "question":
                continue
            elif entry.event == "started":
                made.began, made.probe_tries = entry.try_number, 0
            elif entry.event == "completed":
                made.done = entry.data
            else:
                made.began = 0
        return made


def _nobody(_: Tried) -> None:
    """A probe that overran changes nothing; its thread may end when it likes."""
