"""The short form of the simulation: a few dozen seeds, the same ones each time."""

from __future__ import annotations

from pathlib import Path

import pytest

from .simulation import Figures, Simulation

SEEDS = range(1, 13)


@pytest.mark.crash
def test_no_interleaving_of_agents_that_die_and_freeze_breaks_a_promise(tmp_path: Path) -> None:
    total = Figures()
    for seed in SEEDS:
        total.add(Simulation(tmp_path, seed).run())
    # Otherwise it would prove nothing.
    assert total.deaths >= 2 * len(SEEDS), total
    assert total.zombies >= len(SEEDS), total
    assert total.refused >= len(SEEDS), total
    assert total.takeovers >= 3 * len(SEEDS), total


def test_a_seed_is_the_same_simulation_again(tmp_path: Path) -> None:
    stories = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        # Threads of one agent that are under way at once need not come to rest in the same order.
        simulation = Simulation(tmp_path / name, 7, slots=(1,))
        simulation.run()
        stories.append(simulation.story)
    assert stories[0] == stories[1]
