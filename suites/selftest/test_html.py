"""The page says what the rows say, to anyone, anywhere, and asks nobody else."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reports.html import main, markdown_summary, render
from reports.matrix import judged_cells, number_text, sentence, shorten, text_matrix
from reports.record import Journal, Row, Run, write_report
from suites.selftest.sample_run import STAGES, a_cell, a_footer, a_header, a_row, a_run

STYLE = Path(__file__).parents[2] / "reports" / "templates" / "style.css"
CAUGHT = {"claim": "numerics/text/caught", "value": 2.0, "limit": 0.05}
REFUSED: dict[str, Any] = {
    "claim": "sharding/stage",
    "outcome": "refused_as_planned",
    "value": None,
    "reason": "as planned",
}
FAILED = {"outcome": "failed", "value": 300.0, "high": 310.0, "reason": "too slow"}


def planned(stage: str | None, observed: str | None, **changes: Any) -> dict[str, Any]:
    return {"planned": stage, "observed": observed, **changes}


JUDGED: list[tuple[dict[str, Any] | None, list[dict[str, Any]], str, str]] = [
    (planned(None, None), [{}], "serves", "1 claim passed"),
    (planned(None, None), [{}, {"outcome": "not_run"}], "serves", "1 not run"),
    (planned(None, None), [], "inconclusive", "no claim about it was checked"),
    (planned(None, None), [{}, FAILED], "FAILED", "300 ms, limit ≤ 250 ms"),
    (planned(None, None), [{}, {"outcome": "inconclusive"}], "inconclusive", "latency/ttft"),
    (planned(None, None), [{}, {"outcome": "invalid"}], "inconclusive", "latency/ttft"),
    (planned(None, "load"), [], "FAILED", "planned: serves; observed: refused at load"),
    (planned("load", "load"), [REFUSED], "fails as planned", ""),
    (planned("load", "load"), [REFUSED, FAILED], "FAILED", "300 ms"),
    (planned("load", None), [{}], "FAILED", "planned: refused at load; observed: serves"),
    (planned("load", "silent"), [REFUSED], "FAILED", "answers wrongly"),
    (planned("load", "config"), [], "FAILED", "observed: refused at config"),
    (planned("load", "config"), [REFUSED], "fails as planned", ""),  # the suite vouches for it
    (planned("silent", "silent"), [REFUSED, CAUGHT], "wrong answers, caught as planned", ""),
    (planned("silent", "silent"), [REFUSED], "fails as planned", ""),  # no answer was judged
    (planned("silent", None), [REFUSED], "inconclusive", "no claim that ran could catch it"),
    (planned("silent", None), [{}], "inconclusive", "no claim that ran could catch it"),
    (planned("silent", "load"), [], "FAILED", "observed: refused at load"),
    (planned(None, "not_run", reason="no GPU"), [], "not run", "no GPU"),
    (None, [{"outcome": "not_run", "value": None, "reason": "skipped"}], "not run", "skipped"),
    (None, [{}], "not run", "no server was started; of its files, 1 claim passed"),
    (None, [FAILED], "FAILED", "300 ms"),
]


@pytest.mark.parametrize(("record", "rows", "word", "reason"), JUDGED)
def test_a_cell_gets_its_word(
    record: dict[str, Any] | None, rows: list[dict[str, Any]], word: str, reason: str
) -> None:
    name = "padded-tp2"
    run = a_run(
        [a_row(cell=name, **row) for row in rows],
        [a_cell(name, **record)] if record else [],
    )
    cell = next(cell for cell in judged_cells(run) if cell.name == name)
    assert cell.word == word, cell.reason
    assert reason in cell.reason


def three_cells(**footer: Any) -> Run:
    """One that serves, one refused as planned, one that failed."""
    return a_run(
        [
            a_row(cell="original-tp1"),
            a_row(cell="original-tp2", **REFUSED),
            a_row(cell="padded-tp2", claim="plan/headers"),
            a_row(cell="padded-tp2", **FAILED),
        ],
        [
            a_cell("original-tp1", ready_after_s=3.25, argv=("vllm", "--tp", "1")),
            a_cell("original-tp2", planned="load", observed="load", reason="ValueError: 720"),
            a_cell("padded-tp2"),
        ],
        footer=a_footer(**{"exit_status": 1} | footer),
    )


def test_the_sentence_counts_and_names_what_failed() -> None:
    assert sentence(three_cells()) == (
        "2 of 3 cells behave as planned; padded-tp2 failed: "
        "latency/ttft_p50: 300 ms, limit ≤ 250 ms."
    )


def test_the_sentence_owns_up_to_what_it_does_not_know() -> None:
    well = three_cells()
    serving = Run(well.header, well.cells[:1], well.rows[:1], a_footer())
    assert sentence(serving) == "The 1 cell that ran behaves as planned; 2 of 3 were not run."
    assert sentence(a_run()) == "None of 3 cells was served."
    assert sentence(three_cells(interrupted=True)).startswith("Partial, the run was interrupted: 2")
    killed = Run(well.header | {"selected": list(STAGES)}, (), well.rows[:1], None)
    assert sentence(killed).startswith(
        "Unfinished, the run crashed or is still running (of 3 cells 0 done, 1 unfinished, 2 not "
    )
    assert sentence(Run(well.header, (), (), None)).startswith("Unfinished, the run crashed")
    broken = Run(well.header, well.cells[:2], well.rows[:2], a_footer(exit_status=1))
    assert "Yet pytest ended with exit status 1" in sentence(broken)


def test_the_matrix_is_in_words() -> None:
    assert text_matrix(three_cells()) == [
        "          tp 1      tp 2",
        "original  ✓ serves  ⊘ fails as planned",
        "padded              ✗ FAILED",
    ]


def test_pipelines_have_columns_of_their_own() -> None:
    rows = [a_row(cell=name) for name in ("original-tp1", "original-pp2", "mine-tp2-pp2")]
    run = a_run(rows, [a_cell("original-tp1"), a_cell("original-pp2", tp=1, pp=2)])
    assert text_matrix(run) == [
        "          tp 1      tp 2       pp 2      tp 2 · pp 2",
        "original  ✓ serves  – not run  ✓ serves",
        "padded              – not run",
        "mine                                     – not run",
    ]
    run.header["command"] = ["pytest", "-m", "pp2"]
    failed = a_row(cell="original-pp2", **FAILED)
    page = Page(render(a_run([*rows, failed], run.cells, header=run.header)))
    assert "pytest -m 'original and pp2 and latency'" in page.text


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("padded serves at tp=2", ""),
        ("padded serves at tp=2, pp=2.", ""),
        ("padded at tp=2, pp=2 is refused at load: 720 is odd", "720 is odd"),
        ("padded at pp=2 is refused at load: 720 is odd", "720 is odd"),
        ("not needed: it serves at tp=2", "not needed: it serves at tp=2"),
    ],
)
def test_the_plans_own_words_are_not_said_twice(told: str, shown: str) -> None:
    run = a_run([], [a_cell("padded-tp2", planned_reason=told)])
    cell = next(cell for cell in judged_cells(run) if cell.name == "padded-tp2")
    assert cell.planned_reason == shown


class Page(HTMLParser):
    """What a page holds: tags with attributes, ids, links and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attribute(self, name: str) -> list[str]:
        return [attributes[name] or "" for _, attributes in self.tags if name in attributes]


