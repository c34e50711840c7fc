"""What this process has defined, as JSON.

Owns the shape of a workflow. Refuses to import anything: whoever asks has loaded the app.
"""

from __future__ import annotations

import inspect
import typing
from typing import TYPE_CHECKING, Any

from ..definition.source import shown

if TYPE_CHECKING:
    from ..definition import Workflow
    from ..definition.registry import Registry


def workflows_json(registry: Registry) -> list[dict[str, Any]]:
    """All workflows, every version, by name."""
    return [workflow_json(workflow) for workflow in registry.workflows()]


def workflow_json(workflow: Workflow[..., Any]) -> dict[str, Any]:
    """One workflow: where it is, what it takes, how it is run."""
    doc = inspect.getdoc(workflow.fn) or ""
    return {
        "name": workflow.name,
        "version": workflow.version,
        "parameters": _parameters(workflow),
        "description": doc.partition("\n")[0],
        "queue": workflow.queue,
        "timeout_seconds": workflow.timeout_seconds,
        "tries": workflow.retry.tries,
        "on_error": workflow.on_error,
        "scheduled": workflow.schedule is not None,
        "compensated": workflow.compensated_by is not None,
        "async": workflow.asynchronous,
        "file": shown(workflow.file),
        "line": workflow.line,
    }


def _parameters(workflow: Workflow[..., Any]) -> list[dict[str, Any]]:
    found = []
    for name, parameter in workflow.signature.parameters.items():
        marks: dict[object, str] = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        annotation = parameter.annotation
        found.append(
            {
                "name": f"{marks.get(parameter.kind, '')}{name}",
                "type": None if annotation is parameter.empty else _type_text(annotation, workflow.fn.__module__),
                "required": name in workflow.signature.required,
                "default": None if parameter.default is parameter.empty else repr(parameter.default),
            }
        )
    return found


def _type_text(annotation: Any, module: str) -> str:
    # A bare class by its name, everything else (a string under `from __future__ import annotations`,
    # a generic) as written where the workflow is.
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return annotation.__qualname__
    return inspect.formatannotation(annotation).replace(f"{module}.", "")
