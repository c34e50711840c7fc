"""What this process has defined: workflows, steps and queues, by name.

Owns the one registry of the process and the rule that a name means one thing: steps and transactions share
theirs, versions of a workflow stand side by side, and a second definition elsewhere is refused with both
places. The same module and name defined again, as in a notebook or by a reload, replaces. Refuses to import
anything: that is `application`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import InvalidDefinition, NotFound, QueueNotFound, WorkflowNotFound

if TYPE_CHECKING:
    from . import Definition, Step, Transaction, Workflow
    from .queues import Queue

D = TypeVar("D", bound="Definition")


class Registry:
    """Definitions and queues by name."""

    def __init__(self) -> None:
        self._workflows: dict[str, dict[str, Workflow[..., Any]]] = {}
        self._steps: dict[str, Step[..., Any] | Transaction[..., Any]] = {}
        self._queues: dict[str, Queue] = {}
        self.edition = 0
        """Rises with each change, so that agents of this process learn of what is defined while they run."""

    def add(self, definition: D) -> D:
        """Keep a definition. Raises `InvalidDefinition` when its name is another's, and names both files."""
        if definition.kind == "workflow":
            places: dict[str, Any] = self._workflows.setdefault(definition.name, {})
            key = definition.version
        else:
            places, key = self._steps, definition.name
        known: Definition | None = places.get(key)
        if known is not None and not _same_place(known, definition):
            hint = "Rename one, or give one another `name=`"
            raise InvalidDefinition(
                f"Two {_plural(definition)} are named {definition.name!r}: in {known.place} and in {definition.place}.",
                hint=f"{hint} or `version=`." if definition.kind == "workflow" else f"{hint}.",
            )
        places[key] = definition
        self.edition += 1
        return definition

    def add_queue(self, queue: Queue) -> None:
        """Keep a queue. Raises `InvalidDefinition` when another place declares it otherwise."""
        known = self._queues.get(queue.name)
        if queue.module == "outlast.definition.queues":
            return  # `default` before anybody declares it; queues() knows it.
        if known is not None and known != queue and not _declares_anew(known, queue):
            raise InvalidDefinition(
                f"The queue {queue.name!r} is declared twice: in {known.place} and in {queue.place}.",
                hint="Declare it once and import it.",
            )
        self._queues[queue.name] = queue
        self.edition += 1

    def workflow(self, name: str, version: str | None = None) -> Workflow[..., Any]:
        """The workflow of this name: of this version, or of the newest. Raises `WorkflowNotFound`."""
        versions = self._workflows.get(name)
        if not versions:
            raise WorkflowNotFound(name, close=_close(name, self._workflows))
        if version is None:
            return versions[max(versions, key=_natural)]
        if version not in versions:
            raise WorkflowNotFound(f"{name}@{version}" if version else name, close=[f"{name}@{max(versions, key=_natural)}".rstrip("@")])
        return versions[version]

    def step(self, name: str) -> Step[..., Any] | Transaction[..., Any]:
        """The step or transaction of this name. Raises `NotFound`."""
        found = self._steps.get(name)
        if found is None:
            close = _close(name, self._steps)
            hint = f"Did you mean {close[0]!r}?" if close else "Is its module among those that --app names?"
            raise NotFound(f"There is no step {name!r}.", hint=hint)
        return found

    def queue(self, name: str) -> Queue:
        """The queue declared by this name. Raises `QueueNotFound`; the store knows those set by hand."""
        found = self.queues().get(name)
        if found is None:
            raise QueueNotFound(name, close=_close(name, self._queues))
        return found

    def workflows(self) -> list[Workflow[..., Any]]:
        """All workflows, every version, by name."""
        return [versions[v] for _, versions in sorted(self._workflows.items()) for v in sorted(versions, key=_natural)]

    def steps(self) -> list[Step[..., Any] | Transaction[..., Any]]:
        """All steps and transactions, by name."""
        return [found for _, found in sorted(self._steps.items())]

    def queues(self) -> dict[str, Queue]:
        """All declared queues by name; `default` is always one of them."""
        from .queues import DEFAULT

        return {DEFAULT.name: DEFAULT, **self._queues}

    def undeclared_queues(self, known: Iterable[str] = ()) -> list[str]:
        """A sentence for each workflow and step that waits in a queue which nobody declares; `known` are those set by hand."""
        declared = {*self.queues(), *known}
        return [
            f"The {one.kind} {one.name} in {one.place} waits in the queue {one.queue!r}, which nobody declares"
            + (f"; did you mean {close[0]!r}?" if (close := _close(one.queue, declared)) else ".")
            for one in (*self.workflows(), *self.steps())
            if one.queue is not None and one.queue not in declared
        ]

    def clear(self) -> None:
        """Forget everything. For tests."""
        self._workflows.clear()
        self._steps.clear()
        self._queues.clear()


_current = Registry()


def current() -> Registry:
    """The registry that decorators add to."""
    return _current


@contextmanager
def isolated() -> Iterator[Registry]:
    """Define into a fresh registry inside the block. For tests; it holds for every thread."""
    global _current
    before, _current = _current, Registry()
    try:
        yield _current
    finally:
        _current = before


def add(definition: D) -> D:
    return _current.add(definition)


def changed() -> None:
    """A definition that is in already has got a compensation or a probe."""
    _current.edition += 1


def add_queue(queue: Queue) -> None:
    _current.add_queue(queue)


def workflow(name: str, version: str | None = None) -> Workflow[..., Any]:
    return _current.workflow(name, version)


def step(name: str) -> Step[..., Any] | Transaction[..., Any]:
    return _current.step(name)


def queue(name: str) -> Queue:
    return _current.queue(name)


def workflows() -> list[Workflow[..., Any]]:
    return _current.workflows()


def steps() -> list[Step[..., Any] | Transaction[..., Any]]:
    return _current.steps()


def queues() -> dict[str, Queue]:
    return _current.queues()


def clear() -> None:
    _current.clear()


def _same_place(one: Definition, other: Definition) -> bool:
    # A script is `__main__` when it runs, and has its dotted name when it is imported: one file, one
    # definition.
    same_module = one.module == other.module or one.file == other.file
    return same_module and one.fn.__qualname__ == other.fn.__qualname__


def _declares_anew(known: Queue, queue: Queue) -> bool:
    """Whether a module that is executed again, or a notebook's cell, says it otherwise: not two lines of one file."""
    return known.module == queue.module and (known.code is not queue.code or known.place == queue.place)


def _plural(definition: Definition) -> str:
    return "workflows" if definition.kind == "workflow" else "steps"


def _close(name: str, known: Iterable[str]) -> list[str]:
    from difflib import get_close_matches

    return get_close_matches(name, known, n=1)


def _natural(version: str) -> list[tuple[bool, int, str]]:
    """Sorts "10" after "9", and the version without a name first."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.findall(r"\d+|\D+", version)]
