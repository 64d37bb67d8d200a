"""Two reports, claim by claim: each verdict for the right reason, and no other."""

import json
from pathlib import Path
from typing import Any

import pytest

from reports.compare import WORST_FIRST, compare, main
from reports.record import JsonObject, Row, write_report
from suites.selftest.sample_run import a_footer, a_header, a_row, a_run

EXACT = {"claim": "sharding/bytes", "better": "exact", "low": None, "high": None, "limit": None}
KL = {"claim": "numerics/mean_kl", "unit": "nat", "limit": 2e-4, "value": 4e-5}
FLOOR = {"claim": "throughput/tokens", "better": "higher", "limit": 10.0}
ABSENT = {"value": None, "low": None, "high": None, "n": None}
DIED = {**ABSENT, "outcome": "failed", "reason": "boom", "limit": None, "definition": None}
SKIPPED = {**ABSENT, "outcome": "not_run", "reason": "no GPU"}


def at(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


# What both rows share, what the old one has, what the new one has, verdict, word of the reason.
VERDICTS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], str, str]] = [
    # TTFT, lower is better, margin 5 % of 40 = 2
    ({}, {}, {}, "same", "identical"),
    ({}, at(40, 39.8, 40.2), at(41, 40.8, 41.2), "same", "+2.5 %"),
    ({}, at(40, 39.8, 40.2), at(43, 42.3, 43.5), "worse", "+7.5 %"),
    ({}, at(40, 39.8, 40.2), at(42, 41.9, 42.1), "unclear", "neither"),
    ({}, at(40, 39.8, 40.2), at(37, 36.5, 37.5), "better", "-7.5 %"),
    ({}, at(40, 30, 50), at(45, 35, 55), "unclear", "neither"),
    ({}, at(40, None, None), at(80, None, None), "unclear", "too few"),
    ({}, at(40, None, 41), at(80, 79, None), "worse", "+100.0 %"),
    # throughput, higher is better, margin 3 % of 100 = 3
    (FLOOR, at(100, 99, 101), at(94, 93, 95), "worse", "-6.0 %"),
    (FLOOR, at(100, 99, 101), at(106, 105, 107), "better", "+6.0 %"),
    (FLOOR, at(100, 99.5, 100.5), at(102, 101.5, 102.5), "same", "+2.0 %"),
    # numerics, margin a twentieth of the limit, 1e-5
    (KL, at(4e-5, 3.9e-5, 4.1e-5), at(4.5e-5, 4.4e-5, 4.6e-5), "same", "+12.5 %"),
    (KL, at(4e-5, 3.9e-5, 4.1e-5), at(9e-5, 8e-5, 1e-4), "worse", "+125.0 %"),
    # exact rows: any change
    (EXACT, {"value": 100}, {"value": 100}, "same", ""),
    (EXACT, {"value": 100}, {"value": 99}, "worse", "exact"),
    # no direction
    ({"better": None}, {"value": 1}, {"value": 2}, "unclear", "which way"),
    # outcomes
    ({}, {}, {"outcome": "failed", "value": 300, "high": 310}, "broke", "300 ms"),
    ({}, {}, DIED, "broke", "boom"),
    ({}, DIED, {}, "fixed", "boom"),
    ({}, DIED, DIED, "same", ""),
    ({}, {}, SKIPPED, "gone", "no GPU"),
    ({}, {}, {**SKIPPED, "outcome": "invalid"}, "gone", "now invalid"),
    ({}, DIED, SKIPPED, "gone", "no GPU"),
    ({}, SKIPPED, {}, "new", "was not run"),
    ({}, SKIPPED, SKIPPED, "same", "no evidence"),
    ({}, {}, {"outcome": "refused_as_planned"}, "worse", "planned not to"),
    ({}, {"outcome": "refused_as_planned"}, {}, "better", "was planned not"),
    ({}, {}, {**DIED, "outcome": "inconclusive"}, "unclear", "no number"),
    # what was measured differs
    ({}, {"limit": 250}, {"limit": 300}, "incomparable", "limit 250 → 300"),
    ({}, {"limit": 250}, {"limit": None}, "incomparable", "limit 250 → none"),
    ({}, {"definition": "ttft-1"}, {"definition": "ttft-2"}, "incomparable", "definition"),
    ({}, {"unit": "s"}, {"unit": "ms"}, "incomparable", "unit"),
    ({}, {"limit": 1}, {"outcome": "failed"}, "incomparable", "passed → failed"),
]


