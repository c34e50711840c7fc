"""The code that an agent has: what it may claim, and the definition for each task.

Owns the names under which code is asked for (`workflow:NAME@VERSION`, `step:NAME`, `compensation:NAME`) and the fingerprint of each
definition's source. Refuses to import anything: what is not in the registry, this agent does not have.
"""

from __future__ import annotations

from ..journal.plan import Undo
from ..model import compensation_code, step_code, workflow_code
from .definition import Definition
from .registry import Registry


class Code:
    """The definitions of one agent. What is defined later, as in a notebook, is there after the next `refresh`."""

    def __init__(self, registry: Registry) -> None:
        self.fingerprints: dict[str, str] = {}
        """What the agent may claim, with the digest of its source."""
        self._registry = registry
        self._edition = -1
        self._workflows: dict[tuple[str, str], Definition] = {}
        self._steps: dict[str, Definition] = {}
        self._undoable: dict[tuple[str, str], Definition] = {}
        self.refresh()

    def refresh(self) -> bool:
        """Take over what was defined meanwhile; whether there was anything."""
        edition = self._registry.edition
        if edition == self._edition:
            return False
        self._edition = edition
        for workflow in list(self._registry.workflows()):
            self._workflows[workflow.name, workflow.version] = workflow
            self._enter(workflow, workflow_code(workflow.name, workflow.version), "workflow")
        for step in list(self._registry.steps()):
            self._steps[step.name] = step
            self._enter(step, step_code(step.name), "step")
        return True

    def workflow(self, name: str, version: str) -> Definition | None:
        return self._workflows.get((name, version))

    def step(self, name: str) -> Definition | None:
        return self._steps.get(name)

    def compensated(self, undo: Undo) -> Definition | None:
        """The definition whose compensation undoes this, where this agent has it."""
        return self._undoable.get(("workflow" if undo.kind == "child" else "step", undo.name))

    def _enter(self, definition: Definition, needs: str, kind: str) -> None:
        self.fingerprints[needs] = definition.fingerprint
        if definition.compensated_by is not None:
            self.fingerprints[compensation_code(definition.name)] = definition.fingerprint
            self._undoable[kind, definition.name] = definition
