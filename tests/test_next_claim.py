"""What an agent claims next: how many claims may be under way, and whose turn it is where several are in one process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from outlast.next_claim import NextClaim
from outlast.side_by_side import SideBySide

PLENTY = 256


def next_claim(*, is_shared: bool = False, held: int = 0, beside: SideBySide | None = None) -> NextClaim:
    """Of an agent whose runs are short, and that holds so many."""
    store: Any = SimpleNamespace(turn=SimpleNamespace(is_shared=is_shared))
    holding: Any = SimpleNamespace(
        runs=dict.fromkeys(range(held)),
        backlog=0,
        runners=SimpleNamespace(is_short=True, seconds=0.00001),
        slots=SimpleNamespace(free=8),
    )
    code: Any = SimpleNamespace(fingerprints={})
    made = NextClaim(store, code, holding, concurrency=8, queues=None, root_id=None, beside=beside)
    made.has_suspects = lambda: False  # type: ignore[method-assign]
    return made


@pytest.mark.parametrize("is_shared", [False, True])
def test_a_full_claim_is_followed_by_two_unless_other_agents_want_the_turn(is_shared: bool) -> None:
    claims = next_claim(is_shared=is_shared, held=1)
    first = claims.make(1)
    assert first is not None
    assert first.limit == PLENTY
    assert claims.has_to_wait
    claims.came_back(first, PLENTY)
    assert claims.make(1) is not None
    assert claims.has_to_wait is is_shared


def test_nothing_is_claimed_beside_a_claim_that_may_come_back_with_a_suspect() -> None:
    claims = next_claim(held=1)
    first = claims.make(1)
    assert first is not None
    assert not first.suspects_first
    claims.came_back(first, PLENTY)
    claims._holding.runs.clear()
    idle = claims.make(1)
    assert idle is not None
    assert idle.suspects_first
    assert claims.has_to_wait


def test_a_suspect_waits_until_all_agents_of_its_process_have_nothing_and_they_wait_for_it() -> None:
    beside = SideBySide()
    one, other = next_claim(beside=beside), next_claim(beside=beside, held=1)
    plain = other.make(2)
    assert plain is not None
    assert not plain.suspects_first, "it could come back with a suspect, beside what the other agent holds"
    one.has_suspects = lambda: True  # type: ignore[method-assign]
    assert one.make(1) is None
    assert one.waits_for_others
    other.came_back(plain, 1)
    assert one.make(1) is None, "what has come back is not held yet"
    other.took(plain, [])
    assert one.make(1) is None
    assert other.make(2) is None, "nothing new is taken while the suspect waits"
    other._holding.runs.clear()
    claim = one.make(1)
    assert claim is not None
    assert (claim.limit, claim.alone, claim.suspects) == (1, True, True)
    assert other.make(2) is None
    one.came_back(claim, 1)
    suspect: Any = SimpleNamespace(claimed=SimpleNamespace(alone=True), fence=SimpleNamespace(task_id=7))
    one._holding.runs[7] = suspect
    one.took(claim, [suspect])
    one.has_suspects = lambda: False  # type: ignore[method-assign]
    assert other.make(2) is None
    assert other.waits_for_others
    one._holding.runs.clear()
    one.see_whether_alone_has_left()
    assert one.make(1) is not None
    assert other.make(2) is not None


def test_an_agent_that_ends_holds_up_nobody_beside_it() -> None:
    beside = SideBySide()
    one, other = next_claim(beside=beside), next_claim(beside=beside)
    assert other.make(2) is not None
    one.has_suspects = lambda: True  # type: ignore[method-assign]
    assert one.make(1) is None
    one.close()
    assert other.make(2) is not None