def test_every_link_leads_to_a_place_on_the_page() -> None:
    page = Page(render(three_cells()))
    links = [link for link in page.attribute("href") if link != "data:,"]
    assert "#cell-padded-tp2" in links
    assert {link[1:] for link in links} <= set(page.attribute("id"))
    assert len(page.attribute("id")) == len(set(page.attribute("id")))


def test_the_page_asks_nobody_else_and_runs_no_script() -> None:
    text = render(three_cells())
    page = Page(text)
    assert not {"script", "iframe", "img", "object"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?:|url\(|@import", text)
    assert page.attribute("src") == []
    assert {link[0] for link in page.attribute("href") if link != "data:,"} == {"#"}
    assert "default-src 'none'" in text


def test_hostile_text_arrives_as_text() -> None:
    hostile = "</style><script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
    rows = [
        a_row(claim=f"numerics/{hostile}", reason=hostile, unit=hostile, **{"outcome": "failed"})
    ]
    cells = [a_cell(argv=(hostile,), log=hostile, planned_reason=hostile, message=hostile)]
    header = a_header(deployment=hostile, checkpoint={"path": hostile}, command=[hostile])
    text = render(a_run(rows, cells, header=header))
    page = Page(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert "img" not in {tag for tag, _ in page.tags}
    assert page.text.count("alert(1)") >= 8
    assert "<script" not in markdown_summary(a_run(rows, cells, header=header))


def test_a_failed_claim_comes_first_with_what_to_do() -> None:
    page = Page(render(three_cells()))
    sections = [i for i in page.attribute("id") if re.fullmatch(r"cell-\w+-tp\d", i)]
    assert sections == ["cell-padded-tp2", "cell-original-tp1", "cell-original-tp2"]
    for told in ("300 ms", "≤ 250 ms", "39 … 310", "too slow", "What to do:"):
        assert told in page.text
    assert "pytest -m 'padded and tp2 and latency'" in page.text
    failed = next(cell for cell in judged_cells(three_cells()) if cell.name == "padded-tp2")
    assert [row.outcome for row in failed.rows] == ["failed", "passed"]


def test_the_command_to_run_it_alone_keeps_the_other_options() -> None:
    run = three_cells()
    run.header["command"] = ["pytest", "-m", "tp2", "--checkpoint", "/my models/x", "-k", "a or b"]
    told = "pytest --checkpoint '/my models/x' -m 'padded and tp2 and latency'"
    assert told in Page(render(run)).text


def test_every_table_heading_has_a_scope() -> None:
    headings = [attributes for tag, attributes in Page(render(three_cells())).tags if tag == "th"]
    assert len(headings) > 10
    assert {heading.get("scope") for heading in headings} == {"col", "row"}


def test_a_big_matrix_stays_under_two_megabytes() -> None:
    names = [f"{variant}-tp{tp}" for variant in ("original", "padded") for tp in (1, 2, 4, 8)]
    rows = [
        a_row(cell=name, claim=f"numerics/stratum/{i}", reason="reason " * 1000)
        for name in names
        for i in range(150)
    ]
    assert len(render(a_run(rows, [a_cell(name) for name in names]))) < 2_000_000


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, as the accessibility guidelines define it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


PAIRS = [
    *((ink, back) for ink in ("ink", "muted", "link") for back in ("page", "card")),
    *(
        (f"{status}-ink", f"{status}-back")
        for status in ("serves", "fails", "caught", "failed", "inconclusive", "not-run", "alarm")
    ),
    *(("ink", "alarm-back"), ("muted", "alarm-back")),
    *(("alarm-ink", "card"), ("inconclusive-ink", "card")),
]


@pytest.mark.parametrize("style", [0, 1, 2], ids=["light", "dark", "print"])
def test_text_stands_out_from_its_background(style: int) -> None:
    palettes = re.findall(r":root \{(.*?)\}", STYLE.read_text(), re.DOTALL)
    assert len(palettes) == 3
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", palettes[style]))
    weak = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in PAIRS}
    assert {pair: round(ratio, 2) for pair, ratio in weak.items() if ratio < 4.5} == {}


def test_the_contrast_measure_knows_black_from_grey() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_no_status_is_told_by_colour_alone() -> None:
    page = Page(render(three_cells()))
    for word in ("✓ serves", "⊘ fails as planned", "✗ FAILED", "✓ passed", "✗ failed"):
        assert word in page.text


def test_the_summary_is_a_markdown_table() -> None:
    lines = markdown_summary(three_cells()).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert {line.count("|") - line.count("\\|") for line in table} == {4}
    assert "✗ **FAILED**<br>latency/ttft\\_p50: 300 ms, limit ≤ 250 ms" in table[3]
    assert lines[2].startswith("2 of 3 cells behave as planned")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (1234567, "1,234,567"),
        (41.23456, "41.23"),
        (-0.5, "−0.5"),
        (3.1e-4, "3.1e−04"),
        (2e-4, "2e−04"),
        (123456.7, "123,457"),
        (1e20, "100,000,000,000,000,000,000"),
    ],
)
def test_numbers_read_well(value: float, text: str) -> None:
    assert number_text(value) == text


def test_long_text_is_cut_at_a_word() -> None:
    assert shorten("one two\n three", 50) == "one two three"
    assert shorten("one two three", 9) == "one two…"


def test_the_command_renders_a_journal_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_report(three_cells(), tmp_path / "report.json")
    journal = Journal(tmp_path / "run.jsonl")
    journal.header(a_header())
    journal.row(Row(cell="padded-tp2", claim="plan/x", outcome="passed", reason="seen"))
    journal.close()
    assert main([str(tmp_path / "report.json"), "--out", str(tmp_path / "a.html")]) == 0
    assert main([str(journal.path), "--out", str(tmp_path / "b.html")]) == 0
    assert "2 of 3 cells" in (tmp_path / "a.html").read_text()
    assert "Unfinished, the run crashed" in (tmp_path / "b.html").read_text()
    assert main([str(tmp_path / "a.html"), "--out", str(tmp_path / "c.html")]) == 2
    assert main([str(tmp_path / "absent.jsonl")]) == 2
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 3
    assert not (tmp_path / "c.html").exists()
    assert main([str(journal.path)]) == 0
    assert "Unfinished, the run crashed" in (tmp_path / "report.html").read_text()
    assert str(tmp_path / "report.html") in capsys.readouterr().out
