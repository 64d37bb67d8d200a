"""A picture says what its table says, runs nothing, and points nowhere."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html import unescape
from typing import Any
from xml.etree import ElementTree

import altair
import pytest
import vl_convert

from reports import charts
from reports.compare import compare
from reports.drawing import draw
from reports.html import figure_text, render
from reports.matrix import judged_cells
from reports.panels import Decades
from reports.pictures import Gallery, Picture, gallery
from reports.record import Evidence, JsonObject, Run, UndrawableError
from reports.rows import Value
from reports.telling import Field
from suites.selftest.sample_pictures import a_run_with_pictures
from suites.selftest.sample_run import a_cell, a_row, a_run, an_evidence
from suites.selftest.test_html import STYLE, Page, contrast

HOSTILE = "</svg><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"


@pytest.fixture(scope="module")
def run() -> Run:
    """Two cells and what belongs to the run: each picture once, and the lot in a few seconds."""
    whole = a_run_with_pictures()
    evidence = tuple(e for e in whole.evidence if e.cell in ("padded-tp1", "trimmed-tp4", "faults"))
    return Run(whole.header, whole.cells, whole.rows, whole.footer, evidence)


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return render(run)


@pytest.fixture(scope="module")
def shown(run: Run) -> Gallery:
    found = gallery(run, judged_cells(run))
    assert found is not None
    return found


def pictures(shown: Gallery) -> list[Picture]:
    return [*shown.run, *(picture for cell in shown.cells for picture in cell.pictures)]


def svg(picture: Picture) -> str:
    assert picture.drawn is not None, picture.problem
    return str(picture.drawn.svg)


def records(evidence: Evidence) -> list[dict[str, Any]]:
    return [dict(zip(evidence.columns, row, strict=True)) for row in evidence.rows]


def spec_of(evidence: Evidence) -> JsonObject:
    name = {"position": "position", "kl_quantiles": "kl", "flips": "flips"}
    chart = name.get(evidence.name.split("/")[1], "detection")
    spec: JsonObject = getattr(charts, f"{chart}_chart")(records(evidence))
    return spec


def lone(**changes: Any) -> Picture:
    """The one picture of a run with one evidence."""
    run = a_run(evidence=[an_evidence(**changes)])
    found = gallery(run, judged_cells(run))
    assert found is not None
    (picture,) = pictures(found)
    return picture


def test_every_picture_is_drawn_and_described(shown: Gallery) -> None:
    drawn = pictures(shown)
    assert len(drawn) == 2 + 1 + 2 * 3
    for picture in drawn:
        assert picture.problem is None
        root = ElementTree.fromstring(svg(picture))
        assert root.get("role") == "img"
        assert root.get("aria-label") == f"{picture.title}. {picture.told}"
        assert len(list(root.iter("path"))) + len(list(root.iter("line"))) > 3


def test_every_number_of_a_picture_is_in_its_table(run: Run, page: str) -> None:
    tables = re.findall(r'<div class="figures".*?><table(.*?)</table>', page, re.DOTALL)
    texts = [[unescape(text) for text in re.findall(r"<td>([^<\n]*)", table)] for table in tables]
    for evidence in run.evidence:
        told = [value for row in evidence.rows for value in row]
        assert any(is_told(told, table) for table in texts), (evidence.cell, evidence.name)
    assert len(texts) == len(run.evidence) + 2


def is_told(values: list[Value], texts: list[str]) -> bool:
    return len(values) == len(texts) and all(
        (value or "–") == text
        if value is None or isinstance(value, str)
        else float(text.replace("−", "-").replace(",", "")) == pytest.approx(value, rel=0.005)
        for value, text in zip(values, texts, strict=True)
    )


def test_a_heat_map_writes_every_cell_in_its_field(shown: Gallery) -> None:
    rms_d = shown.run[0]
    drawn = Page(svg(rms_d)).text
    assert len(rms_d.rows) == 16
    for variant, size, value, _, stratum, _, why in rms_d.rows:
        assert str(variant) in drawn
        assert str(size) in drawn
        assert (figure_text(value)[:5] if why is None else str(why)) in drawn
        assert str(stratum or why) in drawn
    refused = ("original", "tp 8", None, None, None, "fails as planned", "refused")
    assert refused in rms_d.rows
    assert drawn.count("refused") == 2
    assert ("padded", "tp 1", 0.0, "exact", "all strata", "serves", None) in rms_d.rows
    assert "where cells must answer alike: padded at tp 8 (text)" in rms_d.told
    assert "0.235 nat where cells must answer otherwise: original at tp 4 (text)" in rms_d.told


@pytest.mark.parametrize(
    ("claim", "lane"),
    [
        ("numerics/quality/image/rms_d", "quality"),
        ("numerics/padding/image/rms_d", "padding"),
        ("numerics/control/image/caught", "control"),
        ("numerics/tp/image/rms_d", "tp"),
        ("numerics/end_to_end/image/rms_d", "end_to_end"),
    ],
)
def test_a_heat_map_shows_the_worst_stratum_of_any_lane(claim: str, lane: str) -> None:
    rows = [
        a_row(claim="numerics/exact/text/rms_d", value=0.004, low=0.003, high=0.005, limit=0.01),
        a_row(claim=claim, value=2.5, low=2.0, high=3.0, limit=0.01, outcome="failed"),
        a_row(claim="numerics/independent/text/rms_d", value=9.0, low=8.0, high=9.5, limit=0.01),
    ]
    run = a_run(rows, [a_cell()], evidence=[an_evidence()])
    found = gallery(run, judged_cells(run))
    assert found is not None
    (row,) = (row for row in found.run[0].rows if row[2] is not None)
    assert row[2:] == (2.5, lane, "image", "FAILED", None)
    drawn = Page(svg(found.run[0])).text
    assert "✗ 2.5" in drawn
    assert "image" in drawn


def test_letters_stand_out_from_every_field_of_a_heat_map() -> None:
    """White and black on the scheme's blues, as they are drawn."""
    fields = [Field("v", f"tp {n}", "✓", "serves", 10.0 ** (n / 8), "tp", "t") for n in range(80)]
    spec = charts.heat_chart(fields, ["v"], [field.column for field in fields])
    drawn = ElementTree.fromstring(draw(spec, label="heat"))
    filled = [e.get("fill", "") for e in drawn.iter() if e.get("fill", "").startswith("rgb")]
    inks = [mark["ink"] for mark in spec["data"]["values"]]
    assert len(filled) == len(fields)
    for fill, ink in zip(filled, inks, strict=True):
        colour = "#" + "".join(f"{int(n):02x}" for n in re.findall(r"\d+", fill))
        assert contrast(colour, ink) >= 4.5, (fill, ink)


