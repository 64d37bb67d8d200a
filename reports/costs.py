"""What tensor parallelism costs and buys: latency, throughput and weights of each cell.

All of it is rows of the run, laid beside each other; nothing is measured here. Throughput is the
highest of a cell's text loads. Two figures are made of others: *scaling efficiency*, the throughput
per rank over that of the same variant at tp 1 (or of original-tp1, where the variant was not
measured there), and the *share beyond the original's*: how much of what a rank holds the original's
rank would not. Of a padded checkpoint that is padding, read with every token and adding nothing.

A figure that is missing names its reason, one that was measured on a busy machine is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from reports.matrix import Cell, number_text
from reports.record import Row

BASE: Final = "original"
# Times are recorded in s, and read in ms.
MILLISECONDS: Final[dict[str | None, float]] = {"s": 1e3, "ms": 1.0}
MIB: Final = 2**20


@dataclass(frozen=True, slots=True)
class Figure:
    """`value` None: there is none, and `note` says why; else of what or when it is."""

    value: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """One cell: times in ms, weights in MiB, shares as fractions."""

    cell: Cell
    ttft_ms: Figure
    tpot_ms: Figure
    e2e_ms: Figure
    tokens_per_s: Figure
    weights_mib: Figure
    efficiency: Figure
    beyond: Figure

    @property
    def ranks(self) -> int:
        return (self.cell.tp or 1) * self.cell.pp

    @property
    def size(self) -> str:
        """tp 4, pp 2, tp 2 · pp 2."""
        tp = [] if self.cell.tp == 1 < self.cell.pp else [f"tp {self.cell.tp}"]
        return " · ".join([*tp, *([f"pp {self.cell.pp}"] if self.cell.pp > 1 else [])])

    @property
    def why(self) -> str:
        """The reasons of what is missing, each once; where there are two, of what each is."""
        columns: dict[str, list[str]] = {}
        for name, take, _ in COLUMNS:
            figure = take(self)
            if figure.value is None:
                columns.setdefault(figure.note, []).append(name.split(",")[0])
        if len(columns) == 1:
            return next(iter(columns))
        return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in columns.items())


def percent_text(share: float) -> str:
    return f"{100 * share:.3g} %".replace("-", "−")


# A column's head, its figure, and how it is written.
COLUMNS: Final[tuple[tuple[str, Callable[[Cost], Figure], Callable[[float], str]], ...]] = (
    ("TTFT p50, ms", lambda cost: cost.ttft_ms, number_text),
    ("TPOT p50, ms", lambda cost: cost.tpot_ms, number_text),
    ("E2E p50, ms", lambda cost: cost.e2e_ms, number_text),
    ("output tokens/s", lambda cost: cost.tokens_per_s, number_text),
    ("weights per rank, MiB", lambda cost: cost.weights_mib, number_text),
    ("scaling efficiency", lambda cost: cost.efficiency, percent_text),
    ("beyond the original’s", lambda cost: cost.beyond, percent_text),
)


def figures(cells: Sequence[Cell]) -> list[Cost]:
    """A line for each cell, variants together and sizes in order."""
    variants = list(dict.fromkeys(cell.variant for cell in cells))
    ordered = sorted(cells, key=lambda c: (variants.index(c.variant), c.pp, c.tp or 0))
    peaks = {(c.variant, c.tp, c.pp): _peak(c) for c in ordered}
    weights = {(c.variant, c.tp, c.pp): _weights(c) for c in ordered}
    return [
        Cost(
            cell,
            _median_ms(cell, "ttft"),
            _median_ms(cell, "tpot"),
            _median_ms(cell, "e2e"),
            peaks[cell.variant, cell.tp, cell.pp],
            weights[cell.variant, cell.tp, cell.pp],
            _efficiency(cell, peaks),
            _beyond(cell, weights),
        )
        for cell in ordered
    ]


Known = dict[tuple[str, int | None, int], Figure]


def _median_ms(cell: Cell, metric: str) -> Figure:
    rows = [row for row in cell.rows if row.claim == f"latency/{metric}_p50"]
    for row in rows:
        if _counts(row) and row.value is not None:
            if row.unit not in MILLISECONDS:
                return Figure(None, f"recorded in {row.unit}, expected s")
            return Figure(row.value * MILLISECONDS[row.unit])
    return Figure(None, _reason(cell, rows, ("latency",)))


def _peak(cell: Cell) -> Figure:
    rows = [row for row in cell.rows if row.claim.split("/")[-1] == "output_tokens_per_s"]
    rates = [
        (not shape.startswith("image"), row.value, shape)  # a picture is another kind of work
        for row in rows
        if _counts(row) and row.value is not None
        for shape in ["/".join(row.claim.split("/")[1:-1])]
    ]
    if not rates:
        return Figure(None, _reason(cell, rows, ("throughput",)))
    _, rate, shape = max(rates)  # Of equals, the one that names its load.
    return Figure(rate, re.sub(r"^closed(\d+)$", r"\1 at a time", shape))


def _weights(cell: Cell) -> Figure:
    rows = [row for row in cell.rows if row.claim.startswith("sharding/weight_bytes_rank")]
    held = [row.value for row in rows if row.value is not None]
    return Figure(max(held) / MIB) if held else Figure(None, _reason(cell, rows, ("sharding",)))


def _efficiency(cell: Cell, peaks: Known) -> Figure:
    own = peaks[cell.variant, cell.tp, cell.pp]
    if own.value is None:
        return own
    for variant in (cell.variant, BASE):
        base = peaks.get((variant, 1, 1))
        if base is not None and base.value:
            share = own.value / (base.value * (cell.tp or 1) * cell.pp)
            return Figure(share, "" if variant == cell.variant else f"of {BASE} tp 1")
    either = "" if cell.variant == BASE else f"{cell.variant}-tp1 and of "
    return Figure(None, f"there is no throughput of {either}{BASE}-tp1")


def _beyond(cell: Cell, weights: Known) -> Figure:
    """At this size or, where the original does not even load, at the next smaller one."""
    own = weights[cell.variant, cell.tp, cell.pp]
    if own.value is None:
        return own
    sizes = sorted({tp for _, tp, pp in weights if tp and pp == cell.pp}, reverse=True)
    for tp in (size for size in sizes if size <= (cell.tp or 1)):
        held, base = (weights.get((variant, tp, cell.pp)) for variant in (cell.variant, BASE))
        if held and base and held.value and base.value is not None:
            note = "" if tp == cell.tp else f"as at tp {tp}"
            return Figure(1 - base.value / held.value, note)
    return Figure(None, f"no weights of {BASE} at this size or a smaller one")


def _counts(row: Row) -> bool:
    return row.value is not None and row.outcome != "invalid"


def _reason(cell: Cell, rows: Sequence[Row], families: Sequence[str]) -> str:
    if cell.status in ("fails", "caught"):
        return f"{cell.word}{': ' + cell.how if cell.how else ''}"
    kin = [row for row in cell.rows if row.claim.split("/")[0] in families]
    told = next((row.reason for row in [*rows, *kin] if not _counts(row) and row.reason), None)
    if told is None and cell.status == "not-run":
        told = cell.reason
    return told or "not recorded"