@pytest.mark.parametrize(("shared", "old", "new", "verdict", "told"), VERDICTS)
def test_a_claim_gets_its_verdict(
    shared: dict[str, Any], old: dict[str, Any], new: dict[str, Any], verdict: str, told: str
) -> None:
    (change,) = compare(a_run([a_row(**shared | old)]), a_run([a_row(**shared | new)])).changes
    assert change.verdict == verdict, change.reason
    assert told in change.reason


def test_the_table_above_shows_every_verdict() -> None:
    assert {verdict for *_, verdict, _ in VERDICTS} == set(WORST_FIRST)


def test_a_claim_of_one_report_alone_is_gone_or_new() -> None:
    one, other = a_row(), a_row(claim="latency/tpot_p50")
    changes = compare(a_run([one]), a_run([other])).changes
    assert [(c.claim, c.verdict) for c in changes] == [
        (one.claim, "gone"),
        (other.claim, "new"),
    ]


FAMILIES = ("sharding/elements", "numerics/mean_kl", "latency/ttft_p50", "throughput/tokens")
ALL, TIMING = set(FAMILIES), {"latency/ttft_p50", "throughput/tokens"}


@pytest.mark.parametrize(
    ("changes", "incomparable"),
    [
        ({}, set()),
        ({"run_id": "run-2", "started_at": "later", "colour": "blue"}, set()),
        ({"deployment": "other"}, ALL),
        ({"engine": {"name": "vllm", "version": "0.33.0", "platform": "cpu"}}, ALL),
        ({"engine": {"name": "vllm", "version": "0.32.0", "platform": "cuda"}}, ALL),
        ({"corpus_digest": "corpus-2"}, {"numerics/mean_kl"}),
        ({"corpus_digest": None}, {"numerics/mean_kl"}),
        ({"machine": {"cpu": "Other CPU", "cores": 2, "gpus": []}}, TIMING),
        ({"machine": {"cpu": "Some CPU", "cores": 64, "gpus": []}}, TIMING),
        ({"machine": {"cpu": "Some CPU", "cores": 2, "gpus": [{"name": "H200"}]}}, TIMING),
    ],
)
def test_other_conditions_make_the_rows_they_touch_incomparable(
    changes: dict[str, Any], incomparable: set[str]
) -> None:
    rows = [a_row(claim=claim) for claim in FAMILIES]
    result = compare(a_run(rows), a_run(rows, header=a_header(**changes)))
    assert {c.claim for c in result.changes if c.verdict == "incomparable"} == incomparable
    assert all(c.verdict in ("same", "incomparable") for c in result.changes)


def test_the_reason_of_incomparable_names_both_sides_and_what_happened() -> None:
    header = a_header(engine={"name": "vllm", "version": "0.33.0", "platform": "cpu"})
    new = a_run([a_row(outcome="failed")], header=header)
    (change,) = compare(a_run([a_row()]), new).changes
    assert change.reason == "engine vllm 0.32.0 → vllm 0.33.0; passed → failed"


def test_the_worst_of_several_rows_of_one_claim_counts() -> None:
    died = a_row(**DIED)
    for rows in ([a_row(), died], [died, a_row()]):
        (change,) = compare(a_run([a_row()]), a_run(rows)).changes
        assert change.verdict == "broke"


def test_another_checkpoint_and_a_partial_run_are_noted() -> None:
    header = a_header(checkpoint={"path": "/models/tiny", "digest": "def"})
    new = a_run([a_row()], header=header, footer=a_footer(interrupted=True))
    checkpoint_note, partial_note = sorted(compare(a_run([a_row()]), new).notes, reverse=True)
    assert "abc → def" in checkpoint_note
    assert "NEW is partial" in partial_note
    assert compare(a_run([a_row()]), a_run([a_row()])).notes == ()


def a_partial(**changes: list[str]) -> JsonObject:
    cells = {"done": ["original-tp1"], "unfinished": [], "not_reached": ["padded-tp2"]}
    told = {"why": "interrupted by SIGTERM", "during": None, **cells, **changes}
    return a_footer(interrupted=True, exit_status=2, partial=told)


