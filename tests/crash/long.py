"""The long forms of the proof, with their figures: `python -m tests.crash.long [STORMS]`.

`python -m tests.crash.long simulate [--seeds N] [--seed S]` is the simulation: of N seeds from S on, or of S alone, with its story.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from .power_loss import long_form as power_cuts
from .simulation import Figures, Simulation
from .storm import storm


def main(storms: int) -> None:
    with tempfile.TemporaryDirectory(prefix="outlast-power-") as folder:
        for line in power_cuts(Path(folder)):
            print(line, flush=True)
    for seed in range(1, storms + 1):
        with tempfile.TemporaryDirectory(prefix="outlast-storm-") as folder:
            print(f"storm {seed}: {storm(Path(folder), runs=300, kills=60, seed=seed, patience_seconds=600.0)}", flush=True)


def simulate(words: list[str]) -> int:
    """Print the figures of many seeds, and each failure; gives how many failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash.long simulate")
    parser.add_argument("--seeds", type=int, help="how many seeds (default: 1000, or the one of --seed)")
    parser.add_argument("--seed", type=int, help="the first seed (default: 1); alone, its story is told")
    given = parser.parse_args(words)
    first, count = given.seed or 1, given.seeds or (1 if given.seed else 1000)
    # What agents say of their lost leases is what is wanted here.
    logging.disable(logging.ERROR)
    total, failed, began = Figures(), 0, time.monotonic()
    for seed in range(first, first + count):
        with tempfile.TemporaryDirectory(prefix="outlast-simulation-") as folder:
            simulation = Simulation(Path(folder), seed)
            try:
                total.add(simulation.run())
            except Exception as error:
                failed += 1
                print("\n".join([f"seed {seed} fails: {type(error).__name__}: {error}", *getattr(error, "__notes__", ())]), flush=True)
        if given.seeds is None and given.seed:
            print(*simulation.story, sep="\n")
        elif seed % 100 == 0:
            print(f"seed {seed}, {time.monotonic() - began:.0f} s: {failed} failed; {total}", flush=True)
    print(f"{count} seeds, {failed} failed, {time.monotonic() - began:.0f} s: {total}")
    return failed


if __name__ == "__main__":
    if sys.argv[1:2] == ["simulate"]:
        sys.exit(min(simulate(sys.argv[2:]), 100))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
