"""`pytest --repeats R`: cells restarted in turns, and their speeds compared pair by pair."""

from __future__ import annotations

import pytest

from fixtures.deployment import PlatformSettings
from fixtures.matrix import Cell
from reports.paired import margin_of
from reports.record import Outcome, RecordRow
from reports.statistics import Interval, verdict_lower, verdict_upper
from suites.expect import RECORDED, Rows
from suites.repeats import DIRECTIONS, Repeated
from suites.times import AGAIN

pytestmark = pytest.mark.repeats

DEFINITION = (
    "ratio to {} of the same round, geometric mean over pairs of server starts, Student's 95 % "
    "interval of the log-ratio; detectable at two-sided 5 % with power 0.9; {}; v1"
)
WHAT = {
    "ttft_p50": "median TTFT of the probe",
    "tpot_p50": "median TPOT of the probe",
    "e2e_p50": "median end-to-end time of the probe",
    "output_tokens_per_s": "output rate of the best closed loop",
}


def test_repeats(
    cell: Cell,
    runnable: Cell,
    repeated: Repeated | str,
    cell_settings: PlatformSettings,
    record: RecordRow,
) -> None:
    """Ratios to the first cell, with the smallest change that so many pairs would have shown."""
    if runnable.plan.failure_class is not None:
        pytest.skip(f"{cell.id} is planned to fail: its speed is of no use")
    if isinstance(repeated, str):
        pytest.fail(repeated, pytrace=False)
    if cell.id == repeated.reference:
        pytest.skip(f"{cell.id} is what the others are compared with")
    rows = Rows(record, cell.id)
    ratios = {figure: repeated.ratio(cell.id, figure) for figure in DIRECTIONS}
    told = repeated.judged({figure: margin_of(figure) or 0.0 for figure in DIRECTIONS})
    limits = _limits(cell, cell_settings)
    for figure, ratio in ratios.items():
        claim, limit = f"repeats/{figure}_ratio", limits.get(figure)
        if ratio is None:
            rows.add(claim, "failed", reason="no round has this of both cells: requests failed")
            continue
        higher = DIRECTIONS[figure] == "higher"
        interval = Interval(ratio.value, ratio.low, ratio.high, ratio.n)
        outcome: Outcome = "passed"
        if limit is not None:
            outcome = (verdict_lower if higher else verdict_upper)(interval, limit)
        reason = f"{told[cell.id, figure].verdict}: {told[cell.id, figure].told}" + (
            "" if limit else f"; {RECORDED}"
        )
        if again := sum(repeated.again.get(one, 0) for one in (cell.id, repeated.reference)):
            reason += f"; blocks measured again, since the machine disturbed them: {again}"
        advice = "Beyond the ratio in deployments.toml" if outcome == "failed" else ""
        if doubts := repeated.doubts.get(cell.id, []) + repeated.doubts.get(repeated.reference, []):
            outcome, reason, advice = "invalid", doubts[0], AGAIN
        rows.add(
            claim,
            outcome,
            value=ratio.value,
            low=ratio.low,
            high=ratio.high,
            n=ratio.n,
            limit=limit,
            detectable=ratio.detectable(),
            unit="1",
            better="higher" if higher else "lower",
            reason=reason,
            advice=advice,
            definition=DEFINITION.format(repeated.reference, WHAT[figure]),
        )
    rows.settle()


def _limits(cell: Cell, settings: PlatformSettings) -> dict[str, float]:
    """The ratio budgets of the deployment, which are of the same figures."""
    found = {
        "ttft_p50": settings.latency.ratio("ttft", cell.ranks),
        "tpot_p50": settings.latency.ratio("tpot", cell.ranks),
        "e2e_p50": settings.latency.ratio("e2e", cell.ranks),
        "output_tokens_per_s": settings.throughput.output_tokens_ratio.get(cell.ranks),
    }
    return {figure: limit for figure, limit in found.items() if limit is not None}
