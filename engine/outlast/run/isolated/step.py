"""The bridge between a step's try and the child process that executes it.

Owns the mapping of a child's outcome to a `Tried`, and of its messages to what the step says while it runs. Refuses nothing else: the
process group is `process_group`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ... import clock, codec
from ...errors import StepDied, StepTimeout
from ..tries import Tried
from .call import IsolatedCall
from .process_group import Completed, Died, Failed, IsolatedTry, Killed, Overran

if TYPE_CHECKING:
    from ..execute import StepCall


class IsolatedStep:
    """One try in a process group of its own: `run` blocks, `kill` ends it from any thread."""

    def __init__(self, call: StepCall, number: int) -> None:
        self._call = call
        self._number = number
        self._started_at = clock.wall()
        self._isolated: IsolatedTry | None = None
        self._is_killed = False

    def run(self) -> Tried:
        call = self._call
        part, leading = call.part
        try:
            isolated = IsolatedTry(
                IsolatedCall.of(call.definition, call.data, call.facts_of(self._number), part=part, leading=leading),
                on_output=self._output,
                on_message=self._message,
                max_payload=call.max_payload,
            )
        except Exception as error:  # noqa: BLE001 - carried to where it is the outcome
            return Tried(self._started_at, error=error)
        self._isolated = isolated
        if self._is_killed:
            isolated.kill()
        isolated.start()
        name = call.definition.name
        match isolated.wait(call.timeout_seconds):
            case Completed(output):
                return Tried(self._started_at, output=output)
            case Failed(error_data):
                return Tried(self._started_at, error=codec.decode_error(error_data))
            case Died(how):
                return Tried(self._started_at, error=StepDied(name, how), unknown=True)
            case Killed():
                return Tried(self._started_at, error=StepDied(name, "was killed"), unknown=True)
            case Overran():
                assert call.timeout_seconds is not None
                return Tried(self._started_at, error=StepTimeout(name, call.timeout_seconds), unknown=True)

    def kill(self) -> None:
        self._is_killed = True
        if self._isolated is not None:
            self._isolated.kill()

    def _output(self, stream: str, line: str) -> None:
        message = {"level": "INFO", "logger": stream, "message": line, "at": clock.iso(clock.wall())}
        self._call.emit("log", message, self._number)

    def _message(self, message: dict[str, Any]) -> None:
        say: dict[str, Callable[[], None]] = {
            "publish": lambda: self._call.publish(message["key"], _value(message)),
            "emit": lambda: self._call.emit(message["stream"], _value(message), self._number),
            "heartbeat": lambda: self._call.publish(f"progress:{self._call.path}", _value(message)),
            "log": lambda: self._call.emit("log", _record(message), self._number),
        }
        action = say.get(str(message.get("kind")))
        if action is not None:
            action()


def _value(message: dict[str, Any]) -> Any:
    return codec.decode(message["value"])


def _record(message: dict[str, Any]) -> dict[str, Any]:
    return {
        "level": message["level"],
        "logger": message["logger"],
        "message": message["text"],
        "at": clock.iso(clock.wall()),
    }


def prepare(call: StepCall, number: int) -> IsolatedStep:
    """A try of an isolated step, not yet started."""
    return IsolatedStep(call, number)
