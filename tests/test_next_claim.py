"""What an agent claims next: how many claims may be under way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from outlast.next_claim import NextClaim

PLENTY = 256


def next_claim(*, is_shared: bool = False, held: int = 0) -> NextClaim:
    """Of an agent whose runs are short, and that holds so many."""
    store: Any = SimpleNamespace(turn=SimpleNamespace(is_shared=is_shared))
    holding: Any = SimpleNamespace(
        runs=dict.fromkeys(range(held)),
        backlog=0,
        runners=SimpleNamespace(is_short=True, seconds=0.00001),
        slots=SimpleNamespace(free=8),
    )
    made = NextClaim(store, SimpleNamespace(fingerprints={}), holding, concurrency=8, queues=None, root_id=None)  # type: ignore[arg-type]
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
