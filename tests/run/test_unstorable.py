"""What cannot be stored is a failed outcome: the effect has happened, and no retry of a step, a run or a compensation repeats it."""

from __future__ import annotations

from typing import Any

import pytest
from run_bench import effects

from outlast import NotStorable, PayloadTooLarge, Retry, RunHalted, aio, gather, sqlite3, step, transaction, workflow
from outlast.definition import registry

RETRY = Retry(3, initial="1ms", jitter=0)


class Odd:
    """Nothing that can be stored."""


def made(kind: str) -> object:
    effects.append("made")
    return Odd() if kind == "odd" else "x" * 2000


with registry.isolated() as defined:

    @step(retry=RETRY)
    def plain(kind: str) -> object:
        return made(kind)

    @step(retry=RETRY)
    async def on_the_loop(kind: str) -> object:
        return made(kind)

    @step(retry=RETRY, timeout="20s")
    def timed(kind: str) -> object:
        return made(kind)

    @transaction(retry=RETRY)
    def booked(db: sqlite3.Connection, kind: str) -> object:
        db.execute("create table if not exists seat (name text)")
        db.execute("insert into seat values ('a')")
        return made(kind)

    @step
    def takes() -> int:
        return 1

    @takes.compensation(retry=RETRY)
    def gives_back(result: int | None) -> object:
        return made("odd")

    @workflow
    def calls(which: str, kind: str) -> object:
        return {"plain": plain, "timed": timed, "booked": booked}[which](kind)

    @workflow
    async def awaits(which: str, kind: str) -> object:
        found: Any = {"plain": plain.aio, "loop": on_the_loop, "timed": timed.aio, "booked": booked.aio}[which]
        return await found(kind)

    @workflow
    def submits(which: str, kind: str) -> object:
        return gather({"plain": plain, "loop": on_the_loop, "timed": timed}[which].submit(kind))

    @workflow(retry=RETRY)
    def tries_again(wraps: bool) -> None:
        try:
            plain("odd")
        except NotStorable as error:
            if wraps:
                raise RuntimeError("it did not work") from error
            raise

    @workflow(retry=RETRY)
    async def tries_again_async() -> None:
        await aio.gather(plain.submit("odd"))

    @workflow
    def is_undone() -> None:
        takes()
        raise ValueError("no")


VARIANTS = [
    *[(calls, which) for which in ("plain", "timed", "booked")],
    *[(awaits, which) for which in ("plain", "loop", "timed", "booked")],
    *[(submits, which) for which in ("plain", "loop", "timed")],
]


@pytest.mark.parametrize("kind", ["odd", "big"])
@pytest.mark.parametrize(("flow", "which"), VARIANTS, ids=lambda value: getattr(value, "name", value))
def test_a_result_that_cannot_be_stored_fails_at_the_first_try_of_any_step(bench, flow, which, kind):
    bench.agent(max_payload=1000)
    with pytest.raises(NotStorable if kind == "odd" else PayloadTooLarge, match=r"result of"):
        bench.run(flow, which, kind)
    assert effects == ["made"]
    if which == "booked":
        assert bench.one("select count(*) from sqlite_master where name = 'seat'") == 0


@pytest.mark.parametrize(("flow", "args"), [(tries_again, (False,)), (tries_again, (True,)), (tries_again_async, ())])
def test_a_run_with_a_retry_of_its_own_does_not_repeat_it_either(bench, flow, args):
    with pytest.raises((NotStorable, RuntimeError)):
        bench.run(flow, *args)
    assert effects == ["made"]


def test_a_compensation_whose_result_cannot_be_stored_halts_after_one_try(bench):
    with pytest.raises(RunHalted, match=r"gave up after 1 try: .*cannot be stored"):
        bench.run(is_undone)
    assert effects == ["made"]
