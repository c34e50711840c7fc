"""Why a run is not moving, in sentences: what it waits for, and what to do about it.

Owns one explanation for every state that a task can be in. Refuses to guess and to act: each sentence is
read from the file, and the commands are for the person who asked. Parts of a run are explained the same
way, each by its own first sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .. import clock
from ..errors import RunNotFound
from ..states import Status
from ..store import journal, questions, undoing
from ..text.counted import counted, times
from ..text.duration import describe
from ..views import waiting
from ..views.chains import chain_texts
from ..views.schedules import schedule_json
from ..views.task_facts import Holder, TaskFacts, task_facts
from ..views.values import error_json, error_line, same_error, wall_json
from .asked import question_texts
from .entry_texts import entry_text, length, wait_texts, when
from .unclaimed import tell_strays, why_unclaimed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..scheduling import Declared
    from ..store.sqlite import SqliteStore

_PARTS_EXPLAINED = 5
_DEEPEST = 3
_PART = {"run": "child", "child": "child", "step": "step"}


@dataclass(slots=True)
class Explanation:
    """One sentence, what is behind it, and commands that help; the commands may be none."""

    summary: str
    details: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {"summary": self.summary, "details": self.details, "actions": self.actions}


def why(store: SqliteStore, task_id: int) -> Explanation:
    """Explain a run, or a submitted step. Raises `RunNotFound`."""
    explanation = _why(store, task_id, depth=0)
    facts = task_facts(store, task_id)
    if facts is not None and facts.kind == "run":
        explanation.details += chain_texts(store, facts.uid)
    return explanation


def why_schedule(store: SqliteStore, name: str, code: Mapping[str, Declared]) -> Explanation:
    """Why a schedule does not fire, or when it does. Raises `ScheduleNotFound`."""
    found = schedule_json(store, name, code)
    details = []
    if (last := found["last"]) is not None:
        run = f" (run {last['run_id']})" if last["run_id"] else ""
        because = f": {last['reason']}" if last["reason"] else ""
        details.append(f"Its last tick, {last['until']}, was {last['outcome']}{run}{because}.")
    return Explanation(found["why"], details, [f"outlast schedule show {name}", f"outlast schedule ticks {name}"])


def _why(store: SqliteStore, task_id: int, *, depth: int) -> Explanation:
    facts = task_facts(store, task_id)
    if facts is None:
        raise RunNotFound(str(task_id))
    if facts.finished_at is not None:
        return _final(store, facts)
    explanation = _open(store, facts, depth)
    _add_intents(store, facts, explanation)
    return explanation


def _open(store: SqliteStore, facts: TaskFacts, depth: int) -> Explanation:
    if facts.status == Status.HALTED:
        return _halted(store, facts)
    if facts.holder is not None:
        return _held(store, facts, facts.holder, depth)
    if facts.ending is not None and facts.status != Status.COMPENSATING:
        return _ending(store, facts, waiting.ENDINGS[facts.ending], depth)
    if facts.paused_at is not None:
        return _paused(store, facts, depth)
    if facts.status == Status.COMPENSATING:
        return _compensating(store, facts)
    if facts.status == Status.PENDING:
        explanation = Explanation("")
        why_unclaimed(store, facts, explanation, what="It")
        if facts.tries:
            error = _last_error(store, facts.id, of_run=facts.kind == "run") or facts.error
            # Of what a workflow raised by itself nothing is written until it has no tries left.
            because = f", the last by {error_line(error)}" if error is not None else "."
            explanation.details.append(f"It has failed {times(facts.tries)}{because}")
        return explanation
    return _waiting(store, facts, depth)


def _paused(store: SqliteStore, facts: TaskFacts, depth: int) -> Explanation:
    """The pause first, since nothing else ends before it; then what holds it up once it is resumed."""
    now = store.now()
    resumed = replace(facts, paused_at=None, due_at=facts.due_at and max(facts.due_at, now))
    then = _open(store, resumed, depth)
    next_text = f"Once it is resumed: {then.summary[:1].lower()}{then.summary[1:]}"
    uid = facts.run_uid
    return Explanation(
        f"It has been paused since {wall_json(facts.paused_at)}.",
        [next_text, *then.details],
        [f"outlast resume {uid}", *then.actions],
    )


def _final(store: SqliteStore, facts: TaskFacts) -> Explanation:
    at = wall_json(facts.finished_at)
    uid = facts.run_uid
    again = [f"outlast show {uid}", f"outlast retry {uid}"]
    match Status(facts.status):
        case Status.COMPLETED:
            return Explanation(f"It completed at {at}.", actions=[f"outlast result {uid}"])
        case Status.CANCELLED:
            undone = {
                "completed": "What it had done was undone.",
                "skipped": "What it had done was left as it is.",
                "failed": f"Its undo gave up: {error_line(facts.undo_error)}; `outlast show {uid} --undo` lists what was left as it is.",
            }
            details = [undone[facts.undo]] if facts.undo in undone else []
            return Explanation(f"It was cancelled, and ended at {at}.", details, again)
        case Status.COMPENSATED:
            return Explanation(
                f"It failed and was undone by {at}: {error_line(facts.error)}",
                [*_failed_step(store, facts), "Every compensation has completed."],
                again,
            )
        case _:
            details = [*_failed_step(store, facts), *(["Nothing was undone: it was told not to."] if facts.undo == "skipped" else [])]
            return Explanation(f"It failed at {at}: {error_line(facts.error)}", details, again)


def _failed_step(store: SqliteStore, facts: TaskFacts) -> list[str]:
    """Which step's error ended a run: an error that comes from a fan-out over many does not say so itself."""
    error = error_json(facts.error, deepest=True)
    for entry in reversed(journal.load(store.connection(), facts.id)):
        if entry.event == "failed" and entry.kind != "compensation" and same_error(error, error_json(entry.data, deepest=True)):
            return [f"It is the error of the {_PART.get(entry.kind, 'step')} {entry.name} at {entry.path}."]
    return []


