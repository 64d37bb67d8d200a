"""What the report's pictures look like, as Vega-Lite specs made with altair; nothing is drawn here.

Each takes evidence, a record for each row, and is small multiples of its strata: one y axis, so
that they can be held against each other. How a chart looks depends on little, and is made once for
all the cells that have it in common: altair takes as long to say it as Vega to draw it.
"""

import math
from collections.abc import Sequence
from functools import cache

import altair as alt

from reports.matrix import number_text
from reports.panels import (
    SERIES,
    SHAPES,
    Decades,
    Mark,
    base_chart,
    finished,
    legend,
    lines,
    looks,
    panels,
    plain_axis,
    short_text,
    strata_of,
    tick_axis,
    with_marks,
)
from reports.rows import JsonObject, UndrawableError
from reports.telling import Field, Record, fault_text, in_order, number, threshold_of

# More of them touch each other, and each is 150 bytes of the page.
MOST_DOTS = 500
IDEAL_DASHES = [1, 4]


def position_chart(records: Sequence[Record]) -> JsonObject:
    """|d| along the documents: median, 90th percentile and largest of each bucket of positions."""
    series = ("max", "p90", "median")
    decades = Decades.over(number(r, name) for r in records for name in series)
    marks: list[Mark] = [
        {
            "stratum": str(r["stratum"]),
            "series": name,
            "x": number(r, "position"),
            "y": decades.place(value),
        }
        for r in records
        for name in series
        if (value := number(r, name)) is not None
    ]
    dotted = len(marks) <= MOST_DOTS
    return with_marks(_position_look(series, decades, strata_of(marks), dotted), marks)


@cache
def _position_look(
    series: tuple[str, ...], decades: Decades, strata: tuple[str, ...], dotted: bool
) -> JsonObject:
    x = alt.X("x:Q", title=None, axis=alt.Axis(tickCount=3, format="d", grid=False))
    drawn = lines(x, decades.y("|d| in nat"), series)
    dots = [drawn.mark_point(filled=True, size=18, opacity=1)] if dotted else []
    album = panels(alt.layer(drawn, *dots), strata, x_title="position in tokens")
    return album | {"usermeta": legend(series)}


def kl_chart(records: Sequence[Record]) -> JsonObject:
    """The upper half of KL's quantiles, the tail stretched: each decade of x is one more nine."""
    shown = [(q, r) for r in records if (q := number(r, "quantile")) is not None and q >= 0.5]
    if any(quantile > 1 for quantile, _ in shown) or not shown:
        raise UndrawableError("its quantiles do not lie between 0.5 and 1")
    decades = Decades.over(number(r, "kl") for _, r in shown)
    nines = [-math.log10(1 - quantile) for quantile, _ in shown if quantile < 1]
    farthest = max(1, math.ceil(max(nines, default=0.0) - 1e-9))
    largest = farthest + 1.0
    series = in_order(str(r["against"]) for _, r in shown)
    series.sort(key=lambda against: "null" in against)  # Last, whichever was recorded first.
    marks: list[Mark] = [
        {
            "stratum": str(record["stratum"]),
            "series": str(record["against"]),
            "x": largest if quantile == 1 else -math.log10(1 - quantile),
            "y": decades.place(kl),
        }
        for quantile, record in shown
        if (kl := number(record, "kl")) is not None
    ]
    return with_marks(_kl_look(tuple(series), decades, farthest, strata_of(marks)), marks)


@cache
def _kl_look(
    series: tuple[str, ...], decades: Decades, farthest: int, strata: tuple[str, ...]
) -> JsonObject:
    largest = farthest + 1.0
    ticks = {-math.log10(0.5): "50", 1.0: "90", 2.0: "99"}
    ticks |= {float(n): f"99.{'9' * (n - 2)}" for n in range(3, farthest + 1)}
    ticks[largest] = "max"
    axis = tick_axis(ticks, grid=False, labelFlush=True)
    scale = alt.Scale(domain=[-math.log10(0.5), largest], nice=False)
    x = alt.X("x:Q", title=None, axis=axis, scale=scale)
    drawn = lines(x, decades.y("KL in nat"), series)
    ends = drawn.mark_point(filled=True, size=22, opacity=1)
    ends = ends.transform_filter(alt.datum.x == largest)
    album = panels(alt.layer(drawn, ends), strata, x_title="percentile")
    return album | {"usermeta": legend(series)}


