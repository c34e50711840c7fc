"""What an agent claims next: how many claims may be under way, and whose turn it is where several are in one process."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from outlast.agent import next_claim as next_claim_module
from outlast.agent import side_by_side
from outlast.agent.next_claim import NextClaim
from outlast.agent.side_by_side import SideBySide

PLENTY = 256


def next_claim(*, is_shared: bool = False, held: int = 0, beside: SideBySide | None = None) -> NextClaim:
    """Of an agent whose runs are short, and that holds so many."""
    store: Any = SimpleNamespace(turn=SimpleNamespace(is_shared=is_shared), connection=lambda: None, now=lambda: 1_000_000)
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


def test_a_suspect_waits_until_all_agents_of_its_process_have_nothing_and_they_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(side_by_side, "time", SimpleNamespace(monotonic=lambda: now[0]))
    beside = SideBySide()
    one, other = next_claim(beside=beside), next_claim(beside=beside, held=1)
    with beside.claiming:
        assert beside.others_of(one) == []
    plain = other.make(2)
    assert plain is not None
    assert not plain.suspects_first, "it could come back with a suspect, beside what the other agent holds"
    one.has_suspects = lambda: True  # type: ignore[method-assign]
    early = one.make(1)
    assert early is not None
    assert not early.suspects
    one.came_back(early, 0)
    now[0] += 1.5  # The other has been busy for so long that both give way.
    assert one.make(1) is None
    assert one.gives_way
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
    assert other.gives_way
    one._holding.runs.clear()
    one.see_whether_alone_has_left()
    assert one.make(1) is not None
    assert other.make(2) is not None


def test_work_of_an_hour_beside_a_suspect_holds_up_nothing_for_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(side_by_side, "time", SimpleNamespace(monotonic=lambda: now[0]))
    beside = SideBySide()
    one, other = next_claim(beside=beside), next_claim(beside=beside)
    other.make(2)
    assert one.make(1) is None, "the other is the first to come, and may have claimed a suspect"
    other.came_back(other._under_way[0], 0)
    other._holding.runs[1] = None
    one.has_suspects = lambda: True  # type: ignore[method-assign]
    made = []
    for _ in range(15):
        claims = [one.make(1), other.make(2)]
        made.append(claims[0] is not None)
        assert made[-1] is (claims[1] is not None)
        for side, claim in zip((one, other), claims, strict=True):
            if claim is not None:
                side.came_back(claim, 0)
        now[0] += 0.5
    assert made == [True, True, True, False, True, True, *[False] * 4, *[True] * 4, False]


def test_an_agent_that_ends_or_finds_nothing_holds_up_nobody_beside_it() -> None:
    beside = SideBySide()
    one, other = next_claim(beside=beside), next_claim(beside=beside)
    other.make(2)
    other.came_back(other._under_way[0], 0)
    one.has_suspects = lambda: True  # type: ignore[method-assign]
    suspects = one.make(1)
    assert suspects is not None
    assert other.make(2) is None
    one.came_back(suspects, 0)
    assert other.make(2) is not None
    other.came_back(other._under_way[0], 0)
    assert one.make(1) is not None
    assert other.make(2) is None
    one.close()
    assert other.make(2) is not None


def test_a_claim_that_came_back_with_less_than_asked_for_is_not_followed_at_once() -> None:
    claims = next_claim(held=1)
    some = claims.make(1)
    assert some is not None
    claims.came_back(some, 1)
    assert claims.next_look() == (0.005, True), "what it found comes first, and then a look that locks nothing"


@pytest.mark.parametrize(("due_at", "look"), [(None, (None, False)), (3_000_000, (2.0, False)), (900_000, (0.0, False))])
def test_the_look_after_it_claims_at_once_what_has_come_due(
    due_at: int | None, look: tuple[float | None, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = next_claim(held=1)
    monkeypatch.setattr(next_claim_module, "next_due", SimpleNamespace(next_due_at=lambda *_, now: due_at))
    some = claims.make(1)
    assert some is not None
    claims.came_back(some, 1)
    assert claims.next_look() == (0.005, True)
    assert claims.next_look() == look
    if look[0] == 0.0:
        vain = claims.make(1)
        assert vain is not None
        claims.came_back(vain, 0)
        assert claims.next_look() == (0.5, False), "it is due and cannot be taken: now and then is enough"
