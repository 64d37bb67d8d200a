"""What the terminal says of the numerics."""

from __future__ import annotations

from typing import Any

from suites.figures import figures


def row(cell: str, claim: str, value: float | None, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("low", "high", "limit", "unit", "reason"))
    return {"cell": cell, "claim": claim, "value": value, "outcome": "passed", **empty, **more}


def lines(*rows: dict[str, Any]) -> list[str]:
    return [" ".join(line.split()) for line in figures(rows)]


def test_of_each_lane_the_stratum_nearest_to_its_limit_is_shown() -> None:
    claim = "numerics/end_to_end"
    assert lines(
        row("padded-tp2", f"{claim}/text/rms_d", 0.006, limit=0.016, unit="nat"),
        row("padded-tp2", f"{claim}/image/rms_d", 0.008, low=0.006, high=0.01, limit=0.016),
        row("padded-tp2", f"{claim}/text/mean_kl", 1e-5, limit=6e-5),
    ) == [
        "padded-tp2 end_to_end 0.008 [0.006, 0.01], limit 0.016 "
        "(rms_d, image: nearest of 2 strata) passed"
    ]


def test_what_is_another_model_is_told_apart_at_the_least_and_no_stranger_at_the_most() -> None:
    apart = [row("trimmed-tp1", f"numerics/quality/{s}/told_apart", v, limit=0.1) for s, v in
             (("text", 0.3), ("code", 0.2))]  # fmt: skip
    far = [row("trimmed-tp1", f"numerics/quality/{s}/mean_kl", v, limit=0.6) for s, v in
           (("text", 0.1), ("code", 0.2))]  # fmt: skip
    assert lines(*apart, *far) == [
        "trimmed-tp1 quality 0.2, at least 0.1 (told_apart, code: nearest of 2 strata); "
        "0.2, limit 0.6 (mean_kl, code: nearest of 2 strata) passed"
    ]


def test_a_stratum_that_did_not_pass_is_not_hidden_by_one_that_did() -> None:
    (line,) = lines(
        row("padded-tp2", "numerics/tp/text/rms_d", 0.5, outcome="failed"),
        row("padded-tp2", "numerics/tp/code/rms_d", 0.1, outcome="inconclusive"),
    )
    assert line.endswith("failed (rms_d 0.5 in text), inconclusive (rms_d 0.1 in code)")


def test_a_metric_that_a_lane_is_not_told_by_fails_it_all_the_same() -> None:
    claim = "numerics/end_to_end"
    flips = [
        row("padded-tp4", f"{claim}/{stratum}/hard_flips", flips, limit=0.0, outcome="failed",
            unit="position")
        for stratum, flips in (("text", 2.0), ("image", 12.0))
    ]  # fmt: skip
    kl = row("padded-tp4", f"{claim}/text/mean_kl", 9.0, limit=6e-5, outcome="failed", unit="nat")
    bias = row("padded-tp4", f"{claim}/text/mean_d", -1.0, outcome="failed")
    fine = row("padded-tp4", f"{claim}/text/rms_d", 0.009, limit=0.016)
    (line,) = lines(fine, kl, *flips, bias)
    assert line.endswith(
        "failed (mean_kl 9 nat in text; hard_flips 12 position in image and 1 more; "
        "mean_d -1 in text)"
    )
    apart = row("trimmed-tp2", "numerics/quality/text/told_apart", 0.8, limit=0.1)
    stranger = row("trimmed-tp2", "numerics/quality/text/mean_kl", 9.0, outcome="failed")
    assert lines(apart, stranger)[0].endswith("failed (mean_kl 9 in text)")


def test_what_could_not_be_compared_at_all_has_its_line() -> None:
    assert lines(
        row("padded-tp4", "numerics/task/answered", None, outcome="failed", reason="it hung up"),
        row("padded-tp8", "numerics/finite", None, outcome="failed", reason="d1: NaN"),
        row("padded-tp2", "numerics/longest_repeat", 30.0, outcome="failed", unit="token"),
    ) == [
        "padded-tp4 task failed (answered: it hung up)",
        "padded-tp8 finite failed (finite: d1: NaN)",
        "padded-tp2 longest_repeat failed (longest_repeat 30 token)",
    ]


def test_what_a_cell_s_numerics_took_is_said_together_and_each() -> None:
    assert lines(
        row("padded-tp2", "numerics/seconds/scoring", 21.26, unit="s"),
        row("padded-tp2", "numerics/seconds/tasks", 6.0, unit="s"),
    ) == ["padded-tp2 seconds 27.3 s (scoring 21.3, tasks 6)"]


def test_faults_and_nulls_have_their_lines_and_nothing_else_does() -> None:
    rows = [
        row("padded-tp1", "faults/detected", 1.0, limit=1.0),
        row("padded-tp1", "faults/groups_swapped", 0.4),
        row("padded-tp2", "null/restart/rejected", 0.0),
        row("padded-tp2", "latency/ttft_p50", 0.1),
        row("padded-tp2", "numerics/longest_repeat", 3.0),
        row("padded-tp2", "numerics/task/text/loss", None, outcome="not_run"),
        row("padded-tp2", "numerics/tasks", None, outcome="not_run"),
    ]
    assert [line.split()[1] for line in figures(rows)] == ["detected", "null"]