def flips_chart(records: Sequence[Record]) -> JsonObject:
    """Share of flips by the reference's margin; a dashed line where a flip begins to be hard."""
    edges = sorted({low for r in records if (low := number(r, "margin_low")) is not None})
    tops = [number(r, "margin_high") for r in records]
    last = None if None in tops else max((top for top in tops if top is not None), default=None)
    marks: list[Mark] = []
    for record in records:
        low, positions, flips = (
            number(record, name) for name in ("margin_low", "positions", "flips")
        )
        if low is None or flips is None:
            continue
        bin_number = edges.index(low)
        marks.append(
            {
                "stratum": str(record["stratum"]),
                "start": bin_number + 0.06,
                "end": bin_number + 0.94,
                "middle": bin_number + 0.5,
                "share": flips / positions if positions else 0.0,
                "label": f"{flips:.0f}" if positions else "–",
            }
        )
    threshold = threshold_of(records)
    if threshold is not None and edges:
        # One mark to each panel, and not one to each bar: the first bar of a panel carries it.
        for mark in {mark["stratum"]: mark for mark in reversed(marks)}.values():
            mark["threshold"] = _between(edges, last, threshold)
    top = _round_above(1.15 * max((mark["share"] for mark in marks), default=0.0))
    return with_marks(_flips_look(tuple(edges), last, top, strata_of(marks)), marks)


@cache
def _flips_look(
    edges: tuple[float, ...], last: float | None, top: float, strata: tuple[str, ...]
) -> JsonObject:
    ticks = {float(i): short_text(edge) for i, edge in enumerate(edges)}
    ticks[float(len(edges))] = "∞" if last is None else short_text(last)
    x_scale = alt.Scale(domain=[0, len(edges)], nice=False)
    axis = tick_axis(ticks, grid=False, labelAngle=-40)
    x = alt.X("start:Q", title=None, axis=axis, scale=x_scale)
    y_scale = alt.Scale(domain=[0, top], nice=False)
    y_axis = alt.Axis(format="~%", tickCount=4)
    y = alt.Y("share:Q", title="share of flips", axis=y_axis, scale=y_scale)
    base = base_chart()
    bars = base.mark_bar(color=SERIES[0]).encode(x=x, x2="end:Q", y=y, y2=alt.datum(0))
    rule = base.mark_rule(color=SERIES[1], strokeDash=[5, 3], strokeWidth=1.5)
    rule = rule.encode(x="threshold:Q").transform_filter("isValid(datum.threshold)")
    counts = base.mark_text(dy=-5, fontSize=9, color="var(--ink)")
    counts = counts.encode(x="middle:Q", y=y, text="label:N")
    layers = alt.layer(bars, rule, counts)
    return panels(layers, strata, x_title="margin of the reference in nat")


