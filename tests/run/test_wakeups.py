"""News for a run that waits in memory reaches it, however close the notices follow each other."""

from __future__ import annotations

from pathlib import Path

from outlast import Engine, gather, registry, step, workflow

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