def test_an_exact_zero_is_drawn_on_a_line_of_its_own(run: Run) -> None:
    exact = next(e for e in run.evidence if (e.cell, e.name) == ("padded-tp1", "numerics/position"))
    spec = spec_of(exact)
    assert {mark["y"] for mark in spec["data"]["values"]} == {-7}
    assert len(spec["data"]["values"]) == 3 * len(exact.rows)
    assert ">0</text>" in draw(spec, label="exact")


@pytest.mark.parametrize(
    ("values", "axis"),
    [
        ([0.0, 0.002, 0.3], Decades(-4, 0, True)),
        ([0.002, 0.3], Decades(-3, 0, False)),
        ([0.0], Decades(-7, -5, True)),
        ([1.0], Decades(0, 1, False)),
        ([None, 0.1], Decades(-1, 0, False)),
    ],
)
def test_an_axis_holds_its_numbers(values: list[float | None], axis: Decades) -> None:
    assert Decades.over(values) == axis
    known = [value for value in values if value is not None]
    assert all(axis.low <= axis.place(value) <= axis.high for value in known)
    assert set(axis.ticks()) <= set(range(axis.low, axis.high + 1))
    assert ("0" in axis.ticks().values()) == axis.zero


def test_the_worst_cell_is_open_and_the_others_are_not(page: str) -> None:
    albums = re.findall(r'class="about album"( open)?><summary><span class="name">(.*?)<', page)
    assert albums == [(" open", "trimmed-tp4"), ("", "padded-tp1")]


def test_pictures_run_nothing_and_point_nowhere(page: str) -> None:
    assert page.count("<svg") == 9 + 2 * 3 + 2 * 2  # and the legends' lines
    tags = {tag for tag, _ in Page(page).tags}
    assert not {"script", "foreignobject", "image", "use", "style", "a"} & svg_tags(page)
    assert not {"iframe", "img", "object"} & tags
    assert not re.search(r"https?:|url\(|@import|href=\"(?!#|data:,)", page)
    assert not re.search(r"<svg[^>]* on\w+=", page)


def svg_tags(page: str) -> set[str]:
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    return {tag for drawing in drawings for tag, _ in Page(drawing).tags}