def heat_chart(
    fields: Sequence[Field], variants: Sequence[str], columns: Sequence[str]
) -> JsonObject:
    """A field for each cell, filled where there is a value: how it came out and the value, and
    below them the stratum, or why there is none."""
    known = [one.value for one in fields if one.value is not None]
    if negative := [f"{one.variant} at {one.column}" for one in fields if (one.value or 0) < 0]:
        raise UndrawableError(f"a value is negative: {', '.join(negative)}")
    positive = [math.log10(value) for value in known if value]
    low, high = min(positive, default=-1.0), max(positive, default=0.0)
    span = (high - low) or 1.0
    marks: list[Mark] = []
    for one in fields:
        mark: Mark = {"variant": one.variant, "column": one.column}
        if one.value is None:
            mark |= {"word": one.symbol, "below": one.why or ""}
        else:
            value = one.value
            level = 0.0 if value == 0 else 0.12 + 0.88 * (math.log10(value) - low) / span
            # White on the dark blues, black on the light ones: 4.5:1 either way.
            ink = "#ffffff" if level > 0.74 else "#000000"
            word = f"{one.symbol} {number_text(value)}"
            mark |= {"level": level, "ink": ink, "word": word, "below": one.stratum or ""}
        marks.append(mark)
    apart = alt.Scale(paddingInner=0.06, paddingOuter=0.03)
    x = alt.X(
        "column:N", sort=list(columns), title=None, axis=plain_axis(orient="top"), scale=apart
    )
    y = alt.Y("variant:N", sort=list(variants), title=None, axis=plain_axis(), scale=apart)
    base = base_chart().encode(x=x, y=y)
    filled = base.mark_rect().encode(
        fill=alt.Fill(
            "level:Q", legend=None, scale=alt.Scale(scheme="blues", domain=[0, 1], clamp=True)
        )
    )
    outlined = base.mark_rect(filled=False, stroke="var(--muted)", strokeDash=[3, 3])
    layers = [
        filled.transform_filter("isValid(datum.level)"),
        outlined.transform_filter("!isValid(datum.level)"),
    ]
    for text, place, size in (("word:N", -6, 11), ("below:N", 8, 10)):
        inked = base.mark_text(fontSize=size, dy=place).encode(
            text=text, color=alt.Color("ink:N", scale=None)
        )
        muted = base.mark_text(fontSize=size, dy=place, color="var(--muted)").encode(text=text)
        layers.append(inked.transform_filter("isValid(datum.level)"))
        layers.append(muted.transform_filter("!isValid(datum.level)"))
    chart = alt.layer(*layers)
    return with_marks(finished(chart.properties(width=alt.Step(72), height=alt.Step(38))), marks)


def detection_chart(records: Sequence[Record]) -> JsonObject:
    """Each fault's observed RMS d, largest fault first, and the limit it has to pass."""
    decades = Decades.over(number(r, name) for r in records for name in ("rms_d", "limit"))
    outcomes = ["detected", "missed", "inconclusive"]
    outcomes += [o for o in in_order(str(r["outcome"]) for r in records) if o not in outcomes]
    ordered = sorted(records, key=lambda r: -(number(r, "strength") or 0.0))
    marks: list[Mark] = []
    for record in ordered:
        rms_d, limit = number(record, "rms_d"), number(record, "limit")
        marks.append(
            {
                "fault": fault_text(record),
                "outcome": str(record["outcome"]),
                "x": None if rms_d is None else decades.place(rms_d),
                "limit": None if limit is None else decades.place(limit),
            }
        )
    names = in_order(mark["fault"] for mark in marks)
    y = alt.Y("fault:N", sort=names, title=None, axis=alt.Axis(grid=True))
    x = decades.x("RMS d in nat")
    base = base_chart().encode(y=y)
    limits = base.mark_tick(thickness=2, size=18, color="var(--ink)").encode(
        x=decades.x("RMS d in nat", field="limit")
    )
    words = alt.Legend(orient="top", title=None, symbolSize=60)
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        x=x,
        color=alt.Color("outcome:N", sort=outcomes, scale=looks(outcomes, SERIES), legend=words),
        shape=alt.Shape(
            "outcome:N",
            sort=outcomes,
            scale=looks(outcomes, SHAPES),
            legend=words,
        ),
    )
    chart = alt.layer(
        limits.transform_filter("isValid(datum.limit)"), points.transform_filter("isValid(datum.x)")
    )
    return with_marks(finished(chart.properties(width=230, height=alt.Step(20))), marks)


