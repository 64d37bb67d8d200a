"""What of a run's numerics is shown as a picture, and the table that says the same.

Every evidence has its table; what PICTURES knows by name is drawn as well. A picture's text
alternative is the sentence that a reader should take from it. Where nothing can be drawn, be it for
a missing package or for numbers that have no place, the table still stands and one line says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from reports.heat import ALIKE, DIFFERING, HEATS, field, furthest
from reports.matrix import Cell, Status, matrix
from reports.record import Evidence, JsonObject, Run
from reports.rows import UndrawableError, Value
from reports.telling import (
    Record,
    faults_told,
    flips_told,
    heat_told,
    kl_told,
    positions_told,
    remark,
)

FAULTS = "faults"
Table = tuple[tuple[Value, ...], ...]
Numbers = Sequence[Record]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture, and (name, colour, dashes) of its lines where it has some."""

    svg: Markup
    legend: tuple[tuple[str, str, str], ...] = ()


# A chart's name, the picture's text alternative, the chart's arguments.
Renderer = Callable[[str, str, tuple[Any, ...]], Drawn]


@dataclass(frozen=True, slots=True)
class Picture:
    """`drawn` None: it was not drawn, and `problem` says why, unless it never is."""

    title: str
    told: str
    columns: tuple[str, ...]
    rows: Table
    definition: str
    drawn: Drawn | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class CellPictures:
    name: str
    cell: Cell | None
    worst: bool
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures of the whole run, and those of each cell, in the page's order of cells."""

    run: tuple[Picture, ...]
    cells: tuple[CellPictures, ...]
    problem: str | None


@dataclass(frozen=True, slots=True)
class Known:
    """An evidence that is drawn: what it needs, what its chart is, and what it tells."""

    title: str
    columns: tuple[str, ...]
    chart: str
    told: Callable[[Numbers], str]


PICTURES: dict[str, Known] = {
    "numerics/position": Known(
        "|d| along the documents",
        ("stratum", "position", "median", "p90", "max"),
        "position_chart",
        positions_told,
    ),
    "numerics/kl_quantiles": Known(
        "Quantiles of KL",
        ("stratum", "against", "quantile", "kl"),
        "kl_chart",
        kl_told,
    ),
    "numerics/flips": Known(
        "Flips by the reference's margin",
        ("stratum", "margin_low", "margin_high", "positions", "flips"),
        "flips_chart",
        flips_told,
    ),
    "faults/detection": Known(
        "Seeded faults and what was seen of them",
        ("fault", "strength", "rms_d", "limit", "outcome", "judges"),
        "detection_chart",
        faults_told,
    ),
}

# What answers wrongly as planned is far off, and nothing to look into.
WORST_FIRST: tuple[Status, ...] = (
    "failed",
    "inconclusive",
    "serves",
    "caught",
    "fails",
    "not-run",
)


def gallery(run: Run, cells: Sequence[Cell]) -> Gallery | None:
    """Everything there is to show; None where the run kept no evidence."""
    if not run.evidence:
        return None
    charts, problem = renderer()
    by_cell: dict[str, list[Evidence]] = {}
    for evidence in run.evidence:
        by_cell.setdefault(evidence.cell, []).append(evidence)
    order = list(PICTURES)
    for found in by_cell.values():
        found.sort(key=lambda e: order.index(e.name) if e.name in order else len(order))
    of_faults = [_picture(evidence, charts) for evidence in by_cell.pop(FAULTS, [])]
    of_run = [*_heats(run, charts), *of_faults]
    judged = {cell.name: cell for cell in cells}
    names = [
        *(name for name in judged if name in by_cell),
        *(n for n in by_cell if n not in judged),
    ]
    worst = _worst([judged[name] for name in names if name in judged])
    shown = tuple(
        CellPictures(
            name,
            judged.get(name),
            name == worst,
            tuple(_picture(evidence, charts) for evidence in by_cell[name]),
        )
        for name in names
    )
    return Gallery(tuple(of_run), shown, problem)