def _halted(store: SqliteStore, facts: TaskFacts) -> Explanation:
    uid = facts.run_uid
    explanation = Explanation(
        f"It is halted and needs a person: {facts.halt_reason}",
        actions=[f"outlast show {uid}", *_ways_on(store, facts, uid), f"outlast cancel {uid}"],
    )
    asked = question_texts(store, facts.id)
    explanation.details += asked
    if facts.error is not None and (error := error_line(facts.error)) != facts.halt_reason:
        explanation.details.append(f"Its error: {error}")
    if facts.crashes:
        explanation.details.append(f"It took down its agent {times(facts.crashes)} while it ran alone.")
    if facts.undo in ("pending", "failed") and not asked:
        explanation.details.append("It is halted in its undo: `resume` tries the compensation again, `cancel` leaves the rest as it is.")
    return explanation


def _ways_on(store: SqliteStore, facts: TaskFacts, uid: str) -> list[str]:
    is_asked = questions.open_question(store.connection(), facts.id) is not None
    return [f"outlast resume {uid}{answer}" for answer in ((" --done JSON", " --not-done") if is_asked else ("",))]


def _held(store: SqliteStore, facts: TaskFacts, holder: Holder, depth: int) -> Explanation:
    """On an agent: what it does there."""
    now = store.now()
    verb = "is being undone" if facts.status == Status.COMPENSATING else "runs"
    place = f"agent {holder.uid} (pid {holder.pid} on {holder.host})"
    explanation = Explanation(f"It {verb} on {place}.")
    left = holder.lease_until - now
    beat = describe(max(0.0, (clock.wall() - holder.heartbeat_at) / clock.SECOND))
    if left < 0:
        explanation.summary = f"It is held by {place}, which is silent."
        explanation.details.append(f"Its lease ended {length(-left)} ago; a supervisor gives the run to another agent.")
        explanation.actions.append("outlast up")
    else:
        explanation.details.append(f"The agent was heard {beat} ago; its lease has {length(left)} left.")
    if holder.status == "draining":
        explanation.details.append("The agent drains: what does not end soon is handed to another one.")
    entries = journal.load(store.connection(), facts.id)
    if entries:
        last = entries[-1]
        since = describe(max(0.0, (clock.wall() - last.at) / clock.SECOND))
        explanation.details.append(f"Its last journal entry, {since} ago: {entry_text(last)}.")
    elif facts.started_at is not None:
        explanation.details.append(f"It was first claimed at {wall_json(facts.started_at)}.")
    # What the run itself was waiting for wakes nobody once it is undone.
    own = [e for e in entries if facts.status != Status.COMPENSATING or e.kind == "compensation"]
    texts = wait_texts(store, own)
    explanation.details += texts
    if texts:
        awaited = {entry.name: None for entry in waiting.open_entries(own) if entry.kind == "signal"}
        explanation.actions += [f"outlast signal {facts.run_uid} {name} JSON" for name in awaited]
        _add_unread(store, facts, explanation)
    if facts.alone and facts.suspect:
        explanation.details.append("It runs alone, since an agent crashed while it was on it.")
    if depth < _DEEPEST:
        _add_parts(store, facts, explanation, depth)
    return explanation


