"""What a benchmark is told, and what it is: a name, a run, and the figures that count as good."""

import os
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec


class BenchmarkFailed(Exception):
    """Nothing was measured, or what was measured is not what the benchmark is about; the message says why."""


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """What every benchmark is told."""

    #: Empty; for data, recordings and logs.
    folder: Path
    #: How often both sides are measured, in turns; figures are medians.
    rounds: int
    #: Measure other settings too, where a benchmark has some: a table to choose by.
    tried: bool = False
    #: The smallest sizes: shows that the benchmark works, its figures mean nothing.
    quick: bool

    def say(self, fact: str) -> None:
        """Tell something that is not a figure but helps to read them."""
        load = os.getloadavg()[0]
        print(f"    {fact}  (load {load:.1f})", flush=True)


class Target(msgspec.Struct, frozen=True):
    least: float | None = None
    most: float | None = None

    def met(self, figure: float) -> bool:
        return (self.least is None or figure >= self.least) and (self.most is None or figure <= self.most)

    def __str__(self) -> str:
        return f"≥ {self.least:g}" if self.least is not None else f"≤ {self.most:g}"


class Benchmark(msgspec.Struct, frozen=True):
    #: One sentence.
    what: str
    #: Figure → value.
    run: Callable[[Bench], dict[str, float]]
    targets: Mapping[str, Target] = {}


def in_turns(rounds: int, first: Callable[[], float], second: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Measure two things in turns, so that what else the machine does meets both; who begins alternates.

    Values of the same index were measured one right after the other: compare those, with ratio_of and difference_of.
    """
    measured: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            measured[which].append((first, second)[which]())
    return measured


def ratio_of(upper: list[float], lower: list[float]) -> float:
    """The median of the pairs' ratios: a load that comes or goes between two pairs is in neither."""
    return statistics.median(one / other for one, other in zip(upper, lower, strict=True))


def difference_of(left: list[float], right: list[float]) -> float:
    """The median of the pairs' differences."""
    return statistics.median(one - other for one, other in zip(left, right, strict=True))


def median_of(values: list[float]) -> float:
    return statistics.median(values)


def listed(values: list[float], unit: str) -> str:
    """`1.21, 1.19, 1.30 s`"""
    return f"{', '.join(f'{value:.2f}' for value in values)} {unit}"
