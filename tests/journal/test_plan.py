"""The undo plan: which compensations a journal calls for, and in which order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.journal.entry import COMPENSABLE, PREVIEW, Entry
from outlast.journal.plan import UNDO_PREFIX, Undo, undo_plan


def started(seq: int, path: str, *, flags: int = COMPENSABLE, kind: str = "step") -> Entry:
    return Entry(seq, path, "started", kind, f"s{path}", 1, flags=flags, input=b'{"n": 1}')


def outcome(seq: int, path: str, event: str = "completed", *, try_number: int = 1, data: bytes = b"1") -> Entry:
    return Entry(seq, path, event, "step", f"s{path}", 1, try_number=try_number, data=data)


def undone(seq: int, path: str, event: str = "completed", *, try_number: int = 1, due_at: int | None = None) -> Entry:
    return Entry(seq, UNDO_PREFIX + path, event, "compensation", f"s{path}", 1, try_number=try_number, due_at=due_at)


def only(entries: list[Entry]) -> Undo:
    (undo,) = undo_plan(entries)
    return undo


def test_the_latest_started_step_is_undone_first_whatever_ended_first() -> None:
    entries = [started(1, "1"), started(2, "2"), started(3, "3"), outcome(4, "3"), outcome(5, "1"), outcome(6, "2")]
    assert [undo.path for undo in undo_plan(entries)] == ["3", "2", "1"]


def test_a_step_without_a_compensation_is_not_in_the_plan() -> None:
    assert undo_plan([started(1, "1", flags=0), started(2, "2", flags=PREVIEW), outcome(3, "1")]) == []


def test_a_completed_step_is_undone_with_its_result_and_input() -> None:
    undo = only([started(1, "1"), outcome(2, "1", data=b'"pay-1"')])
    assert (undo.outcome, undo.result, undo.input) == ("completed", b'"pay-1"', b'{"n": 1}')


def test_a_failed_step_is_undone_without_a_result() -> None:
    undo = only([started(1, "1"), outcome(2, "1", "failed", data=b'{"type": "E"}')])
    assert (undo.outcome, undo.result) == ("failed", None)


def test_a_step_that_was_cut_off_has_an_unknown_outcome() -> None:
    assert only([started(1, "1")]).outcome == "unknown"
    assert only([started(1, "1"), outcome(2, "1", "unknown")]).outcome == "unknown"
    assert only([started(1, "1"), outcome(2, "1", "cancelled")]).outcome == "unknown"


def test_a_step_that_was_cancelled_before_its_first_try_has_nothing_to_undo() -> None:
    assert undo_plan([started(1, "1"), outcome(2, "1", "cancelled", try_number=0)]) == []


def test_a_result_that_came_late_counts() -> None:
    undo = only([started(1, "1"), outcome(2, "1", "unknown"), outcome(3, "1", data=b'"late"')])
    assert (undo.outcome, undo.result) == ("completed", b'"late"')
    undo = only([started(1, "1"), outcome(2, "1", data=b'"first"'), outcome(3, "1", "cancelled")])
    assert (undo.outcome, undo.result) == ("completed", b'"first"')


def test_a_compensation_that_failed_is_tried_again_from_its_count_and_instant() -> None:
    undo = only([started(1, "1"), outcome(2, "1"), undone(3, "1", "tried", try_number=2, due_at=77)])
    assert (undo.tries, undo.due_at) == (2, 77)


def test_a_compensation_that_gave_up_starts_to_count_anew_when_it_is_resumed() -> None:
    undo = only([started(1, "1"), undone(2, "1", "tried"), undone(3, "1", "failed", try_number=2)])
    assert (undo.tries, undo.due_at) == (0, None)


EVENTS = st.sampled_from(["completed", "failed", "unknown"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.none() | EVENTS), max_size=12), st.integers(0, 12), st.randoms())
def test_a_plan_that_is_carried_out_step_by_step_is_the_exact_reverse(
    steps: list[tuple[bool, str | None]], crash_after: int, random: object
) -> None:
    """Whatever the outcomes: each entry of the undo shortens the plan by its head, so a crash goes on where it stopped."""
    entries = [started(number, str(number), flags=COMPENSABLE if compensable else 0) for number, (compensable, _) in enumerate(steps, 1)]
    outcomes = [(number, event) for number, (_, event) in enumerate(steps, 1) if event is not None]
    random.shuffle(outcomes)  # type: ignore[attr-defined]
    entries += [outcome(len(entries) + i, str(number), event) for i, (number, event) in enumerate(outcomes, 1)]
    whole = [undo.path for undo in undo_plan(entries)]
    assert whole == [str(number) for number in range(len(steps), 0, -1) if steps[number - 1][0]]
    done: list[str] = []
    while plan := undo_plan(entries):
        assert [undo.path for undo in plan] == whole[len(done) :]
        if len(done) == crash_after:
            entries.append(undone(len(entries) + 1, plan[0].path, "tried"))
        entries.append(undone(len(entries) + 1, plan[0].path))
        done.append(plan[0].path)
    assert done == whole
