"""A wall clock that somebody sets while real agents, supervisors and schedulers work: no timer moves, and no lease ends.

The clock is that of the processes alone: a launcher adds to it what a file says, each time it is read.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from .commands import eventually
from .test_role_boundaries import Place

pytestmark = pytest.mark.crash

CODE = """
import os, time
from outlast import Every, sleep, step, workflow

def note(text):
    with open("effects", "a") as file:
        file.write(f"{text} {time.monotonic()}\\n"); file.flush()

@step
def begin(tag: str) -> None: note(f"begin {tag}")

@step
def finish(tag: str) -> None: note(f"finish {tag}")

@workflow
def naps() -> None:
    begin("nap"); sleep(2.5); finish("nap")

@step
def slow() -> None:
    note("slow")
    time.sleep(2.5)

@workflow
def works() -> None:
    slow()

@workflow(schedule=Every("1h", catch_up="all", overlap="allow"))
def hourly() -> None: pass
"""
HOUR, DAY = 3600, 86_400


@pytest.mark.parametrize("jump", [-HOUR, DAY], ids=["an hour back", "a day ahead"])
def test_a_clock_that_jumps_under_real_roles_moves_no_timer_and_ends_no_lease(tmp_path: Path, jump: int) -> None:
    place = Place(tmp_path)
    shift = tmp_path / "shift"

    def set_clock(seconds: int) -> None:
        (tmp_path / "next").write_text(str(seconds))
        os.replace(tmp_path / "next", shift)

    set_clock(0)
    (tmp_path / "workflows" / "work.py").write_text(CODE)
    try:
        roles = [
            place.popen(*role, CLOCK_SHIFT=str(shift), OUTLAST_LEASE="3s")
            for role in (("agent",), ("supervisor",), ("scheduler",), ("scheduler",))
        ]

        def effects() -> dict[str, float]:
            file = tmp_path / "effects"
            lines = file.read_text().splitlines() if file.exists() else []
            found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}
            assert len(found) == len(lines), f"a step ran twice: {lines}"
            return found

        eventually(lambda: place.rows("select count(*) from outlast_schedule where next_at is not null") == [(1,)])
        for name in ("naps", "works"):
            place.start(name)
        place.store.ring()
        eventually(lambda: {"begin nap", "slow"} <= set(effects()))
        assert "finish nap" not in effects()
        [(next_at,)] = place.rows("select next_at from outlast_schedule")
        set_clock(jump)
        eventually(lambda: "finish nap" in effects())
        done = effects()
        assert 2.4 < done["finish nap"] - done["begin nap"] < 15, "the timer moved with the clock"
        eventually(lambda: place.rows("select distinct status from outlast_task where name in ('naps', 'works')") == [("completed",)])
        if jump > 0:
            eventually(lambda: len(place.rows("select id from outlast_task where name = 'hourly' and status = 'completed'")) >= 24)
        else:
            eventually(lambda: place.rows("select next_at from outlast_schedule") <= [(next_at,)])
        set_clock(0)
        # Two heartbeats of everybody, under the clock as it was.
        beats = "select min(heartbeat_at), count(*) from outlast_agent where status = 'active'"
        [(beat, agents)] = place.rows(beats)
        eventually(lambda: place.rows(beats)[0][0] != beat)
        assert agents == 1
        assert place.rows("select count(*) from outlast_agent") == [(1,)], "a lease was ended by a clock"
        assert place.rows("select max(claim) from outlast_task where name = 'works'") == [(1,)]
        fired = [tick for (tick,) in place.rows("select tick from outlast_tick where run_id is not null order by 1")]
        assert len(fired) == len(set(fired)) <= 26
        assert len(place.rows("select id from outlast_task where name = 'hourly'")) == len(fired)
        for role in roles:
            assert role.poll() is None
            role.terminate()
        outs = [role.communicate(timeout=30)[0] for role in roles]
        assert "Traceback" not in "".join(outs)
        assert place.is_sound()
    finally:
        place.close()
