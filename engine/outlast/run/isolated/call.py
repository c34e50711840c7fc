"""What crosses from the agent to the process of an isolated step: the call, and the form of what comes back.

Owns the description of one try and the frames of the pipes. Refuses what a child process could not import:
steps and classes of `__main__`, which it would have to run again to find.
"""

from __future__ import annotations

import re
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...errors import InvalidDefinition

if TYPE_CHECKING:
    from ...definition import Definition
    from ...handles import Current

COMPLETED, FAILED, DIED, MESSAGE = 1, 2, 3, 4
"""What a frame on the result pipe holds."""
FRAME = struct.Struct(">BI")
"""The head of a frame: what it holds, and how many bytes follow."""
CALL = struct.Struct(">Q")
"""The head of the call on the control socket."""
STATUS = struct.Struct(">i")
"""What the guard says on the control socket in the end: the step's exit status, or minus its signal."""

_CLASS = re.compile(rb'"c":"([^":]+):')


@dataclass(frozen=True, slots=True)
class IsolatedCall:
    """What a child process needs to know for one try. Raises `InvalidDefinition`."""

    module: str
    file: str | None
    qualname: str
    """The name of the step's function, also where its compensation or probe is meant."""
    input: bytes
    """The arguments by name, encoded."""
    facts: dict[str, Any]
    """What `current()` gives in the child, as plain JSON."""
    asynchronous: bool
    agent_path: list[str]
    """The agent's `sys.path`."""
    part: Literal["fn", "compensation", "probe"] = "fn"
    leading: bytes = b"[]"
    """What comes before the arguments (a compensation's result), as an encoded list."""

    def __post_init__(self) -> None:
        hint = "Move it to a module and import it from there."
        if self.module == "__main__":
            raise InvalidDefinition(
                f"The isolated step {self.qualname} is in __main__, which no child process can import.",
                hint=hint,
            )
        if "__main__" in self.classes():
            raise InvalidDefinition(f"A class among the arguments of the isolated step {self.qualname} is in __main__.", hint=hint)

    @classmethod
    def of(
        cls,
        definition: Definition,
        input: bytes,
        facts: Current,
        *,
        part: Literal["fn", "compensation", "probe"] = "fn",
        leading: bytes = b"[]",
    ) -> IsolatedCall:
        """The call of a step, or of its compensation or probe."""
        chosen = {"compensation": definition.compensated_by, "probe": definition.probed_by}.get(part)
        return cls(
            module=definition.module,
            file=definition.file,
            qualname=definition.fn.__qualname__,
            input=input,
            facts=_plain(facts),
            asynchronous=definition.asynchronous if chosen is None else chosen.asynchronous,
            agent_path=list(sys.path),
            part=part,
            leading=leading,
        )

    def classes(self) -> list[str]:
        """The modules of the classes among the arguments; the child imports those that are loaded here."""
        # In stored JSON a quote inside a text is escaped, so that only a tag can look like this.
        found = {name.decode() for name in _CLASS.findall(self.input) + _CLASS.findall(self.leading)}
        return sorted(name for name in found if name in sys.modules)


def _plain(facts: Current) -> dict[str, Any]:
    assert facts.step is not None
    return {
        "run_id": facts.run_id,
        "workflow": facts.workflow,
        "parent_id": facts.parent_id,
        "tags": dict(facts.tags),
        "tick": facts.tick.isoformat() if facts.tick is not None else None,
        "idempotency_key": facts.idempotency_key,
        "step": {"name": facts.step.name, "path": facts.step.path, "try_number": facts.step.try_number},
        "undoing": facts.undoing.outcome if facts.undoing is not None else None,
    }
