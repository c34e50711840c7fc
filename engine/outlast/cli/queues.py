"""The verbs of `queue`: `list`, `set`, `pause`, `resume`.

Owns the reading of limits from the command line and what is printed of a queue afterwards. Refuses limits that make
no sense, in one sentence, before anything is written. A queue that the app declares and that no agent has brought
into the file yet is brought there first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInput, QueueNotFound
from . import output
from .context import Context
from .group import Command, Nouns
from .listing import queues
from .render import print_lines
from .text import safe

if TYPE_CHECKING:
    from ..operations.atomic import Operation
    from ..store.sqlite import SqliteStore

_NONE = "none"


@click.group(
    "queue",
    cls=Nouns,
    help="Set the limits of a queue, pause and resume it.",
    examples=["outlast queue set emails --rate 100/1m --per-partition 2", "outlast queue pause emails"],
)
def queue() -> None:
    pass


@queue.command("list", cls=Command, help="The same as `outlast queues`.", examples=["outlast queue list"])
@click.pass_context
def queue_list(ctx: click.Context) -> int:
    code: int = ctx.invoke(queues)
    return code


@queue.command(
    "set",
    cls=Command,
    help="Set the limits of a queue, which is created if it does not exist. They hold for all agents from the next claim on, "
    "and override those that code declares, until --reset.",
    examples=[
        "outlast queue set emails --concurrency 10 --rate 100/1m",
        "outlast queue set emails --rate none",
        "outlast queue set emails --reset",
    ],
)
@click.argument("name")
@click.option("--concurrency", metavar="N|none", help="How many of its tasks run at once.")
@click.option("--rate", metavar="N/WINDOW|none", help='How many start within any such window, as "100/1m".')
@click.option("--per-partition", metavar="N|none", help="How many of each partition run at once.")
@click.option("--hold", metavar="running|unfinished", help="Whether a run that waits keeps its place.")
@click.option("--reset", is_flag=True, help="Forget what was set; the limits that code declares apply again.")
@click.pass_obj
def queue_set(context: Context, /, name: str, reset: bool, **given: str | None) -> int:
    from ..operations.queues import SetQueue
    from ..store import queues as stored

    limits = _limits(name, given)
    if not limits and not reset:
        raise InvalidInput(
            f"Nothing to set of queue {safe(name)!r}.",
            hint="Give --concurrency, --rate, --per-partition, --hold or --reset.",
        )
    store = context.store()
    is_new = not stored.exists(store.connection(), name)
    operation = SetQueue(name, reset=reset, **limits)
    if reset:
        _commit(context, store, operation, name)
    else:
        store.commit(operation)
    if is_new and not reset and not context.machine:
        # It is set by now: code that cannot be loaded must not make an error of that.
        registry = context.registry_if_whole()
        if registry is not None and name not in registry.queues():
            output.note(f"{safe(name)} is a new queue: no code declares it.")
    return _show(context, store, name)


def _limits(name: str, given: dict[str, str | None]) -> dict[str, Any]:
    """What was given, checked as a declaration is; "none" takes a limit away."""
    from typing import get_args

    from ..definition.options import checked_choice
    from ..definition.queues import Hold, parsed_rate
    from ..text.names import checked_name, checked_whole

    place = f"queue {checked_name(name, place='The name of a queue')!r}"
    limits: dict[str, Any] = {}
    for which, text in given.items():
        if text is None:
            continue
        if which == "hold":
            limits[which] = checked_choice(text, get_args(Hold), place=f"hold of {place}")
        elif text.strip().lower() == _NONE:
            limits[which] = None
        elif which == "rate":
            parsed_rate(text, place=f"rate of {place}")
            limits[which] = text
        else:
            limits[which] = checked_whole(_whole(text), place=f"{which} of {place}", least=1)
    return limits


def _whole(text: str) -> int | str:
    try:
        return int(text)
    except ValueError:
        return text


@queue.command(
    "pause",
    cls=Command,
    help="Take nothing more from a queue; what runs goes on until it ends or waits.",
    examples=["outlast queue pause emails"],
)
@click.argument("name")
@click.pass_obj
def queue_pause(context: Context, name: str) -> int:
    from ..operations.queues import PauseQueue

    return _hold(context, PauseQueue(name), name)


@queue.command("resume", cls=Command, help="End the pause of a queue.", examples=["outlast queue resume emails"])
@click.argument("name")
@click.pass_obj
def queue_resume(context: Context, name: str) -> int:
    from ..operations.queues import ResumeQueue

    return _hold(context, ResumeQueue(name), name)


def _hold(context: Context, operation: Operation[bool], name: str) -> int:
    store = context.store()
    if not _commit(context, store, operation, name) and not context.machine:
        output.note(f"Nothing changed: {safe(name)} was so already.")
    return _show(context, store, name)


def _commit(context: Context, store: SqliteStore, operation: Operation[Any], name: str) -> Any:
    """Execute an operation on a queue that must be known: to the file, or else to the app."""
    from ..operations.queues import declaration

    try:
        return store.commit(operation)
    except QueueNotFound:
        context.registry.queue(name)
        store.commit(declaration(context.registry))
        return store.commit(operation)


def _show(context: Context, store: SqliteStore, name: str) -> int:
    from ..store import queues as stored_queues
    from ..views import queues_json

    shown = next((one for one in queues_json(store) if one["name"] == name), None)
    if shown is None:  # `default`, about which nobody has said anything.
        from ..definition.registry import Registry

        shown = next(one for one in queues_json(store, context.registry_if_whole() or Registry()) if one["name"] == name)
    if context.machine:
        context.answer(shown)
        return 0
    limits = [
        f"{label} {shown[key]}"
        for key, label in (("concurrency", "concurrency"), ("rate", "rate"), ("per_partition", "per partition"))
        if shown[key] is not None
    ]
    in_force = stored_queues.known(store.connection()).get(name)
    if in_force is not None and in_force.hold == "unfinished":
        limits.append("hold unfinished")
    state = ", ".join([*limits, *(["paused"] if shown["paused"] else [])]) or "no limits"
    print_lines([[(safe(name), "bold"), (f": {safe(state)}", "")]])
    return 0