def renderer() -> tuple[Renderer | None, str | None]:
    """What draws a chart by its name, or why nothing does."""
    try:
        from reports import charts
        from reports.drawing import draw
    except ImportError as error:
        return None, (
            f"Nothing is drawn: {error}. `python -m pip install -r requirements/suite.txt` brings "
            "it, and `python -m reports.html` draws this run again; the tables hold every number."
        )

    # Cells that answer exactly as the reference does have one and the same picture.
    drawn: dict[tuple[str, str, str], Drawn] = {}

    def render(chart: str, label: str, arguments: tuple[Any, ...]) -> Drawn:
        key = (chart, label, repr(arguments))
        if key not in drawn:
            spec: JsonObject = getattr(charts, chart)(*arguments)
            legend = tuple(spec.pop("usermeta", {}).get("legend", ()))
            drawn[key] = Drawn(draw(spec, label=label), legend)
        return drawn[key]

    return render, None


def _worst(cells: Sequence[Cell]) -> str | None:
    """The cell whose pictures are looked at first: what went wrong, then what is furthest off."""

    def badness(cell: Cell) -> tuple[int, float, float]:
        # A model that was changed is far off too: it is looked at where nothing else is.
        alike, any_lane = (
            (worst.value or 0.0) if (worst := furthest(cell, ("rms_d",), lanes)) else 0.0
            for lanes in (ALIKE, (*ALIKE, *DIFFERING))
        )
        return -WORST_FIRST.index(cell.status), alike, any_lane

    return max(cells, key=badness).name if cells else None


def _picture(evidence: Evidence, renderer: Renderer | None) -> Picture:
    known = PICTURES.get(evidence.name)
    title = known.title if known else evidence.name
    told, svg, problem = "", None, None
    if known:
        missing = [column for column in known.columns if column not in evidence.columns]
        if missing:
            problem = f"It is not drawn: it lacks {', '.join(missing)}."
        elif not evidence.rows:
            problem = "Nothing was recorded for it."
        else:
            numbers = [dict(zip(evidence.columns, row, strict=True)) for row in evidence.rows]
            about = remark(evidence.definition)
            told, svg, problem = _drawn(known, title, numbers, renderer, about)
    return Picture(title, told, evidence.columns, evidence.rows, evidence.definition, svg, problem)


def _drawn(
    known: Known, title: str, numbers: Numbers, renderer: Renderer | None, about: str
) -> tuple[str, Drawn | None, str | None]:
    try:
        told = known.told(numbers) + about
        svg = renderer(known.chart, f"{title}. {told}", (numbers,)) if renderer else None
    except UndrawableError as error:
        return "", None, f"It is not drawn: {error}."
    return told, svg, None


def _heats(run: Run, renderer: Renderer | None) -> list[Picture]:
    """Variant by parallel size, one map for each metric that some cell has."""
    columns, body = matrix(run)
    drawn = []
    for metric, what, ends in HEATS:
        fields = [
            field(cell, column, ends)
            for _, cells in body
            for column, cell in zip(columns, cells, strict=True)
            if cell is not None
        ]
        if all(one.value is None for one in fields):
            continue
        title = f"{what[0].upper()}{what[1:]} of each cell, where it differs most"
        told = heat_told(fields, what)
        svg, problem = None, None
        try:
            variants = [variant for variant, _ in body]
            if renderer:
                svg = renderer("heat_chart", f"{title}. {told}", (fields, variants, columns))
        except UndrawableError as error:
            problem = f"It is not drawn: {error}."
        rows = tuple(
            (one.variant, one.column, one.value, one.lane, one.stratum, one.judged, one.why)
            for one in fields
        )
        number = f"{metric} in nat"
        table = ("variant", "parallel size", number, "lane", "stratum", "judged", "why none")
        definition = (
            f"largest of the rows numerics/LANE/STRATUM/{' or '.join(ends)}, LANE being "
            f"{', '.join(ALIKE)}, {' or '.join(DIFFERING)}"
        )
        drawn.append(Picture(title, told, table, rows, definition, svg, problem))
    return drawn
