"""Whether more ranks are worth it: a sentence to act on, a table of all cells, and a picture.

The sentence is about the variant that was timed at the largest tensor parallel size, and what its
last step up bought: a cell that answers wrongly is left out, one over its budget is not. The
picture shows every figure over that of one cell, so that four units share an axis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from reports.costs import BASE, COLUMNS, Cost, Figure, figures, percent_text
from reports.matrix import Cell, number_text
from reports.pictures import Picture, Table, renderer
from reports.record import Run
from reports.rows import UndrawableError, Value

TIMING: Final = ("latency", "throughput")
# Less is a machine's mood: one block each has no interval.
ALIKE: Final = 0.03
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
    return f"Padding is {percent_text(padded[-1].beyond.value or 0.0)} of what a padded rank holds"


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
