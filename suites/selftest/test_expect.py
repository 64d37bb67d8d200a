"""The assertions fail when they should: each on a value that is wrong, straddling, or missing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.coverage import Coverage, Finding
from fixtures.matrix import Cell
from fixtures.miniature import Recipe, config_json
from fixtures.prediction import plan
from fixtures.repairs import resized
from fixtures.running import Running
from fixtures.serving.server import Refused
from reports.equivalence import Flips, cluster_mean
from reports.record import Row
from suites.expect import (
    Rows,
    expect_shards,
    expect_stage,
)
from suites.expect_numerics import expect_caught, expect_close, expect_task, timed
from suites.lanes import Metric
from suites.numerics import Differences
from suites.selftest.apart import differing

MODEL = parse_config(config_json(Recipe()), source="miniature")
LIMITS: dict[Metric, float] = {"mean_d": 0.01, "rms_d": 0.05, "mean_kl": 5e-3, "same_top": 0.97}


class Recorder:
    """Stands in for the `record` fixture."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def __call__(self, **fields: Any) -> Row:
        self.rows.append(Row(**fields))
        return self.rows[-1]

    def outcomes(self) -> dict[str, str]:
        return {row.claim: row.outcome for row in self.rows}


def cell(variant: str, width: int, tp: int) -> Cell:
    return Cell(variant, tp, plan(resized(MODEL, width), tp=tp, platform="cpu"), None)


def documents(
    size: float, count: int = 33, kl: float = 0.0, same: float = 1.0
) -> Sequence[Differences]:
    """Documents whose d is plus and minus `size`."""
    return [differing(np.array([size, -size] * 25), kl=kl, same=same) for _ in range(count)]


def close(found: Sequence[Differences], **options: Any) -> dict[str, str]:
    record = Recorder()
    try:
        expect_close(
            record,
            "padded-tp2",
            "end_to_end",
            {"text": found},
            options.pop("limits", LIMITS),
            against="original-tp1",
            flip_margin=0.1,
            **options,
        )
    except pytest.fail.Exception:
        assert set(record.outcomes().values()) & {"failed", "inconclusive"}
    else:
        assert set(record.outcomes().values()) == {"passed"}
    return {claim.rpartition("/")[2]: outcome for claim, outcome in record.outcomes().items()}


def test_equal_answers_are_close() -> None:
    assert set(close(documents(0.0)).values()) == {"passed"}


@pytest.mark.parametrize(
    ("found", "metric"),
    [
        (documents(0.2), "rms_d"),
        (documents(0.0, kl=0.1), "mean_kl"),
        (documents(0.0, same=0.5), "same_top"),
        ([differing(np.full(50, -0.3))] * 33, "mean_d"),
    ],
)
def test_each_metric_fails_on_its_own(found: Sequence[Differences], metric: str) -> None:
    assert close(found)[metric] == "failed"


def test_a_comparison_without_limits_passes_nothing() -> None:
    record = Recorder()
    expect_close(
        record, "original-tp1", "independent", {"text": documents(9.0)}, {},
        against="transformers", flip_margin=0.1,
    )  # fmt: skip
    assert {row.outcome for row in record.rows} == {"not_run"}
    (rms,) = (row for row in record.rows if row.claim.endswith("rms_d"))
    assert rms.value == pytest.approx(9.0)
    assert str(rms.reason).startswith("measured, and not judged")


def test_a_single_changed_bit_breaks_an_exact_lane() -> None:
    found = [*documents(0.0), *documents(1e-7, count=1)]
    assert close(found, limits={"max_abs_d": 0.0})["max_abs_d"] == "failed"


def test_too_few_documents_are_inconclusive_and_not_a_pass() -> None:
    assert close(documents(0.0, count=3))["rms_d"] == "inconclusive"


def test_a_straddling_interval_is_inconclusive() -> None:
    found = [*documents(0.0, count=16), *documents(0.07, count=16)]
    assert close(found)["rms_d"] == "inconclusive"


def test_a_variant_that_must_differ_and_does_not_is_a_failure() -> None:
    assert close(documents(0.0), limits={}, floor=0.1)["told_apart"] == "failed"
    assert close(documents(0.4), limits={}, floor=0.1)["told_apart"] == "passed"


