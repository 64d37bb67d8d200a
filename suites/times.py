"""Rows of a block of requests: percentiles against their budgets, rates, failures by kind.

A failed request is a miss of every percentile. A block whose clock is in doubt is invalid in every
one of its times and rates, whatever they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from fixtures.budgets import METRICS, Metric, TimeBudgets, quantile
from fixtures.load.metrics import means
from fixtures.load.streams import KINDS, TAKE, Load, failures_by_kind
from fixtures.running import cause_in
from reports.percentiles import Percentile, judge, percentile
from reports.record import Outcome
from reports.statistics import Interval, ratio_interval, verdict_upper
from suites.expect import RECORDED, Rows
from suites.measure import Block

DEFINITIONS: Final[Mapping[Metric, str]] = {
    "ttft": "send to the first non-empty content; s; v1",
    "tpot": "(last content - first content) / (completion tokens - 1); s; v1",
    "e2e": "due moment to the last content; s; v2",
}
# vLLM's benchmark stamps messages, whatever is in them: a chat's first one is its role, and empty.
BENCH_TTFT: Final = "send to the first message with choices; s; v1"
OUTPUT_RATE: Final = "completion tokens of answered requests over the loop's wall time; token/s; v2"
REQUEST_RATE: Final = "answered requests over the loop's wall time; 1/s; v1"
AGAIN: Final = "Times of this block say nothing about the engine: measure again"


def samples(load: Load, metric: Metric) -> list[float]:
    """The metric of every request that was answered, in seconds."""
    taken = (TAKE[metric](stream) for stream in load.answered)
    return [value for value in taken if value is not None]


def definition(metric: Metric, block: Block) -> str:
    """What a time means as this block's instrument takes it."""
    if metric == "ttft" and block.instrument != "probe":
        return f"{BENCH_TTFT}; {block.instrument}"
    return f"{DEFINITIONS[metric]}; {block.instrument}"


def expect_times(rows: Rows, prefix: str, block: Block, budgets: TimeBudgets | None) -> None:
    """Medians, and every percentile with a budget; without one they are only recorded."""
    for metric in METRICS:
        limits: dict[str, float | None] = {"p50": None}
        if budgets is not None:
            limits |= budgets.limits(metric)
        confidence = 0.95 if budgets is None else budgets.confidence
        for name, limit in limits.items():
            _expect_percentile(rows, f"{prefix}/{metric}_{name}", block, metric, name, limit,
                               confidence)  # fmt: skip


def _expect_percentile(
    rows: Rows,
    claim: str,
    block: Block,
    metric: Metric,
    name: str,
    limit: float | None,
    confidence: float,
) -> None:
    values, failed = samples(block.load, metric), len(block.load.failures)
    if not values and limit is None:
        rows.add(claim, "not_run", reason="no request was answered, so there is no time")
        return
    q = quantile(name)
    judged = None if limit is None else judge(values, failed, limit, q, confidence)
    found = percentile(values, failed, q, confidence) if judged is None else judged.percentile
    outcome: Outcome = "passed"
    reason: str = RECORDED
    advice = ""
    if found.value is None:
        reason = f"{name} is among the {failed} of {found.n} requests that failed"
    if judged is not None:
        outcome, reason = judged.verdict, judged.told
        if outcome == "failed":
            advice = "Slower than the budget in deployments.toml"
    _add(rows, claim, outcome, found, limit, block, None, reason, advice, unit="s", better="lower",
         definition=f"{definition(metric, block)}; {name}, failed requests last")  # fmt: skip


def expect_ratio(
    rows: Rows,
    claim: str,
    metric: Metric,
    block: Block,
    base: Block | None,
    limit: float | None,
    *,
    what: str,
) -> None:
    """A median over that of another block of the same run."""
    values = samples(block.load, metric)
    over = [] if base is None else samples(base.load, metric)
    if not values or not over:
        if limit is not None:
            rows.add(claim, "failed", reason="one of the two was not measured: there is no ratio")
        return
    found = ratio_interval(values, over)
    outcome: Outcome = "passed" if limit is None else verdict_upper(found, limit)
    reason: str | None = RECORDED if limit is None else None
    advice = ""
    if outcome == "failed":
        advice = "Slower than the ratio in deployments.toml allows"
    elif outcome == "inconclusive":
        advice = "The interval straddles the budget: more requests would decide"
    _add(rows, claim, outcome, found, limit, block, base, reason, advice, unit="1", better="lower",
         definition=f"{DEFINITIONS[metric]}; {what}")  # fmt: skip


