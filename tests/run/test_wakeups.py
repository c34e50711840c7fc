"""News for a run that waits in memory reaches it, however close the notices follow each other; an answer reaches its loop, or nobody."""

from __future__ import annotations

import asyncio
from pathlib import Path

from outlast import Engine, gather, step, workflow
from outlast.agent.answers import Answers
from outlast.definition import registry
from outlast.operations import Heartbeat
from outlast.store.sqlite import SqliteStore

with registry.isolated() as definitions:

    @step
    def double(n: int) -> int:
        return 2 * n

    @workflow
    def fan_out(n: int) -> list[int]:
        return list(gather(*[double.submit(i) for i in range(n)]))


def test_no_notice_is_lost_when_many_parts_end_at_once(tmp_path: Path) -> None:
    # With parking a minute away, a notice that is lost would leave its run waiting.
    engine = Engine(tmp_path / "app.db", park_after=60)
    with registry.isolated() as current:
        current.add(double)
        current.add(fan_out)
        with engine, engine.agent(concurrency=8):
            runs = [engine.start(fan_out, 5) for _ in range(40)]
            assert [run.result(timeout=30) for run in runs] == [[0, 2, 4, 6, 8]] * 40


def test_an_answer_to_an_agent_that_has_left_keeps_none_from_another_whose_thread_has_its_number(store: SqliteStore) -> None:
    # The system gives a new thread the number of one that has ended: that of the old agent's loop to the new one's.
    loops = [asyncio.new_event_loop(), asyncio.new_event_loop()]
    old, new = (Answers(store, loop) for loop in loops)
    old.begin()
    new.begin()
    heard: list[str] = []

    async def both() -> None:
        store.committer.submit_led(Heartbeat(1, 1), lambda *_: old._arrive(lambda *_: heard.append("old"), None, None))
        new.submit(Heartbeat(1, 1), lambda *_: heard.append("new"))
        while not heard:
            await asyncio.sleep(0.001)

    old.end()
    loops[0].close()
    loops[1].run_until_complete(asyncio.wait_for(both(), 10))
    loops[1].close()
    assert heard == ["new"]
