"""What the terminal says of the numerics."""

from __future__ import annotations

from typing import Any

from suites.figures import figures


def row(cell: str, claim: str, value: float | None, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("low", "high", "limit", "unit"))
    return {"cell": cell, "claim": claim, "value": value, "outcome": "passed", **empty, **more}


def test_of_each_lane_the_stratum_nearest_to_its_limit_is_shown() -> None:
    claim = "numerics/end_to_end"
    found = figures(
        [
            row("padded-tp2", f"{claim}/text/rms_d", 0.006, limit=0.016, unit="nat"),
            row("padded-tp2", f"{claim}/image/rms_d", 0.008, low=0.006, high=0.01, limit=0.016),
            row("padded-tp2", f"{claim}/text/mean_kl", 1e-5, limit=6e-5),
        ]
    )
    said = (
        "padded-tp2 end_to_end 0.008 [0.006, 0.01], limit 0.016 "
        "(rms_d, image: nearest of 2 strata) passed"
    )
    assert [" ".join(line.split()) for line in found] == [said]


def test_of_what_must_differ_the_least_is_shown() -> None:
    apart = [row("trimmed-tp1", f"numerics/quality/{s}/told_apart", v, limit=0.1) for s, v in
             (("text", 0.3), ("code", 0.2))]  # fmt: skip
    (line,) = figures(apart)
    assert "0.2, at least 0.1 (told_apart, code: nearest of 2 strata) passed" in line


def test_a_stratum_that_did_not_pass_is_not_hidden_by_one_that_did() -> None:
    rows = [
        row("padded-tp2", "numerics/tp/text/rms_d", 0.5, outcome="failed"),
        row("padded-tp2", "numerics/tp/code/rms_d", 0.1, outcome="inconclusive"),
    ]
    assert figures(rows)[0].endswith("failed, inconclusive")


def test_faults_and_nulls_have_their_lines_and_nothing_else_does() -> None:
    rows = [
        row("padded-tp1", "faults/detected", 1.0, limit=1.0),
        row("padded-tp1", "faults/groups_swapped", 0.4),
        row("padded-tp2", "null/restart/rejected", 0.0),
        row("padded-tp2", "latency/ttft_p50", 0.1),
        row("padded-tp2", "numerics/task/text/loss", None),
    ]
    assert [line.split()[1] for line in figures(rows)] == ["detected", "null"]
