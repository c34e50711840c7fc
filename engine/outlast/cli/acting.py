"""What acts on runs: `cancel`, `pause`, `resume`, `retry`, `signal`.

Owns the choice of runs, by their ids or by a filter, the question before a filter acts, and the report of
what became of each. Refuses to begin before every id has been found; what a run's state does not allow is
told of that run, and the others go on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInput, OutlastError
from ..text.counted import counted
from . import output
from .context import Context
from .group import command
from .render import mark, print_lines, status_cell
from .starting import read_file, read_json
from .starting import tags as read_tags
from .text import safe

if TYPE_CHECKING:
    from ..engine import Engine
    from ..store.sqlite import SqliteStore

_TOGETHER = 32
_OPEN = ("pending", "running", "waiting", "compensating", "halted", "paused")

Act = Callable[[str], str]
"""Acts on a run by its id; gives the id of the run to report, which for a retry is another one."""


def _choice(function: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in reversed(
        (
            click.argument("references", metavar="[RUN]...", nargs=-1),
            click.option("--all", "everyone", is_flag=True, help="All runs that match the filters, instead of named ones."),
            click.option("--workflow", metavar="NAME", help="With --all: only of this workflow."),
            click.option(
                "--status",
                "statuses",
                metavar="STATUS",
                multiple=True,
                help="With --all: only of this status.",
            ),
            click.option("--tag", "tags", metavar="KEY=VALUE", multiple=True, help="With --all: only with this tag."),
            click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        )
    ):
        function = decorate(function)
    return function


@command(
    "cancel",
    help="Cancel runs: they stop, and what they did is undone.",
    examples=["outlast cancel 4x2k", "outlast cancel --all --workflow fulfil --status waiting --yes"],
)
@_choice
@click.option("--no-undo", is_flag=True, help="Leave what they did as it is.")
@click.option("--force", is_flag=True, help="Do not wait for a try that may still be executing on an agent that cannot be seen.")
@click.pass_obj
def cancel(context: Context, /, no_undo: bool, force: bool, **choice: Any) -> int:
    from ..operations import Cancel

    store = context.store()

    def act(uid: str) -> str:
        store.commit(Cancel(uid, undo=not no_undo, force=force))
        return uid

    return _act(context, store, "cancel", act, choice, _OPEN)


@command(
    "pause",
    help="Hold runs at their next durable call.",
    examples=["outlast pause 4x2k --children", "outlast pause --all --workflow fulfil --yes"],
)
@_choice
@click.option("--children", is_flag=True, help="Their children too.")
@click.pass_obj
def pause(context: Context, /, children: bool, **choice: Any) -> int:
    from ..operations import Pause

    store = context.store()

    def act(uid: str) -> str:
        store.commit(Pause(uid, children=children))
        return uid

    return _act(
        context,
        store,
        "pause",
        act,
        choice,
        tuple(status for status in _OPEN if status not in ("paused", "halted")),
    )


@command(
    "resume",
    help="End a pause, of children too, or let a halted run continue. If it was halted because nobody knows whether a step took "
    "effect, say what you found out: --done with the step's result, or --not-done.",
    examples=[
        "outlast resume 4x2k",
        "outlast resume 4x2k --done '\"payment-17\"'",
        "outlast resume 4x2k --not-done",
        "outlast resume --all --status halted --yes",
    ],
)
@_choice
@click.option("--done", metavar="JSON", help="The step took effect; this is its result.")
@click.option("--not-done", is_flag=True, help="The step did not take effect.")
@click.pass_obj
def resume(context: Context, /, done: str | None, not_done: bool, **choice: Any) -> int:
    result = ... if done is None else read_json(done, place="--done", may_be_text=True)
    engine = context.engine()

    def act(uid: str) -> str:
        fitting = result if result is ... else _as_result(context, engine, uid, result)
        engine.get(uid).resume(done=fitting, not_done=not_done)
        return uid

    return _act(context, engine.store, "resume", act, choice, ("paused", "halted"))


def _as_result(context: Context, engine: Engine, uid: str, value: Any) -> Any:
    """What a person says that a step gave, as the type that the step says it gives."""
    from ..store import questions
    from ..views.find import find_run

    asked = questions.open_question(engine.store.connection(), find_run(engine.store, uid)[0])
    known = {one.name: one for one in context.registry.steps()} if asked is not None else {}
    if asked is None or asked.name not in known:
        return value
    return known[asked.name].signature.result_from_json(value)


@command(
    "retry",
    help="Retry finished runs, each as a new run that inherits the results up to the failure; what was undone runs again. "
    "--all skips those that were retried already.",
    examples=[
        "outlast retry 4x2k",
        "outlast retry 4x2k --from-step charge",
        "outlast retry --all --workflow fulfil --status failed --yes",
    ],
)
@_choice
@click.option("--from-step", metavar="STEP", help="Run this step and everything after it again: a place, or a name (its first step).")
@click.pass_obj
def retry(context: Context, /, from_step: str | None, **choice: Any) -> int:
    from ..views.chains import was_retried

    engine = context.engine()

    def act(uid: str) -> str:
        # As it is drawn: a name begins with a letter, a place with a number.
        return str(engine.get(uid).retry(from_step and from_step.removeprefix("#")).id)

    return _act(context, engine.store, "retry", act, choice, ("failed", "compensated", "cancelled"), leaves_out=was_retried)


@command(
    "signal",
    help="Send the signal NAME to a run, with a payload as JSON; - reads it from stdin.",
    examples=[
        'outlast signal 4x2k approval \'{"by": "eve"}\'',
        "outlast signal fulfil:o-1 approval --key mail-17",
    ],
)
@click.argument("reference", metavar="RUN")
@click.argument("name")
@click.argument("payload", metavar="[JSON]", required=False)
@click.option("--key", help="A second signal with this key changes nothing.")
@click.pass_obj
def signal(context: Context, reference: str, name: str, payload: str | None, key: str | None) -> int:
    from ..text.names import checked_key, checked_text

    checked_text(name, place="The name of a signal")
    if key is not None:
        checked_key(key, place="--key")
    text = read_file("-") if payload == "-" else payload
    value = None if text is None else read_json(text, place="The payload", may_be_text=True)
    engine = context.engine()
    _, uid = context.find(engine.store, reference)
    engine.get(uid).signal(name, value, key=key)
    _report(context, engine.store, [uid])
    return 0


def _act(
    context: Context,
    store: SqliteStore,
    verb: str,
    act: Act,
    choice: dict[str, Any],
    sensible: tuple[str, ...],
    leaves_out: Callable[[SqliteStore, str], bool] | None = None,
) -> int:
    """Act on each chosen run; the exit code is that of the first that refused."""
    uids = _chosen(context, store, verb, choice, sensible, leaves_out)
    if len(choice["references"]) == 1:
        _report(context, store, [act(uids[0])])
        return 0
    done: dict[str, None] = {}
    refusals: list[tuple[str, OutlastError]] = []
    for uid, outcome in zip(uids, _outcomes(act, uids), strict=True):
        if not isinstance(outcome, OutlastError):
            done[outcome] = None
            continue
        refusals.append((uid, outcome))
        if not context.machine:
            output.report(outcome, as_json=False)
    _report(context, store, list(done), as_list=True)
    if not refusals:
        return 0
    return output.report_refusals(refusals) if context.machine else refusals[0][1].exit_code


def _outcomes(act: Act, uids: list[str]) -> Iterator[str | OutlastError]:
    """What became of each, in their order. Several at a time: what comes together is one commit."""
    from concurrent.futures import ThreadPoolExecutor

    def outcome(uid: str) -> str | OutlastError:
        try:
            return act(uid)
        except OutlastError as error:
            return error

    threads = ThreadPoolExecutor(_TOGETHER)
    try:
        yield from threads.map(outcome, uids)
    finally:
        # Ctrl-C: what has not been begun is left as it is.
        threads.shutdown(cancel_futures=True)


def _chosen(
    context: Context,
    store: SqliteStore,
    verb: str,
    choice: dict[str, Any],
    sensible: tuple[str, ...],
    leaves_out: Callable[[SqliteStore, str], bool] | None,
) -> list[str]:
    """The ids to act on. Nothing has been done when one of them is not found, or a person says no."""
    references, filters = choice["references"], (choice["workflow"], choice["statuses"], choice["tags"])
    if references and (choice["everyone"] or any(filters)):
        raise InvalidInput("Runs were named and a filter was given.", hint="Give one of the two.")
    if references:
        return list(dict.fromkeys(context.find(store, reference)[1] for reference in references))
    if not choice["everyone"]:
        hint = f"Name a run, or `outlast {verb} --all` with --workflow, --status or --tag."
        raise InvalidInput(f"Which runs to {verb}?", hint=hint)
    from ..views.runs import find_runs

    found = find_runs(
        store,
        status=choice["statuses"] or sensible,
        workflow=choice["workflow"],
        tags=read_tags(choice["tags"]) or None,
        limit=None,
    )
    uids = [uid for _, uid in found if leaves_out is None or not leaves_out(store, uid)]
    if uids and not choice["yes"]:
        _ask(verb, len(uids))
    if not uids:
        output.note("No run fits.")
    return uids


def _ask(verb: str, count: int) -> None:
    runs = counted(count, "run")
    if not sys.stdin.isatty():
        raise InvalidInput(f"This would {verb} {runs}.", hint="Say --yes to do it.")
    if not click.confirm(f"{verb.capitalize()} {runs}?", err=True):
        output.note("Nothing was done.")
        raise output.Quit(0)


def _report(context: Context, store: SqliteStore, uids: list[str], *, as_list: bool = False) -> None:
    """What has become of the runs."""
    from ..views import find_run, run_json
    from ..views.chains import last_in_line

    # Who acts on a run acts on the one that goes on with what it began.
    runs = [run_json(store, last_in_line(store, find_run(store, uid)[0]), raw=context.raw) for uid in uids]
    if context.machine:
        if runs or as_list:
            context.answer(runs if as_list else runs[0])
        return
    print_lines(
        [
            [
                status_cell(run["status"], mark(run["status"])),
                (f" {run['id']}  ", ""),
                (safe(run["workflow"]), "bold"),
                ("  ", ""),
                status_cell(run["status"]),
            ]
            for run in runs
        ]
    )