def test_what_tells_two_models_apart_is_estimated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    estimated = Mock(wraps=cluster_mean)
    monkeypatch.setattr("suites.lanes.cluster_mean", estimated)
    record, strata = Recorder(), {"text": documents(0.4), "code": documents(0.3)}
    expect_close(
        record, "trimmed-tp1", "quality", strata, {}, against="o", flip_margin=0.1, floor=0.1
    )
    assert estimated.call_count == 5 * 2  # metrics times strata
    rows = {row.claim: row for row in record.rows}
    for stratum in strata:
        apart, rms_d = (
            rows[f"numerics/quality/{stratum}/{name}"] for name in ("told_apart", "rms_d")
        )
        assert (apart.value, apart.low, apart.high) == (rms_d.value, rms_d.low, rms_d.high)


def test_a_silent_cell_that_is_not_caught_is_a_failure() -> None:
    record = Recorder()
    expect_caught(record, "original-tp4", {"text": documents(2.0)}, 0.05, against="original-tp1")
    claims = ("numerics/control/text/caught", "numerics/control/text/mean_kl")
    assert record.outcomes() == dict.fromkeys(claims, "passed")
    assert [row.limit for row in record.rows] == [0.05, None]
    with pytest.raises(pytest.fail.Exception, match=r"caught failed: observed 0\.001 nat"):
        expect_caught(
            record, "original-tp4", {"text": documents(0.001)}, 0.05, against="original-tp1"
        )


def test_what_a_part_of_the_numerics_took_is_recorded_where_it_ended() -> None:
    record = Recorder()
    with timed(Rows(record, "padded-tp2"), "scoring"):
        time.sleep(0.02)
    (row,) = record.rows
    assert (row.claim, row.outcome, row.unit) == ("numerics/seconds/scoring", "passed", "s")
    assert row.value is not None
    assert 0.02 <= row.value < 5
    assert "sets no limit" in str(row.reason)
    with pytest.raises(KeyError), timed(Rows(record, "padded-tp2"), "tasks"):
        raise KeyError
    assert len(record.rows) == 1


SCALES = "model.layers.0.mlp.down_proj.scales"
FINDING = Finding("dropped", SCALES, (0,), 64, f"{SCALES}: row 6 of 7")
ELSEWHERE = Finding("dropped", "model.norm.weight", (0,), 64, "model.norm.weight: row 3")
MISSING = Finding("no_audit", "", (1,), 0, "ranks [1] left no audit")
INCOMPLETE = Coverage(85, 1000, 936, (FINDING,))
COMPLETE = Coverage(85, 1000, 1000, ())
OTHER = Coverage(85, 1000, 936, (ELSEWHERE,))
UNPROVEN = Coverage(85, 1000, 0, (MISSING,))


SAID = {
    "load": "ValueError: Failed to find a kernel that can implement the WNA16 linear layer",
    "first_request": "Check failed: group_size % 2 == 0 (1 vs. 0).",
}


def running(
    at: Cell, held: Coverage, refused: str | None = None, reason: str | None = None
) -> Running:
    """A cell that answers, or was refused, with this coverage."""
    stage: Any = refused
    outcome: Any = None
    if refused:
        outcome = Refused(
            stage=stage,
            reason=reason or SAID[refused],
            log_tail="",
            log=Path("x.log"),
            after_s=1.0,
        )
    made = Running(at, outcome, model=Path(), audits=Path(), log=Path("x.log"))
    made.__dict__.update(coverage=held, audits=[])
    return made


SERVING, SILENT, DYING, REFUSED = (
    cell("padded", 1024, 2),
    cell("original", 896, 4),
    cell("original", 896, 2),
    cell("original", 896, 8),
)


