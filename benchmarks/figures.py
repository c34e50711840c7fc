"""What is measured and how it is judged: figures of several rounds, their spread, and bars.

Owns the vocabulary of the suite: a benchmark measures figures once for each round, a bar judges the median of one. Ratios are
made within a round, of things measured next to each other, since a shared machine is fast in one minute and slow in the next.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

Round = dict[str, float]
"""The figures of one round, by name."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How large to measure. `quick` is for a first look; `folder` is on the disk that is measured."""

    quick: bool
    folder: Path | None = None

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        with TemporaryDirectory(prefix="outlast-bench-", dir=self.folder, ignore_cleanup_errors=True) as name:
            yield Path(name)


@dataclass(frozen=True, slots=True)
class Bar:
    """What the median of a figure has to reach, and what it could."""

    figure: str
    at_least: float | None = None
    at_most: float | None = None
    aim: float | None = None

    def is_met(self, value: float) -> bool:
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        sign, limit = ("≥", self.at_least) if self.at_least is not None else ("≤", self.at_most)
        return f"{sign} {limit:g}" + (f" (aim {self.aim:g})" if self.aim is not None else "")


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One thing to measure. `durability` says, for each side, what a crash or a power cut can take."""

    name: str
    title: str
    measure: Callable[[Setting], Round]
    bars: tuple[Bar, ...] = ()
    durability: dict[str, str] = field(default_factory=dict)
    rounds: int = 5
    is_there: Callable[[], str | None] = lambda: None
    """Why it cannot be measured here; None where it can."""


@dataclass(slots=True)
class Measured:
    """The rounds of one benchmark."""

    benchmark: Benchmark
    rounds: list[Round] = field(default_factory=list)
    skipped: str | None = None

    @property
    def figures(self) -> list[str]:
        return list(dict.fromkeys(name for one in self.rounds for name in one))

    def spread(self, figure: str) -> tuple[float, float, float]:
        """Minimum, median and maximum over the rounds."""
        values = [one[figure] for one in self.rounds if figure in one]
        return min(values), statistics.median(values), max(values)

    def bar_of(self, figure: str) -> Bar | None:
        return next((bar for bar in self.benchmark.bars if bar.figure == figure), None)

    def missed(self) -> list[Bar]:
        return [bar for bar in self.benchmark.bars if bar.figure in self.figures and not bar.is_met(self.spread(bar.figure)[1])]


@dataclass(frozen=True, slots=True)
class Curve:
    """How a figure changes with a size."""

    title: str
    size: str
    figure: str
    points: tuple[tuple[float, float], ...]
    """(size, median), by rising size."""
