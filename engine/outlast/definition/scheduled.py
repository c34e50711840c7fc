"""What `schedule=` of a workflow means, checked where it is written.

Owns the refusal of a rule that is none, and of a workflow that needs arguments which nobody gives: at the
definition, so that it never fails in the scheduler's loop. Refuses to know what fires, and when.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import InvalidDefinition, InvalidInput
from ..signature import Signature
from ..timetable import Schedule, schedules_of

if TYPE_CHECKING:
    from .workflows import Workflow


def check(workflow: Workflow[..., Any]) -> dict[str, Schedule]:
    """The schedules of a definition by name.

    Raises what is wrong with them: a rule that is none, or a workflow that needs arguments which neither
    defaults nor an input give.
    """
    found = schedules_of(workflow.schedule, workflow.name)
    for name, made in found.items():
        # By a signature of its own: one that is read while the module loads misses names further down.
        checked_input(name, workflow, made.input, signature=Signature(workflow.fn, place=workflow.name))
    return found


def checked_input(name: str, workflow: Workflow[..., Any], given: object, *, signature: Signature | None = None) -> dict[str, object]:
    """The input of a schedule as arguments by name, converted to the annotated types."""
    signature = signature or workflow.signature
    if given is None:
        if signature.required:
            names = ", ".join(signature.required)
            raise InvalidDefinition(
                f"The schedule {name} starts {workflow.name} without {names}.",
                hint="Give the schedule an input=, or the parameters defaults.",
            )
        return {}
    if not isinstance(given, Mapping | list | tuple):
        raise InvalidInput(f"The input of the schedule {name} must be a dict by name or a list by position, not {given!r}.")
    return signature.from_json(given)