@pytest.mark.parametrize(
    ("made", "outcome"),
    [
        (running(SERVING, COMPLETE), "passed"),
        (running(SILENT, INCOMPLETE), "refused_as_planned"),
        (running(DYING, INCOMPLETE, "first_request"), "refused_as_planned"),
        (running(REFUSED, INCOMPLETE, "load"), "refused_as_planned"),
    ],
)
def test_what_happens_as_planned_is_no_failure(made: Running, outcome: str) -> None:
    record = Recorder()
    expect_stage(record, made)
    assert record.outcomes() == {"sharding/stage": outcome}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (running(SERVING, COMPLETE, "load"), "planned to serve, observed that it fails (load)"),
        (running(SERVING, INCOMPLETE), "planned to serve, observed that it fails (silent)"),
        (running(SILENT, COMPLETE), "planned to fail (silent), observed that it serves"),
        (running(REFUSED, COMPLETE), "planned to fail (load), observed that it serves"),
        (running(DYING, COMPLETE, "load"), "planned to fail (first_request), observed that it"),
        (running(SILENT, UNPROVEN), "planned to fail (silent), observed that it serves"),
        (
            running(REFUSED, COMPLETE, "load", "its log has been silent for 300 s"),
            "but not for the planned reason: its log has been silent for 300 s",
        ),
        (
            running(DYING, COMPLETE, "first_request", "Worker died (exit code: -9)"),
            "but not for the planned reason",
        ),
    ],
)
def test_what_does_not_happen_as_planned_is_a_failure(made: Running, says: str) -> None:
    record = Recorder()
    with pytest.raises(pytest.fail.Exception) as failure:
        expect_stage(record, made)
    assert says in str(failure.value)
    assert record.outcomes() == {"sharding/stage": "failed"}


def test_an_element_that_is_missing_is_a_failure_where_the_plan_serves() -> None:
    record = Recorder()
    with pytest.raises(pytest.fail.Exception, match=r"down_proj\.scales: row 6 of 7"):
        expect_shards(record, running(SERVING, INCOMPLETE))
    assert record.rows[0].value == 0.936


def test_a_load_without_a_record_proves_nothing_and_is_invalid() -> None:
    for at in (SERVING, SILENT):
        record = Recorder()
        with pytest.raises(pytest.fail.Exception, match="no proof of what the ranks hold"):
            expect_shards(record, running(at, UNPROVEN))
        assert record.outcomes() == {"sharding/elements": "invalid"}


def test_rows_lost_elsewhere_are_not_the_planned_loss() -> None:
    record = Recorder()
    with pytest.raises(pytest.fail.Exception, match="loses rows, and it does not"):
        expect_shards(record, running(SILENT, OTHER))


def test_nothing_missing_is_a_failure_where_the_plan_says_it_must_be() -> None:
    record = Recorder()
    with pytest.raises(pytest.fail.Exception, match="loses rows, and it does not"):
        expect_shards(record, running(SILENT, COMPLETE))


def task_row(flips: Flips, limit: float | None = 0.05) -> Row:
    record = Recorder()
    expect_task(Rows(record, "padded-tp2"), "text", flips, limit)
    return record.rows[-1]


TASKS: list[tuple[Flips, str]] = [
    (Flips(items=150, right_before=140, lost=0, won=0), "passed"),
    (Flips(items=150, right_before=140, lost=2, won=0), "inconclusive"),
    (Flips(items=150, right_before=140, lost=40, won=0), "failed"),
    (Flips(items=150, right_before=140, lost=40, won=40), "failed"),  # won ones help nobody
    (Flips(items=90, right_before=90, lost=0, won=0), "passed"),
    (Flips(items=90, right_before=89, lost=0, won=0), "not_run"),  # too few to exclude 5 %
    (Flips(items=60, right_before=60, lost=30, won=0), "failed"),  # though enough to show it
    (Flips(items=150, right_before=0, lost=0, won=3), "not_run"),
]


@pytest.mark.parametrize(("flips", "outcome"), TASKS)
def test_of_right_answers_a_share_may_be_lost(flips: Flips, outcome: str) -> None:
    row = task_row(flips)
    assert row.outcome == outcome
    assert row.n == (None if outcome == "not_run" else flips.right_before)


def test_how_many_answers_would_decide_is_said() -> None:
    row = task_row(Flips(items=150, right_before=140, lost=2, won=0))
    assert "To show that 2 lost are no more than 5% takes 165 right answers" in str(row.reason)
    assert row.detectable == Flips(150, 140, 2, 0).detectable(0.05)
    assert task_row(Flips(150, 140, 2, 0), None).detectable is None


def test_a_task_s_row_counts_both_ways() -> None:
    row = task_row(Flips(items=150, right_before=140, lost=9, won=1))
    assert "140 of 150 right on the reference, 132 here; 9 lost, 1 won" in str(row.reason)
    assert "McNemar p = 0.021" in str(row.reason)
    assert task_row(Flips(150, 140, 40, 0), None).outcome == "passed"