UNREACHED = {**SKIPPED, "reason": "not reached before the run ended: interrupted by SIGTERM"}


@pytest.mark.parametrize(
    ("footer", "rows", "verdict", "code"),
    [
        (a_partial(), [], "incomparable", 2),
        (a_partial(), [a_row(**UNREACHED)], "incomparable", 2),
        (a_partial(done=[], unfinished=["padded-tp2"], not_reached=[]), [], "incomparable", 2),
        (a_footer(interrupted=True), [], "incomparable", 2),  # of 1.1: it does not say how far
        (a_partial(done=["padded-tp2"], not_reached=[]), [], "gone", 1),
        (a_partial(not_reached=[]), [], "gone", 1),  # nobody had selected it
        (a_partial(), [a_row(**DIED)], "broke", 1),
        (a_partial(), [a_row()], "same", 0),
        (a_footer(), [], "gone", 1),
    ],
)
def test_what_a_partial_run_never_reached_is_neither_gone_nor_well(
    footer: JsonObject, rows: list[Row], verdict: str, code: int
) -> None:
    comparison = compare(a_run([a_row()]), a_run(rows, footer=footer))
    (change,) = comparison.changes
    assert (change.verdict, comparison.exit_code) == (verdict, code)
    if verdict == "incomparable":
        assert change.reason.startswith("NEW is partial, and ended before this claim had an answer")


def test_a_partial_run_that_is_well_so_far_gets_no_clean_bill() -> None:
    done, missing = a_row(cell="original-tp1"), a_row()
    comparison = compare(a_run([done, missing]), a_run([done], footer=a_partial()))
    assert comparison.exit_code == 2
    assert comparison.summary.startswith(
        "No regression in 1 compared claim, and 1 not reached by a partial NEW."
    )
    (note,) = comparison.notes
    assert note == (
        "NEW is partial: interrupted by SIGTERM; done: original-tp1; not reached: padded-tp2"
    )


def test_what_a_partial_old_lacks_is_new() -> None:
    comparison = compare(a_run([], footer=a_partial()), a_run([a_row()]))
    assert [change.verdict for change in comparison.changes] == ["new"]
    assert comparison.notes[0].startswith("OLD is partial")


@pytest.mark.parametrize(
    ("new", "code", "summary"),
    [
        (a_row(), 0, "No regression in 1 compared claim. All verdicts: 1 same."),
        (a_row(value=90, low=88, high=92), 1, "1 regression in 1 compared claim"),
        (a_row(**SKIPPED), 1, "1 gone"),
        (a_row(value=41, low=30, high=60), 0, "1 unclear"),
        (a_row(limit=1), 2, "Not comparable: 1 incomparable."),
    ],
)
def test_the_exit_code_says_whether_it_regressed(
    new: Row, code: int, summary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    write_report(a_run([a_row()]), paths[0])
    write_report(a_run([new]), paths[1])
    page, document = tmp_path / "out.html", tmp_path / "out.json"
    arguments = [*map(str, paths), "--html", str(page), "--json", str(document)]
    assert main(arguments) == code
    printed = capsys.readouterr()
    assert summary in printed.out.splitlines()[-1]
    assert printed.err == ""
    told = json.loads(document.read_text())
    assert (told["exit_code"], len(told["changes"])) == (code, 1)
    assert told["summary"] in page.read_text()


def test_the_worst_comes_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    claims = ["latency/a", "latency/b", "latency/c"]
    write_report(a_run([a_row(claim=claim) for claim in claims]), tmp_path / "old.json")
    new = [a_row(claim="latency/a"), a_row(claim="latency/c", **DIED)]
    write_report(a_run(new), tmp_path / "new.json")
    assert main([str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["verdict", "broke", "gone", "same"]


def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    write_report(a_run([a_row()]), report)
    broken = tmp_path / "broken.json"
    broken.write_text("{")
    assert main([str(report), str(broken)]) == 2
    assert main([str(report), str(tmp_path / "absent.json")]) == 2
    assert main([str(report), str(report), "--html", str(report / "x" / "page.html")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 3
    assert all(name in line for name, line in zip(("broken", "absent", "x"), errors, strict=True))
