"""What all charts share: how they look, small multiples of strata, and an axis that shows zero.

Logarithms are taken here and not by a log scale, which drops 0: an exact 0 is the best a difference
can be, and gets a line of its own below the smallest other number. Colours are the page's own CSS
variables, so that a picture follows it into the dark; shape and dash say what colour says.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import altair as alt

from reports.rows import JsonObject, UndrawableError
from reports.telling import in_order

Mark: TypeAlias = dict[str, Any]

SERIES = ("var(--series-1)", "var(--series-2)", "var(--series-3)")
DASHES = ([1, 0], [5, 3], [2, 2], [8, 2, 2, 2])
SHAPES = ("circle", "cross", "triangle-up", "square")
# Two panels beside their axis are as wide as a telephone.
PANEL_WIDTH, PANEL_HEIGHT, LONE_PANEL_WIDTH = 185, 115, 380
MOST_DECADES_LABELLED = 4
RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True, slots=True)
class Decades:
    """A logarithmic axis from 10^low to 10^high; where there are zeros, `low` is their line."""

    low: int
    high: int
    zero: bool

    @classmethod
    def over(cls, values: Iterable[float | None]) -> "Decades":
        known = [value for value in values if value is not None]
        if any(value < 0 for value in known):
            raise UndrawableError(f"a value is {min(known):g}, expected 0 or more")
        positive = [math.log10(value) for value in known if value > 0]
        zero = len(positive) < len(known)
        low, high = math.floor(min(positive, default=-6)), math.ceil(max(positive, default=-5))
        return cls(low - zero, max(high, low + 1), zero)

    def place(self, value: float) -> float:
        return self.low if value == 0 else math.log10(value)

    def ticks(self) -> dict[float, str]:
        step = math.ceil((self.high - self.low) / MOST_DECADES_LABELLED)
        ticks = {
            float(n): decade_text(n) for n in range(self.high, self.low - 1 + self.zero, -step)
        }
        return ticks | ({float(self.low): "0"} if self.zero else {})

    def x(self, title: str, *, field: str = "x") -> alt.X:
        return alt.X(f"{field}:Q", title=title, axis=self._axis(), scale=self._scale())

    def y(self, title: str) -> alt.Y:
        return alt.Y("y:Q", title=title, axis=self._axis(), scale=self._scale())

    def _scale(self) -> alt.Scale:
        return alt.Scale(domain=[self.low, self.high], nice=False, zero=False)

    def _axis(self) -> alt.Axis:
        return tick_axis(dict(sorted(self.ticks().items())))


def decade_text(exponent: int) -> str:
    """Powers of ten as they are read: 0.01, 1, 100, and 10⁻⁶."""
    if -2 <= exponent <= 2:
        return f"{10.0**exponent:g}"
    return f"10{str(exponent).translate(RAISED)}"


def short_text(value: float) -> str:
    """For an axis: 0.05, 12, 5e−4."""
    text = f"{value:.2g}" if value == 0 or abs(value) >= 1e-3 else f"{value:.0e}"
    return text.replace("e-0", "e-").replace("-", "−")


def tick_axis(ticks: Mapping[float, str], **changes: Any) -> alt.Axis:
    """An axis with these ticks, each by its own name; the names are ours, never the data's."""
    chain = "''"
    for value, text in ticks.items():
        chain = f"abs(datum.value-({value!r}))<1e-6?'{text}':{chain}"
    # Vega leaves out every other tick where there are more than it would have chosen.
    return alt.Axis(values=list(ticks), tickCount=len(ticks), labelExpr=chain, **changes)


def base_chart() -> alt.Chart:
    # Its numbers are put in by `with_marks`: altair would walk over each of them, slowly.
    return alt.Chart(alt.InlineData(values=[]))


def lines(x: alt.X, y: alt.Y, series: Sequence[str]) -> alt.Chart:
    """A line for each series. `legend` says which: the page sets it, in a size that can be read."""
    order = list(series)
    color = alt.Color("series:N", sort=order, scale=looks(order, SERIES), legend=None)
    dash = alt.StrokeDash("series:N", sort=order, scale=looks(order, DASHES), legend=None)
    line: alt.Chart = base_chart().mark_line(strokeWidth=1.5)
    return line.encode(x=x, y=y, color=color, strokeDash=dash)


def legend(series: Sequence[str]) -> JsonObject:
    """For a chart's `usermeta`: name, colour and dashes of each line."""
    return {
        "legend": [
            (name, SERIES[i % len(SERIES)], " ".join(map(str, DASHES[i % len(DASHES)])))
            for i, name in enumerate(series)
        ]
    }


def looks(names: Sequence[str], looks: Sequence[Any]) -> alt.Scale:
    chosen = [looks[i % len(looks)] for i in range(len(names))]
    return alt.Scale(domain=list(names), range=chosen)


def plain_axis(**changes: Any) -> alt.Axis:
    return alt.Axis(domain=False, ticks=False, grid=False, labelAngle=0, **changes)


def strata_of(marks: Sequence[Mark]) -> tuple[str, ...]:
    return tuple(in_order(mark["stratum"] for mark in marks))


def panels(
    layers: alt.LayerChart | alt.FacetChart, strata: tuple[str, ...], *, x_title: str
) -> JsonObject:
    """A panel for each stratum, two beside each other; what x is stands once, below them all."""
    lone = len(strata) == 1
    width = LONE_PANEL_WIDTH if lone else PANEL_WIDTH
    panel = layers.properties(width=width, height=PANEL_HEIGHT)
    header = alt.Header(title=None, labelAnchor="start", labelPadding=3)
    facet = alt.Facet("stratum:N", sort=list(strata), header=header)
    # One x axis for a column, even where an odd number leaves it below a gap: axes of their own
    # cost half as much again to draw.
    album = panel.facet(facet, columns=1 if lone else 2, spacing=14)
    return finished(album.properties(title=alt.Title(x_title, orient="bottom")))


def with_marks(look: JsonObject, marks: list[Mark]) -> JsonObject:
    return look | {"data": {"values": marks}, "datasets": {}}


def finished(chart: alt.LayerChart | alt.FacetChart) -> JsonObject:
    """A chart without its data, as the page wants it to look."""
    # Not validated here, which takes as long again: a self-test does.
    spec: JsonObject = chart.to_dict(validate=False)
    spec["config"] = {
        "aria": False,  # The picture is read as one, by its own label: not mark by mark.
        "background": "transparent",
        # Letters may be wider on the page than where they were measured.
        "padding": {"left": 12, "right": 10, "top": 4, "bottom": 4},
        "font": "sans-serif",
        "view": {"stroke": None},
        "axis": {
            "labelColor": "var(--ink)",
            "titleColor": "var(--muted)",
            "titleFontWeight": "normal",
            "domainColor": "var(--muted)",
            "tickColor": "var(--muted)",
            "gridColor": "var(--line)",
            "labelFontSize": 10,
            "titleFontSize": 11,
            # Measuring text is what drawing costs; a limit has each label measured once more.
            "labelLimit": 0,
            "titleLimit": 0,
            "labelOverlap": False,
            "labelBound": False,
        },
        "axisY": {"domain": False, "ticks": False},  # Its grid says as much.
        "title": {
            "color": "var(--muted)",
            "fontSize": 11,
            "fontWeight": "normal",
            "anchor": "middle",
            "offset": 6,
        },
        "header": {
            "labelColor": "var(--ink)",
            "labelFontSize": 11,
            "labelFontWeight": "bold",
            "labelLimit": 0,
        },
        "legend": {"labelColor": "var(--ink)", "labelFontSize": 11, "labelLimit": 0},
    }
    return spec