def _ending(store: SqliteStore, facts: TaskFacts, ending: str, depth: int) -> Explanation:
    """Its ending is decided; something of it may still be under way."""
    uid = facts.run_uid
    count = waiting.count_open_parts(store, facts.id, with_children=facts.ending != "completed")
    found = waiting.strays(store, facts.id)
    explanation = Explanation(f"It {ending}, and waits until nothing of it runs any more.")
    if count:
        explanation.summary = f"It {ending}, and waits for {counted(count, 'open part')} to end."
    tell_strays(found, uid, explanation)
    if found and not count:
        explanation.summary = f"It {ending}, and waits until a try that may still run has ended."
    if facts.error is not None:
        explanation.details.append(f"Its error: {error_line(facts.error)}")
    if not found and not count:
        explanation.details.append("Nothing is left; the next sweep of a supervisor ends it.")
        explanation.actions.append("outlast up")
    _add_parts(store, facts, explanation, depth)
    return explanation


def _compensating(store: SqliteStore, facts: TaskFacts) -> Explanation:
    plan = undoing.read_plan(store.connection(), facts.id)
    explanation = Explanation("It is being undone: nothing is left to undo, an agent will end it.")
    what = "Its undo"
    if plan:
        step = plan[0]
        what = f"The compensation of {step.name} at {step.path}"
        explanation.summary = f"It is being undone: next comes the compensation of {step.name} ({step.path})."
        explanation.details.append(f"{counted(len(plan), 'compensation')} left to run.")
        if step.tries:
            error = _last_error(store, facts.id, f"undo/{step.path}")
            explanation.details.append(f"It has failed {times(step.tries)}, the last by {error_line(error)}")
    first = explanation.summary
    why_unclaimed(store, facts, explanation, what=what)
    explanation.details.insert(0, explanation.summary)
    explanation.summary = first
    if facts.error is not None:
        explanation.details.append(f"It failed with: {error_line(facts.error)}")
    return explanation