@pytest.mark.parametrize(
    "bad",
    [
        "<script>alert(1)</script>",
        "<foreignObject/>",
        "<image/>",
        '<rect fill="url(#a)"/>',
        "<style>x</style>",
    ],
)
def test_a_drawing_that_holds_more_is_refused(bad: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = f'<svg xmlns="http://www.w3.org/2000/svg"><g>{bad}</g></svg>'
    monkeypatch.setattr(vl_convert, "vegalite_to_svg", lambda _: drawn)
    with pytest.raises(UndrawableError):
        draw({}, label="bad")


def test_what_is_not_known_to_be_harmless_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = '<svg xmlns="http://www.w3.org/2000/svg"><path d="M1.26" onclick="x" href="y"/></svg>'
    monkeypatch.setattr(vl_convert, "vegalite_to_svg", lambda _: drawn)
    cleaned = '<svg role="img" aria-label="a &amp; b"><path d="M1.2" /></svg>'
    assert draw({}, label="a & b") == cleaned


def test_hostile_names_arrive_as_text() -> None:
    rows = ((HOSTILE, 0, 0.0, 1e-4, 2e-3),)
    faults = an_evidence(
        cell="faults",
        name="faults/detection",
        columns=("fault", "strength", "rms_d", "limit", "outcome", "judges"),
        rows=((HOSTILE, 0.5, 0.1, 0.01, HOSTILE, HOSTILE),),
        definition=HOSTILE,
    )
    page = render(a_run(evidence=[an_evidence(rows=rows), faults]))
    assert page.count("<svg") == 2 + 3
    assert not {"script", "img"} & {tag for tag, _ in Page(page).tags}
    assert Page(page).text.count("alert(1)") >= 6


def test_the_specs_are_vega_lite(run: Run) -> None:
    """Checked here once, and not each time a page is made: it would cost as much as drawing."""
    for evidence in run.evidence:
        altair.Chart.from_dict(spec_of(evidence), validate=True)


def test_a_run_without_evidence_has_no_pictures() -> None:
    run = a_run([a_row()], [a_cell()])
    assert gallery(run, judged_cells(run)) is None
    page = render(run)
    for word in ("<svg", "<figure", "Numerics in pictures", "detects"):
        assert word not in page


@pytest.mark.parametrize("package", ["altair", "vl_convert"])
def test_without_its_package_the_tables_stand_and_one_line_says_why(
    package: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("reports.charts", "reports.panels", "reports.drawing"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.delattr(f"{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    page = render(run)
    assert "<svg" not in page
    assert page.count("Nothing is drawn: ") == 1
    assert page.count('<div class="figures"') == len(run.evidence) + 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"columns": ("stratum", "at", "median", "p90", "max")}, "it lacks position"),
        ({"rows": (("text", 0, 0.0, -1e-4, 2e-3),)}, "a value is -0.0001, expected 0 or more"),
        ({"rows": (("text", 0, 0.0, "much", 2e-3),)}, "p90 is 'much', expected a number"),
        ({"rows": ()}, "Nothing was recorded"),
    ],
)
def test_numbers_without_a_place_are_told_beside_their_table(
    changes: dict[str, Any], told: str
) -> None:
    picture = lone(**changes)
    assert picture.drawn is None
    assert told in (picture.problem or "")


def test_the_largest_evidence_makes_a_small_picture() -> None:
    rows = tuple(("text", i, 1e-4, 2e-4, 1e-3 * (1 + i % 7)) for i in range(2000))
    assert len(svg(lone(rows=rows))) < 150_000


def test_evidence_that_no_picture_knows_is_a_table() -> None:
    picture = lone(name="numerics/other")
    assert (picture.drawn, picture.problem) == (None, None)
    assert picture.rows == an_evidence().rows


def test_a_comparison_takes_no_notice_of_evidence_or_power() -> None:
    old = a_run([a_row()])
    new = a_run([a_row(detectable=0.5)], evidence=[an_evidence()])
    for one, other in ((old, new), (new, old)):
        assert [change.verdict for change in compare(one, other).changes] == ["same"]


def test_what_a_row_could_have_detected_stands_by_its_interval() -> None:
    row = a_row(detectable=2.5, outcome="failed", value=300.0, high=310.0)
    page = Page(render(a_run([row], [a_cell()]))).text
    assert "39 … 310detects ≥ 2.5 ms" in page
    assert "Detects≥ 2.5 ms" in page


@pytest.mark.parametrize("style", [0, 1, 2], ids=["light", "dark", "print"])
def test_lines_stand_out_and_differ_without_colour(style: int) -> None:
    palettes = re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", palettes[style]))
    series = [colours[f"series-{n}"] for n in (1, 2, 3)]
    assert min(contrast(colour, colours["card"]) for colour in series) >= 3
    assert contrast(series[0], series[1]) >= 1.5


def test_a_whole_run_makes_a_page_of_a_few_megabytes() -> None:
    """Seventeen cells, each as far off as the worst: drawn once, on the page seventeen times."""
    whole = a_run_with_pictures()
    worst = [evidence for evidence in whole.evidence if evidence.cell == "trimmed-tp4"]
    evidence = tuple(replace(e, cell=f"padded-tp{n}") for n in range(1, 18) for e in worst)
    page = render(replace(whole, evidence=evidence))
    assert page.count('role="img"') == 17 * 3 + 2
    assert len(page.encode()) < 3_000_000
