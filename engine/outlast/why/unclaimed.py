"""Why a task that could be claimed is not: it is not due, nobody is there, nobody has its code, or others
go first.

Owns the look from a waiting row to the agents that are up. Refuses to name a cause that the file does not
show: where everything fits, it says that the task is about to be claimed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from .. import clock
from ..text.counted import counted
from ..text.duration import describe
from ..views import waiting
from ..views.values import wall_json
from ..views.waiting import Candidate, Stray
from .held_back import why_held_back, why_not_yet
from .in_line import why_in_line

if TYPE_CHECKING:
    from ..store.sqlite import SqliteStore
    from ..views.task_facts import TaskFacts


class Text(Protocol):
    summary: str
    details: list[str]
    actions: list[str]


def tell_strays(found: list[Stray], uid: str, text: Text) -> None:
    """Name the processes that are waited for, and how to go on without."""
    for stray in found:
        lives = {True: "it lives", False: "it is gone", None: "it cannot be seen from here"}[stray.lives]
        where = f" at {stray.path}" if stray.path else ""
        since = wall_json(stray.since_at)
        text.details.append(f"A try{where} may still run in pid {stray.pid} on {stray.host} ({lives}; since {since}).")
    if found:
        text.actions.append(f"outlast cancel --force {uid}")


def why_unclaimed(store: SqliteStore, facts: TaskFacts, text: Text, *, what: str) -> None:
    """Complete an explanation of a row that waits to be claimed. `what` is the subject of its first
    sentence.
    """
    now = store.now()
    due_at = facts.due_at
    if due_at is None:
        if why_not_yet(store, facts, text, what=what) or why_in_line(store, facts, text, what=what):
            return
        if facts.status == "compensating" and (strays := waiting.strays(store, facts.id)):
            text.summary = f"{what} waits until a try that may still run has ended."
            tell_strays(strays, facts.uid, text)
            return
        text.summary = f"{what} cannot be claimed; `outlast doctor` looks for the cause."
        text.actions.append("outlast doctor")
        return
    if due_at > now:
        at_wall = facts.at_wall if facts.claim == 0 else None
        at = wall_json(at_wall if at_wall is not None else store.engine_time().to_wall(due_at))
        text.summary = f"{what} is not due before {at} (in {describe((due_at - now) / clock.SECOND)})."
        _mind_nobody(store, facts, text)
        return
    if why_held_back(store, facts, due_at, text, what=what):
        return
    found = waiting.candidates(store, facts)
    active = [agent for agent in found if agent.status == "active"]
    able = [agent for agent in active if agent.fingerprint is not None]
    serving = [agent for agent in able if agent.serves(facts.queue)]
    fitting = [agent for agent in serving if agent.fingerprint not in facts.refused]
    if not active:
        _nobody(found, text, what=what)
    elif not able:
        _nobody_has_the_code(store, facts, active, text, what=what)
    elif not serving:
        _nobody_serves(facts, able, text, what=what)
    elif facts.suspect:
        text.summary = f"{what} waits to run alone: an agent crashed while it was on it."
        text.details.append(f"Its neighbours must not suffer. Crashes while it was alone, so far: {facts.crashes}.")
    elif not fitting:
        text.summary = f"{what} waits for other code: that of every live agent disagreed with its journal."
        text.details.append(f"Refused {_code(facts.needs)}: {', '.join(facts.refused)}.")
        text.actions.append("outlast check")
    else:
        _others_go_first(store, facts, due_at, fitting, text, what=what)
        if len(fitting) < len(serving):
            refused = len(serving) - len(fitting)
            text.details.append(
                f"It waits for other code of {_code(facts.needs)} than that of {refused} live agent{'s' if refused > 1 else ''}, "
                "which disagreed with its journal."
            )


def _mind_nobody(store: SqliteStore, facts: TaskFacts, text: Text) -> None:
    """Say ahead of time that nobody could take it when it falls due."""
    if all(agent.fingerprint is None for agent in waiting.candidates(store, facts)):
        text.details.append(f"No live agent has {_code(facts.needs)} now; start one by then.")
        text.actions.append("outlast up")


def _nobody(found: list[Candidate], text: Text, *, what: str) -> None:
    text.summary = f"{what} is due, but no live agent is there to take it."
    if found:
        text.details.append(f"{len(found)} agents drain, and take nothing any more.")
    text.actions.append("outlast up")


def _nobody_has_the_code(store: SqliteStore, facts: TaskFacts, active: list[Candidate], text: Text, *, what: str) -> None:
    text.summary = f"{what} is due, but no live agent has {_code(facts.needs)}."
    text.details.append(f"Agents without it: {_named(active)}.")
    if facts.needs.startswith("workflow:"):
        versions = waiting.other_versions(store, facts.needs)
        if versions:
            text.details.append(f"They have its versions {', '.join(versions)}.")
    text.actions.append("outlast up --app MODULE (a module that defines it)")


def _nobody_serves(facts: TaskFacts, able: list[Candidate], text: Text, *, what: str) -> None:
    queue = facts.queue
    text.summary = f"{what} is due, but no live agent that has its code takes from the queue {queue!r}."
    for agent in able:
        text.details.append(f"Agent {agent.uid} takes from {', '.join(agent.queues or [])}.")
    text.actions.append(f"outlast agent --queue {queue}")


def _others_go_first(store: SqliteStore, facts: TaskFacts, due_at: int, fitting: list[Candidate], text: Text, *, what: str) -> None:
    ahead = waiting.count_ahead(store, facts)
    slots, running = sum(agent.slots for agent in fitting), sum(agent.running for agent in fitting)
    waited = describe((store.now() - due_at) / clock.SECOND)
    if ahead:
        text.summary = f"{what} is due for {waited}, behind {counted(ahead, 'task')} of the queue {facts.queue!r}."
    elif running >= slots:
        text.summary = f"{what} is due for {waited} and the next in line; every slot is taken."
    elif (silent := _silence(store, fitting)) is not None:
        text.summary = f"{what} is due for {waited}, but no agent that can take it has been heard for {describe(silent)}."
    else:
        text.summary = f"{what} is due for {waited} and about to be claimed."
    text.details.append(f"Agents that can take it: {_named(fitting)}; {running} of their {slots} slots are taken.")
    if running >= slots:
        text.actions.append("outlast up --agents N (more of them)")


def _silence(store: SqliteStore, agents: list[Candidate]) -> float | None:
    """For how many seconds none of them has renewed its lease, where each has let pass more than half of it: an agent that is well renews
    it every third.
    """
    heard = [(clock.wall() - agent.heartbeat_at, agent.lease_until - store.now()) for agent in agents]
    return min(ago for ago, _ in heard) / clock.SECOND if all(ago > left for ago, left in heard) else None


def _named(agents: list[Candidate]) -> str:
    shown = ", ".join(f"{agent.uid} (pid {agent.pid} on {agent.host})" for agent in agents[:5])
    return shown if len(agents) <= 5 else f"{shown} and {len(agents) - 5} more"


def _code(needs: str) -> str:
    """What the row needs, in words: "the workflow fulfil, version 2"."""
    kind, _, name = needs.partition(":")
    if kind == "compensation":
        return f"the compensation of step {name}" if name else "code for its undo"
    name, _, version = name.partition("@")
    return f"the {kind} {name}, version {version}" if version else f"the {kind} {name}"