def _waiting(store: SqliteStore, facts: TaskFacts, depth: int) -> Explanation:
    """Parked: for timers, signals, parts, backoffs."""
    if facts.due_at is not None and facts.due_at <= store.now():
        explanation = Explanation("")
        why_unclaimed(store, facts, explanation, what="What it waited for is there; it")
        return explanation
    entries = journal.load(store.connection(), facts.id)
    texts = wait_texts(store, entries)
    uid = facts.uid
    explanation = Explanation("It waits.", list(texts))
    if len(texts) == 1:
        explanation = Explanation(texts[0])
    elif texts:
        explanation.summary = f"It waits for {counted(len(texts), 'thing')} at once."
    elif facts.awaits:
        explanation.summary = f"It waits for a signal: {', '.join(facts.awaits)}."
    elif facts.due_at is not None:
        explanation.summary = f"It waits until {when(store, facts.due_at)}."
    elif len(parts := waiting.open_parts(store, facts.id, limit=2)) == 1:
        explanation.summary = f"It waits for the {_PART[parts[0].kind]} {parts[0].name} at {parts[0].path} ({parts[0].uid})."
    elif parts:
        explanation.summary = f"It waits for parts of it, of which {waiting.count_open_parts(store, facts.id):,} are open."
    if facts.wait_count:
        what = " or the first that fails" if facts.wait_fails_fast else ""
        explanation.details.append(f"It continues after the end of {counted(facts.wait_count, 'more part')}{what}.")
    explanation.actions += [f"outlast signal {uid} {name} JSON" for name in facts.awaits]
    _add_unread(store, facts, explanation)
    _add_parts(store, facts, explanation, depth)
    return explanation


def _add_unread(store: SqliteStore, facts: TaskFacts, explanation: Explanation) -> None:
    """The signals that nobody has taken: of another name, or of a payload that does not fit."""
    awaited = set(facts.awaits)
    if facts.holder is not None:
        entries = journal.load(store.connection(), facts.id)
        awaited = {entry.name for entry in waiting.open_entries(entries) if entry.kind == "signal"}
    for name, count in waiting.unread_signals(store, facts.id).items():
        problem = "does not fit the waiting type" if name in awaited else "is not what it waits for"
        explanation.details.append(f"{counted(count, 'signal')} named {name!r} unread: it {problem}.")
        if name in awaited:
            explanation.actions.append(f"outlast logs {facts.uid} (says how it does not fit)")


def _add_parts(store: SqliteStore, facts: TaskFacts, explanation: Explanation, depth: int) -> None:
    """Its open children and submitted steps, each by its own first sentence."""
    if facts.kind != "run":
        return
    count = waiting.count_open_parts(store, facts.id)
    shown = waiting.open_parts(store, facts.id, limit=_PARTS_EXPLAINED) if depth < _DEEPEST else []
    for part in shown:
        reason = _why(store, part.task_id, depth=depth + 1)
        explanation.details.append(f"{_PART[part.kind]} {part.name} at {part.path} ({part.uid}): {reason.summary}")
        if count == 1:
            explanation.actions += [action for action in reason.actions if action not in explanation.actions]
    if count > len(shown):
        explanation.details.append(f"{counted(count - len(shown), 'more part')} not ended.")


def _add_intents(store: SqliteStore, facts: TaskFacts, explanation: Explanation) -> None:
    if facts.cancel_requested_at is not None and facts.ending is None:
        explanation.details.append(f"It was asked to be cancelled at {wall_json(facts.cancel_requested_at)}.")
    if facts.paused_at is not None and facts.holder is not None:
        explanation.details.append(f"It was asked to pause at {wall_json(facts.paused_at)}, and will at its next durable call.")
    if facts.deadline_at is not None and facts.status != Status.HALTED and facts.ending is None:
        explanation.details.append(f"Its deadline is {when(store, facts.deadline_at)}.")


def _last_error(store: SqliteStore, task_id: int, path: str | None = None, *, of_run: bool = False) -> bytes | None:
    """That of the last try: of a run it is set aside with the outcome that ended it."""
    entries = [entry for entry in journal.load(store.connection(), task_id) if path in (None, entry.path)]
    aside = {entry.path for entry in entries if entry.event == "set_aside"}
    errors = [e.data for e in entries if (e.event == "failed" and e.path in aside if of_run else e.event == "tried")]
    return errors[-1] if errors else None
