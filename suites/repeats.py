"""Cells restarted in turns, and their blocks held against each other pair by pair.

The unit is a server's start with all it then answers. A round starts every cell once; the next one
in the other order, so that what drifts gives as much to the one as to the other. The first cell is
what the others are over: original-tp1 where it is among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final, TypeAlias

from fixtures.budgets import Metric
from fixtures.deployment import PlatformSettings
from fixtures.matrix import Cell
from fixtures.running import Servers
from reports.paired import (
    Compared,
    Direction,
    PairedRatio,
    judge_family,
    order,
    paired_ratio,
)
from suites.measure import Blocks, Gauge, best
from suites.times import samples

Figure: TypeAlias = str  # the last part of a claim
DIRECTIONS: Final[Mapping[Figure, Direction]] = {
    "ttft_p50": "lower",
    "tpot_p50": "lower",
    "e2e_p50": "lower",
    "output_tokens_per_s": "higher",
}


@dataclass(slots=True)
class Repeated:
    """`figures[cell][figure]` has a number for each round, None where that start gave none."""

    reference: str
    figures: dict[str, dict[Figure, list[float | None]]] = field(default_factory=dict)
    doubts: dict[str, list[str]] = field(default_factory=dict)
    again: dict[str, int] = field(default_factory=dict)  # blocks measured again

    def judged(self, margins: Mapping[Figure, float]) -> dict[tuple[str, Figure], Compared]:
        """Every comparison there is, by cell and figure; one family: among many, some stray."""
        family = {
            (cell, figure): ratio
            for cell in self.figures
            for figure in DIRECTIONS
            if cell != self.reference and (ratio := self.ratio(cell, figure)) is not None
        }
        comparisons = [
            (ratio, margins[figure], DIRECTIONS[figure]) for (_, figure), ratio in family.items()
        ]
        return dict(zip(family, judge_family(comparisons), strict=True))

    def ratio(self, cell: str, figure: Figure) -> PairedRatio | None:
        """Over the reference, of the rounds in which both have it; None where there is no such."""
        pairs = [
            (old, new)
            for old, new in zip(
                self.figures[self.reference][figure], self.figures[cell][figure], strict=True
            )
            if old is not None and new is not None and old > 0 and new > 0
        ]
        if not pairs:
            return None
        return paired_ratio([old for old, _ in pairs], [new for _, new in pairs])


def repeat(
    cells: Sequence[Cell],
    rounds: int,
    servers: Servers,
    gauge: Gauge,
    settings_of: Callable[[Cell], PlatformSettings],
) -> Repeated:
    """Starts and measures every cell so many times; ServingError where one cannot be started."""
    found = Repeated(cells[0].id)
    for turn, sequence in enumerate(order(cells, rounds), 1):
        for place, cell in enumerate(sequence, 1):
            done = f"round {turn} of {rounds}, server {place} of {len(sequence)}"
            running = servers.start_beside(cell, f"{cell.id}.r{turn}", done)
            settings = settings_of(cell)
            latency = dict(gauge.latency(running.server, settings.latency, f"r{turn}-l"))
            load = dict(gauge.throughput(running.server, settings.throughput, f"r{turn}-t"))
            figures = found.figures.setdefault(cell.id, {})
            for figure, value in summary(latency, load).items():
                figures.setdefault(figure, []).append(value)
            blocks = (*latency.values(), *load.values())
            found.doubts.setdefault(cell.id, []).extend(b.doubt for b in blocks if b.doubt)
            again = sum(block.again is not None for block in blocks)
            found.again[cell.id] = found.again.get(cell.id, 0) + again
    return found


def summary(latency: Blocks, load: Blocks) -> dict[Figure, float | None]:
    """One number of each kind for a start: medians of the probe, the best loop's output rate."""
    times: tuple[Metric, ...] = ("ttft", "tpot", "e2e")
    found: dict[Figure, float | None] = {}
    for metric in times:
        values = samples(latency["text"].load, metric)
        found[f"{metric}_p50"] = median(values) if values else None
    return found | {"output_tokens_per_s": best(load).load.output_tokens_per_s}
