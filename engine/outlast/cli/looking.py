"""What looks at one run: `show`, `result`, `why`, `query`, `stream`.

Owns what each prints and when it waits. Refuses to change anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from . import output
from .context import Context
from .follow import conclude, follow
from .group import Count, command
from .render import print_lines, print_table
from .schedule_view import code_of
from .text import age, safe, safe_lines
from .tree import is_over, run_lines, undo_lines

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore
    from ..why import Explanation

_RUN = click.argument("reference", metavar="RUN")


Picks = Callable[[dict[str, Any]], bool | None]
"""Whether a message is wanted; None where that is not known yet."""


@command(
    "show",
    help="Draw a run: its steps and children, with times, tries and errors.\n\nRUN is an id, a prefix of one, or WORKFLOW:KEY.",
    examples=["outlast show 4x2k --follow", "outlast show fulfil:o-1 --undo"],
)
@_RUN
@click.option("--follow", "-f", "following", is_flag=True, help="Keep drawing until the run is over.")
@click.option("--undo", is_flag=True, help="Show what would be (or was) undone, in order, with arguments and results.")
@click.option("--traceback", is_flag=True, help="The whole traceback of the run's error.")
@click.pass_obj
def show(context: Context, reference: str, following: bool, undo: bool, traceback: bool) -> int:
    from ..views import run_json, show_json, undo_json
    from ..views.chains import last_in_line

    store = context.store()
    task_id, _ = context.find(store, reference)
    if following and not undo:
        return _show_follow(context, store, task_id)
    # What it waits for is drawn; a script is promised no such key, and asks `why`.
    shown = show_json(store, task_id, raw=context.raw, waits=not context.machine)
    plan = undo_json(store, task_id, context.raw) if undo else []
    if context.machine:
        # `undo` is the undo that was; what would be undone has a name of its own.
        context.answer({**shown, "undo_plan": plan} if undo else shown)
        return 0
    last_id = last_in_line(store, task_id)
    # What goes on as another run has no result of its own.
    print_lines(run_lines(shown, outcome=last_id == task_id))
    if last_id != task_id:
        print_lines([[("  ", ""), ("went on as ", "dim"), (run_json(store, last_id)["id"], "")]])
    if undo:
        print_lines(undo_lines(plan))
    if traceback and shown["error"]:
        output.write(safe_lines(shown["error"].get("traceback") or "").rstrip())
    return 0


def _show_follow(context: Context, store: SqliteStore, task_id: int) -> int:
    from ..views import show_json
    from ..views.chains import last_in_line

    follow(store, task_id, stream=sys.stdout, silent=context.machine, raw=context.raw)
    shown = show_json(store, last_in_line(store, task_id), raw=context.raw, waits=not context.machine)
    if context.machine:
        context.answer(shown)
    elif not sys.stdout.isatty():
        print_lines(run_lines(shown))
    return output.exit_code(shown["status"])


@command(
    "result",
    help="Print what a run returned, and exit by its outcome; with 5 if it is still open.",
    examples=["outlast result 4x2k --wait --timeout 5m", "outlast result fulfil:o-1 --json"],
)
@_RUN
@click.option("--wait", is_flag=True, help="Wait for the end.")
@click.option("--timeout", metavar="DURATION", help="Wait no longer than this; then exit 5.")
@click.pass_obj
def result(context: Context, reference: str, wait: bool, timeout: str | None) -> int:
    from ..codec import payloads
    from ..errors import ResultTimeout
    from ..text.duration import seconds
    from ..views import run_json
    from ..views.chains import last_in_line
    from ..views.state import stored_output

    limit = None if timeout is None else seconds(timeout, place="--timeout")
    store = context.store()
    task_id, uid = context.find(store, reference)
    task_id = last_in_line(store, task_id)
    found = run_json(store, task_id, raw=context.raw)
    if not is_over(found) and (wait or limit is not None):
        over = follow(
            store,
            task_id,
            silent=context.machine or not sys.stderr.isatty(),
            timeout_seconds=limit,
            raw=context.raw,
        )
        if over is None:
            raise ResultTimeout(uid, limit)
        found = over
    payloads.opened(stored_output(store, task_id) or b"")
    return conclude(found, as_json=context.machine)


@command(
    "why",
    help="Say what a run waits for and since when, and what you can do.\n\n"
    "RUN is an id, a prefix of one, or WORKFLOW:KEY; or the name of a schedule, to learn when it fires, or why it does not.",
    examples=["outlast why 4x2k", "outlast why nightly"],
)
@_RUN
@click.pass_obj
def why(context: Context, reference: str) -> int:
    explained = _explanation(context, reference)
    if context.machine:
        context.answer(explained.to_json())
        return 0
    print_lines([[(safe_lines(explained.summary), "")]])
    for detail in explained.details:
        print_lines([[("  ", ""), (safe_lines(detail), "dim")]])
    for action in explained.actions:
        print_lines([[("  > ", "cyan"), (safe_lines(action), "")]])
    return 0


def _explanation(context: Context, reference: str) -> Explanation:
    """Of a run; of a schedule where no run is named so."""
    from ..errors import RunNotFound, ScheduleNotFound
    from ..why import why as explain
    from ..why import why_schedule

    store = context.store()
    try:
        task_id, _ = context.find(store, reference)
    except RunNotFound as unknown:
        try:
            return why_schedule(store, reference, code_of(context))
        except ScheduleNotFound:
            raise unknown from None
    return explain(store, task_id)


@command(
    "query",
    help="Print a value that a run has published.\n\nWithout a KEY: all of them, as a list.",
    examples=["outlast query 4x2k progress", "outlast query fulfil:o-1"],
)
@_RUN
@click.argument("key", required=False)
@click.pass_obj
def query(context: Context, reference: str, key: str | None) -> int:
    store = context.store()
    task_id, uid = context.find(store, reference)
    from ..codec import payloads
    from ..views.chains import last_in_line
    from ..views.state import published_list, published_value
    from ..views.values import value_json

    if key is None:
        found = published_list(store, last_in_line(store, task_id), raw=context.raw)
        if context.machine:
            context.answer(found)
            return 0
        print_table(
            ["KEY", "AGE", "VALUE"],
            [[(safe(one["key"]), "bold"), (age(one["at"]), ""), (output.dumped(one["value"]), "")] for one in found],
            empty=f"Run {uid} has published nothing so far.",
            flexible=2,
        )
        return 0
    stored = published_value(store, last_in_line(store, task_id), key, run_id=uid)
    output.document(value_json(payloads.opened(stored), raw=context.raw))
    return 0


@command(
    "stream",
    help="Print the messages of a run's stream, in order.\n\n"
    "With --follow, the messages of the runs that continue it (continue_as_new) come next. Each run numbers its own from 1; "
    "--after is a number in the run you name.",
    examples=["outlast stream 4x2k progress --follow", "outlast stream 4x2k progress --after 17 --jsonl"],
)
@_RUN
@click.argument("name")
@click.option("--after", type=Count(0), default=0, help="Only those after this number.")
@click.option("--follow", "-f", "following", is_flag=True, help="Keep printing until the run has ended.")
@click.pass_obj
def stream(context: Context, reference: str, name: str, after: int, following: bool) -> int:
    store = context.store()
    task_id, uid = context.find(store, reference)
    as_list = context.as_json and not context.as_lines and not following
    found: list[dict[str, Any]] = []
    is_empty = True
    for message in messages_of(store, task_id, name, after, following=following, raw=context.raw):
        if as_list:
            found.append(message)
        elif context.machine:
            output.lines([message])
        else:
            output.write(output.dumped(message["value"]))
        if following:
            sys.stdout.flush()
        is_empty = False
    if as_list:
        output.document(found)
    elif is_empty and not following and not context.machine:
        from ..views.state import stream_names

        names = stream_names(store, task_id)
        if name not in names:
            has = f"nothing on {name!r}. Its streams: {', '.join(names)}." if names else "nothing so far."
            output.note(f"Run {uid} has emitted {has}")
    return 0


def messages_of(
    store: SqliteStore, task_id: int, name: str, after: int, *, following: bool, raw: bool, picks: Picks | None = None
) -> Iterator[dict[str, Any]]:
    """The messages of a run's stream; with `following` until it has ended, and then those of the run that goes on from it.

    Of those that `picks` takes alone; one about which it says None, since nobody knows yet, is asked about again.
    """
    from ..views.following import Follower
    from ..views.state import message_json, messages, uid_of
    from ..views.watch import Watch

    if not following:
        while found := messages(store, task_id, name, after=after):
            for one in found:
                message = {"run_id": uid_of(store, task_id), **message_json(*one, raw=raw)}
                if picks is None or picks(message):
                    yield message
            after = found[-1][0]
        return
    follower = Follower(store, task_id, name, after)
    undecided: list[dict[str, Any]] = []
    with Watch(store) as watch:
        while (come := follower.look()) is not None:
            undecided += [{"run_id": uid_of(store, run), **message_json(*one, raw=raw)} for run, one in come]
            decided = [(message, True if picks is None else picks(message)) for message in undecided]
            yield from (message for message, is_picked in decided if is_picked)
            undecided = [message for message, is_picked in decided if is_picked is None]
            if not come:
                watch.wait(None)