def _doubted(block: Block, base: Block | None) -> str | None:
    """The doubts of a block and of what it is over: a ratio is as good as the worse of the two."""
    over = None if base is None or base.doubt is None else f"what it is over: {base.doubt}"
    return "; ".join(filter(None, (block.doubt, over))) or None


def _over(reason: str | None, base: Block | None) -> str | None:
    """What there is to say, and whether the block that a ratio is over was measured again."""
    again = None if base is None or base.again is None else f"what it is over was {base.again}"
    return "; ".join(filter(None, (reason, again))) or None


def expect_floor(
    rows: Rows,
    claim: str,
    block: Block,
    value: float | None,
    limit: float | None,
    *,
    unit: str,
    what: str,
    base: Block | None = None,
) -> None:
    """A rate against its floor, or its ratio to that of `base`. One loop is one sample: it has no
    interval, and is judged as it stands; `--repeats` gives it one."""
    if value is None:
        silent = "no request was answered, so there is no rate"
        rows.add(claim, "not_run" if limit is None else "failed", reason=silent)
        return
    outcome: Outcome = "passed" if limit is None or value >= limit else "failed"
    reason: str | None = RECORDED if limit is None else None
    advice = "Below the floor in deployments.toml" if outcome == "failed" else ""
    alone = Interval(value, None, None, 1)
    _add(rows, claim, outcome, alone, limit, block, base, reason, advice, unit=unit,
         better="higher", definition=f"{what}; {block.instrument}")  # fmt: skip


def _add(
    rows: Rows,
    claim: str,
    outcome: Outcome,
    found: Interval | Percentile,
    limit: float | None,
    block: Block,
    base: Block | None,
    reason: str | None,
    advice: str,
    **fields: Any,
) -> None:
    """A figure of a block, or of its ratio to `base`; invalid where either is in doubt."""
    reason = _over(reason, base)
    if doubt := _doubted(block, base):
        outcome, reason, advice = "invalid", doubt, AGAIN
    rows.add(
        claim,
        outcome,
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        limit=limit,
        reason=reason,
        advice=advice,
        **fields,
    )


def expect_agreement(rows: Rows, claim: str, block: Block) -> None:
    """Client and server tell the same block; where not, its times are invalid, and so is this."""
    if block.told is None:
        reason = f"no second opinion on these times: {block.untold}"
        rows.add(claim, "not_run", reason=_noted(reason, block))
        return
    if block.load.failures:
        reason = "requests failed: which of them the server counts is its own business"
        rows.add(claim, "not_run", reason=_noted(reason, block))
        return
    found = means(block.told, block.load)
    said = [
        f"mean {metric} {ours * 1000:.4g} ms by the client, {theirs * 1000:.4g} by the server"
        for metric, (ours, theirs) in found.items()
    ]
    ours, theirs = found.get("ttft", (None, None))
    rows.add(
        claim,
        "invalid" if block.disagreements else "passed",
        value=None if ours is None or theirs is None else ours - theirs,
        unit="s",
        n=len(block.load.answered),
        better="lower",
        reason=_noted("; ".join(block.disagreements or said), block),
        advice=AGAIN if block.disagreements else "",
        definition="mean TTFT by the client less by the server's own histogram; s; v1",
    )


def _noted(reason: str, block: Block) -> str:
    return "; ".join([reason, *block.notes, *([block.again] if block.again else [])])


def expect_answered(rows: Rows, claim: str, load: Load, log: Path) -> None:
    """Every request got a whole answer in time; those that did not are told by kind."""
    failed = load.failures
    told = [
        f"{count} {kind} ({KINDS[kind]})" for kind, count in failures_by_kind(load.streams).items()
    ]
    first = f"{'; '.join(told)}. First: {failed[0].error}" if failed else None
    rows.add(
        claim,
        "failed" if failed else "passed",
        value=float(len(failed)),
        unit="request",
        n=len(load.streams),
        limit=0.0,
        better="lower",
        definition="requests without a complete answer before the deadline; v2",
        reason=first,
        advice=cause_in(log) if failed else "",
    )
