"""The code that an agent has: what it may claim, and the definition for each task.

Owns the names under which code is asked for (`workflow:NAME@VERSION`, `step:NAME`, `compensation:NAME`) and the fingerprint of each
definition's source. Refuses to import anything: what is not in the registry, this agent does not have.
"""

from __future__ import annotations

from typing import Any

from .definition.definition import Definition
from .model import compensation_code, step_code, workflow_code
from .plan import Undo
from .registry import Registry


class Code:
    """The definitions of one agent, taken once: what is defined later is not claimed."""

    def __init__(self, registry: Registry) -> None:
        workflows: list[Definition] = list(registry.workflows())
        steps: list[Definition] = list(registry.steps())
        self.fingerprints: dict[str, str] = {}
        """What the agent may claim, with the digest of its source."""
        self._workflows = {(found.name, found.version): found for found in workflows}
        self._steps = {found.name: found for found in steps}
        self._undoable: dict[tuple[str, str], Definition] = {}
        for found in workflows:
            self._enter(found, workflow_code(found.name, found.version), "workflow")
        for found in steps:
            self._enter(found, step_code(found.name), "step")

    def workflow(self, name: str, version: str) -> Definition | None:
        return self._workflows.get((name, version))

    def step(self, name: str) -> Definition | None:
        return self._steps.get(name)

    def compensated(self, undo: Undo) -> Any:
        """The definition whose compensation undoes this, where this agent has it."""
        return self._undoable.get(("workflow" if undo.kind == "child" else "step", undo.name))

    def _enter(self, definition: Definition, needs: str, kind: str) -> None:
        self.fingerprints[needs] = definition.fingerprint
        if definition.compensated_by is not None:
            self.fingerprints[compensation_code(definition.name)] = definition.fingerprint
            self._undoable[kind, definition.name] = definition
