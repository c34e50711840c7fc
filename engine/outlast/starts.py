"""Starts from outside, as values.

Owns the merge of a definition's options with a call's and the limits on what is given. Refuses to write: what
a start writes is the store's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import clock, codec
from .definition import registry
from .definition.stored_retry import stored_retry
from .errors import PayloadTooLarge, QueueNotFound
from .model import DEFAULT_QUEUE, new_id, workflow_code
from .operations import Start

if TYPE_CHECKING:
    from .definition import Workflow
    from .definition.options import Options
    from .settings import Settings


def start_operation(
    definition: Workflow[..., Any],
    named: Mapping[str, object],
    options: Options,
    settings: Settings,
    *,
    has_queue: Callable[[str], bool] = lambda _: False,
) -> Start:
    """The start of a run from outside, as a value. Raises `NotStorable`, `PayloadTooLarge`, `QueueNotFound`.

    `has_queue` is asked about a queue that this process does not declare.
    """
    place = f"the arguments of {definition.name}"
    data = codec.encode(dict(named), place=place)
    if len(data) > settings.max_payload:
        raise PayloadTooLarge(place, len(data), settings.max_payload)
    queue = options.queue or definition.queue or DEFAULT_QUEUE
    if queue != DEFAULT_QUEUE:  # Which is always there.
        try:
            registry.queue(queue)
        except QueueNotFound:
            if not has_queue(queue):
                raise
    timeout = options.timeout_seconds if options.timeout_seconds is not None else definition.timeout_seconds
    uid = new_id(clock.wall())
    return Start(
        uid=uid,
        kind="run",
        name=definition.name,
        needs=workflow_code(definition.name, definition.version),
        version=definition.version,
        queue=queue,
        input=data,
        partition=options.partition,
        priority=options.priority,
        delay=_microseconds(options.delay_seconds),
        at_wall=None if options.at is None else clock.from_datetime(options.at),
        key=options.key,
        unique_key=options.unique_key,
        if_exists=options.if_exists,
        debounce=_microseconds(options.debounce_seconds),
        debounce_max=_microseconds(options.debounce_max_seconds),
        tags=json.dumps(dict(options.tags)) if options.tags else None,
        timeout=_microseconds(timeout),
        chain=uid,
        options=stored_retry(options.retry) if options.retry is not None else None,
        max_crashes=definition.max_crashes,
    )


def _microseconds(length_seconds: float | None) -> int | None:
    return None if length_seconds is None else round(length_seconds * clock.SECOND)
