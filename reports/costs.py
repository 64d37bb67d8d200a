"""What tensor parallelism costs and buys: latency, throughput and weights of each cell.

All of it is rows of the run, laid beside each other; nothing is measured here. Throughput is the
highest of a cell's loads. Two figures are made of others: *scaling efficiency*, the throughput per
rank over that of the same variant at tp 1 (or of original-tp1, where the variant was not measured
there), and the *share beyond the original's*: how much of what a rank holds the original's rank
would not. Of a padded checkpoint that is padding, read with every token and adding nothing.

A figure that is missing names its reason, one that was measured on a busy machine is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from reports.matrix import Cell, number_text
from reports.pictures import Picture, Table, renderer
from reports.record import Row, Run
from reports.rows import UndrawableError, Value

BASE: Final = "original"
TIMING: Final = ("latency", "throughput", "load")
# Times are recorded in s, and read in ms.
MILLISECONDS: Final[dict[str | None, float]] = {"s": 1e3, "ms": 1.0}
MIB: Final = 2**20
# Less is a machine's mood: one block each has no interval.
ALIKE: Final = 0.03


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


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %".replace("-", "−")


# A column's head, its figure, and how it is written.
COLUMNS: Final[tuple[tuple[str, Callable[[Cost], Figure], Callable[[float], str]], ...]] = (
    ("TTFT p50, ms", lambda cost: cost.ttft_ms, number_text),
    ("TPOT p50, ms", lambda cost: cost.tpot_ms, number_text),
    ("E2E p50, ms", lambda cost: cost.e2e_ms, number_text),
    ("output tokens/s", lambda cost: cost.tokens_per_s, number_text),
    ("weights per rank, MiB", lambda cost: cost.weights_mib, number_text),
    ("scaling efficiency", lambda cost: cost.efficiency, _percent),
    ("beyond the original’s", lambda cost: cost.beyond, _percent),
)
# Panel of the picture, its figure, and how it would go with ranks if cutting cost nothing.
PANELS: Final[tuple[tuple[str, Callable[[Cost], Figure], int], ...]] = (
    ("output tokens/s", lambda cost: cost.tokens_per_s, 1),
    ("TPOT p50", lambda cost: cost.tpot_ms, -1),
    ("TTFT p50", lambda cost: cost.ttft_ms, -1),
    ("weights per rank", lambda cost: cost.weights_mib, -1),
)


@dataclass(frozen=True, slots=True)
class Costs:
    """The section: one sentence to act on, the table, and the picture, unless one cell is alone."""

    told: str
    columns: tuple[str, ...]
    lines: tuple[tuple[Cost, tuple[tuple[str, str, str], ...]], ...]
    picture: Picture | None


def costs(run: Run, cells: Sequence[Cell]) -> Costs | None:
    """None where nothing was timed."""
    found = figures([cell for cell in cells if cell.tp])
    timed = [one for one in found if one.tokens_per_s.value or one.ttft_ms.value]
    if not timed:
        return None
    lines = [(one, tuple(_shown(one))) for one in found]
    columns = tuple(name for name, _, _ in COLUMNS)
    picture = _picture(found, _base(timed)) if len(timed) > 1 else None
    return Costs(told(found, run), columns, tuple(lines), picture)


def _shown(cost: Cost) -> Iterable[tuple[str, str, str]]:
    """(column, number, note) of each figure."""
    for name, take, text in COLUMNS:
        figure = take(cost)
        if figure.value is None:
            yield name, "–", ""
        else:
            yield name, text(figure.value), figure.note


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
    rates = [(row.value, row.claim) for row in rows if _counts(row) and row.value is not None]
    if not rates:
        return Figure(None, _reason(cell, rows, ("load", "throughput")))
    rate, claim = max(rates)
    shape = "/".join(claim.split("/")[1:-1])
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


def told(found: Sequence[Cost], run: Run) -> str:
    """What a release engineer takes from it: what the last doubling of ranks bought."""
    ran = [one for one in found if _trusted(one) and one.tokens_per_s.value]
    by_variant: dict[str, list[Cost]] = {}
    for one in ran:
        if one.cell.pp == 1:
            by_variant.setdefault(one.cell.variant, []).append(one)
    chosen = max(
        by_variant.values(),
        key=lambda line: (len(line) > 1, line[-1].ranks, line[-1].tokens_per_s.value or 0.0),
        default=[],
    )
    if len(chosen) < 2:
        return (
            "No variant was timed at two tensor parallel sizes: nothing says what more ranks buy."
        )
    parts = [f"{chosen[-1].cell.variant}: {_step(*chosen[-2:])}"]
    best = max(ran, key=lambda one: (one.tokens_per_s.value or 0.0) / one.ranks)
    parts.append(f"The most output per rank: {best.cell.variant} at {best.size}")
    if padding := _padding(found):
        parts.append(padding)
    if run.header["engine"]["platform"] == "cpu":
        cores = run.header["machine"].get("cores")
        parts.append(
            f"All ranks shared the {f'{cores} cores' if cores else 'cores'} of one CPU: of what tp "
            "buys on GPUs this says nothing"
        )
    return ". ".join(parts) + "."


def _trusted(cost: Cost) -> bool:
    """Fast and wrong is no bargain; over its budget may be one."""
    return all(row.claim.split("/")[0] in TIMING for row in cost.cell.failed_rows)


def _step(few: Cost, many: Cost) -> str:
    """What going from one size to the next larger one brought."""
    before, after = few.tokens_per_s.value or 0.0, many.tokens_per_s.value or 0.0
    ratio, ranks = after / before, many.ranks / few.ranks
    spent = "twice" if ranks == 2 else f"{number_text(ranks)} times"
    if abs(ratio - 1) <= ALIKE:
        told = f"{many.size} gives no more throughput than {few.size} for {spent} the ranks"
    else:
        less = "" if ratio > 1 else "only "
        told = (
            f"{many.size} gives {less}{ratio:.2g} times the throughput of {few.size} for {spent} "
            "the ranks"
        )
    slow, fast = few.tpot_ms.value, many.tpot_ms.value
    if slow and fast:
        told += f", TPOT goes from {slow:.3g} to {fast:.3g} ms"
    heavy, light = few.weights_mib.value, many.weights_mib.value
    if heavy and light:
        told += f", and a rank holds {light / heavy:.2g} times the weights"
    return told


def _padding(found: Sequence[Cost]) -> str:
    padded = [one for one in found if one.cell.variant == "padded" and one.beyond.value]
    if not padded:
        return ""
    return f"Padding is {_percent(padded[-1].beyond.value or 0.0)} of what a padded rank holds"


def _base(timed: Sequence[Cost]) -> Cost:
    return next((one for one in timed if one.cell.name == f"{BASE}-tp1"), timed[0])


def _picture(found: Sequence[Cost], base: Cost) -> Picture:
    """Each figure relative to one cell's, so that four units share an axis."""
    title = "What more ranks bring, and what they cost"
    name = f"{base.cell.variant} at {base.size}"
    rows: Table = tuple(
        (panel, one.cell.variant, one.size, one.ranks, value / of, slope)
        for panel, take, slope in PANELS
        for one in found
        if (value := take(one).value) and (of := take(base).value)
    )
    told = f"Each over that of {name}; both axes are doublings."
    columns = ("what", "variant", "size", "ranks", f"times {name}", "ideal slope")
    definition = (
        "The rows of the table above, over those of one cell. Ideal: the same work cut into equal "
        "parts, at no cost."
    )
    draws, problem = renderer()
    drawn = None
    try:
        if draws:
            drawn = draws("scaling_chart", f"{title}. {told}", (_scaling(rows), base.ranks))
    except UndrawableError as error:
        problem = f"It is not drawn: {error}."
    return Picture(title, told, columns, rows, definition, drawn, problem)


def _scaling(rows: Table) -> list[dict[str, Value]]:
    names = ("what", "variant", "size", "ranks", "ratio", "slope")
    return [dict(zip(names, row, strict=True)) for row in rows]
