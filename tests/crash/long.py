"""The long forms of the proof, with their figures: `python -m tests.crash.long [STORMS]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .power_loss import long_form as power_cuts
from .storm import storm


def main(storms: int) -> None:
    with tempfile.TemporaryDirectory(prefix="outlast-power-") as folder:
        for line in power_cuts(Path(folder)):
            print(line, flush=True)
    for seed in range(1, storms + 1):
        with tempfile.TemporaryDirectory(prefix="outlast-storm-") as folder:
            print(f"storm {seed}: {storm(Path(folder), runs=300, kills=60, seed=seed, patience_seconds=600.0)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
