"""What was measured, as a table for the README and as JSON.

A disk's speed drifts from minute to minute, so times are compared within a round: the ratio to
`cp -r` of the same tree in the same round, its median, and the smallest and largest seen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from fixtures.serving.machine import Machine
from suites.benchmarks.timed import Cost

YARDSTICK: Final = "cp -r"
OURS: Final = "our pad, proven"


@dataclass(frozen=True, slots=True)
class Measured:
    """One tree: what each contender cost, round by round; and why one did not run."""

    tree: str
    nbytes: int
    files: int
    costs: Mapping[str, list[Cost]]
    not_run: Mapping[str, str] = field(default_factory=dict)

    def ratios(self, contender: str, *, to: str = YARDSTICK) -> list[float]:
        """Its time over that of another, in each round."""
        pairs = zip(self.costs[contender], self.costs[to], strict=True)
        return [mine.wall_s / theirs.wall_s for mine, theirs in pairs]

    def peak_bytes(self, contender: str) -> int:
        """The largest of all rounds."""
        return max(cost.peak_bytes for cost in self.costs[contender])

    def to_json(self) -> dict[str, object]:
        costs = {name: [asdict(cost) for cost in found] for name, found in self.costs.items()}
        return {
            "tree": self.tree,
            "bytes": self.nbytes,
            "files": self.files,
            "costs": costs,
            "not_run": dict(self.not_run),
        }


def markdown(rows: Sequence[Measured]) -> list[str]:
    """A row per tree and contender."""
    lines = [
        "| checkpoint | what | time / `cp -r` | time / ours | wall | peak resident | written |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        tree = f"{row.tree}, {row.nbytes / 1e9:.1f} GB in {row.files} shards"
        for name, costs in row.costs.items():
            walls = median(cost.wall_s for cost in costs)
            written = median(cost.written_bytes for cost in costs)
            lines.append(
                f"| {tree} | {name} | {_spread(row.ratios(name))} "
                f"| {_spread(row.ratios(name, to=OURS))} | {walls:.1f} s "
                f"| {row.peak_bytes(name) / 2**30:.2f} GiB | {written / 1e9:.2f} GB |"
            )
        for name, why in row.not_run.items():
            lines.append(f"| {tree} | {name} | not run: {why} | | | | |")
    return lines


def _spread(ratios: Sequence[float]) -> str:
    if min(ratios) == max(ratios):
        return f"{ratios[0]:.2f}"
    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, n = {len(ratios)})"


def caption(machine: Machine, disk: str, source: str) -> str:
    """What the numbers were measured on."""
    return (
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_bytes / 2**30:.0f} GiB of memory, "
        f"{disk}; {machine.os}. Each run ends when its files are flushed; the source lies {source}."
    )


def disk_name(path: Path) -> str:
    """Filesystem and device that hold a directory, as the kernel calls them."""
    number = path.stat().st_dev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if left.split()[2] == wanted:
            kind, device, *_ = right.split()
            return f"{kind} on {device}"
    return "a disk without a name"