def scaling_chart(records: Sequence[Record], base_ranks: int) -> JsonObject:
    """Figures over those of one cell, against ranks, both in doublings: a panel for each.

    Cells with pipeline stages are points by themselves, named by their size. `ideal` is what equal
    parts would bring, of the panel's slope.
    """
    ratios = [number(r, "ratio") or 0.0 for r in records]
    if min(ratios, default=0.0) <= 0:
        raise UndrawableError("there is no ratio, or one that is not above 0")
    marks: list[Mark] = []
    for record, ratio in zip(records, ratios, strict=True):
        size = str(record["size"])
        mark: Mark = {"x": math.log2(number(record, "ranks") or 1), "y": math.log2(ratio)}
        mark |= {"stratum": str(record["what"]), "series": str(record["variant"])}
        marks.append(mark | ({"label": size} if "pp" in size else {}))
    variants = in_order(mark["series"] for mark in marks)
    ranks = [mark["x"] for mark in marks]
    first, last = math.floor(min(ranks)), max(math.ceil(max(ranks)), math.floor(min(ranks)) + 1)
    for panel in in_order(mark["stratum"] for mark in marks):
        slope = next(number(r, "slope") or 0 for r in records if str(r["what"]) == panel)
        marks += [
            {"stratum": panel, "x": x, "ideal": slope * (x - math.log2(base_ranks))}
            for x in (float(first), float(last))
        ]
    heights = [mark["y"] if "y" in mark else mark["ideal"] for mark in marks]
    low, high = math.floor(min(heights)), max(math.ceil(max(heights)), math.floor(min(heights)) + 1)
    series = tuple(variants)
    return with_marks(_scaling_look(series, (first, last), (low, high), strata_of(marks)), marks)


@cache
def _scaling_look(
    series: tuple[str, ...],
    ranks: tuple[int, int],
    heights: tuple[int, int],
    strata: tuple[str, ...],
) -> JsonObject:
    def axis(ends: tuple[int, int], text: str, **changes: bool) -> alt.Axis:
        step = math.ceil((ends[1] - ends[0]) / 6)
        ticks = range(ends[0], ends[1] + 1, step)
        named = {n: f"{2**n}" if n >= 0 else f"1/{2**-n}" for n in ticks}
        return tick_axis({float(n): f"{named[n]}{text}" for n in ticks}, **changes)

    x_scale, y_scale = (alt.Scale(domain=list(ends), nice=False) for ends in (ranks, heights))
    x = alt.X("x:Q", title=None, axis=axis(ranks, "", grid=False), scale=x_scale)
    y = alt.Y("y:Q", title=None, axis=axis(heights, "×"), scale=y_scale)
    drawn = lines(x, y, series)
    ideal = drawn.transform_filter("isValid(datum.ideal)").encode(
        y=alt.Y("ideal:Q", scale=y_scale),
        color=alt.value("var(--muted)"),
        strokeDash=alt.value(IDEAL_DASHES),
    )
    known = drawn.transform_filter("isValid(datum.y)")
    along = known.transform_filter("!isValid(datum.label)")
    dots = along.mark_point(filled=True, size=26, opacity=1)
    staged = known.transform_filter("isValid(datum.label)")
    points = staged.mark_point(size=30, opacity=1)
    names = staged.mark_text(align="left", dx=6, fontSize=9).encode(text="label:N")
    album = panels(alt.layer(ideal, along, dots, points, names), strata, x_title="ranks: tp × pp")
    named = legend(series)
    named["legend"].append(("ideal", "var(--muted)", " ".join(map(str, IDEAL_DASHES))))
    return album | {"usermeta": named}


def _round_above(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, … per cent and so on; 1 % where there is nothing."""
    if value <= 0:
        return 0.01
    decade = 10.0 ** math.floor(math.log10(value))
    return next(step * decade for step in (1, 2, 3, 4, 5, 6, 8, 10) if step * decade >= value)


def _between(edges: Sequence[float], last: float | None, value: float) -> float:
    """Where a margin lies on an axis on which every bin is equally wide."""
    index = max((i for i, edge in enumerate(edges) if edge <= value), default=0)
    low = edges[index]
    high = edges[index + 1] if index + 1 < len(edges) else last
    if high is None or high <= low:
        return index + (0.5 if value > low else 0.0)
    return index + min(max((value - low) / (high - low), 0.0), 1.0)
