"""Domain assertions: each records its rows first, then fails with all that is wrong in them.

An expectation never stops at the first bad number: the report gets every row, and the message of a
red test names claim, observed value with its interval, limit, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import pytest

from fixtures.matrix import Cell
from fixtures.running import Running
from reports.record import Outcome, RecordRow, Row
from reports.statistics import Interval, cluster_bootstrap, verdict_lower, verdict_upper
from suites.numerics import DEFINITIONS, Differences

CONFIDENCE = 0.98  # two-sided: each bound is a one-sided 99 % bound
SEED = 20
RESAMPLES = 2000


class Ask(Protocol):
    """What a row's numbers are judged by."""

    def __call__(self, interval: Interval, limit: float) -> Outcome: ...


@dataclass(slots=True)
class Rows:
    """Rows of one test: recorded as they come, judged together at the end."""

    record: RecordRow
    cell: str
    bad: list[str] = field(default_factory=list)

    def add(
        self,
        claim: str,
        outcome: Outcome,
        *,
        advice: str = "",
        reason: str | None = None,
        **fields: Any,
    ) -> Row:
        """Record one row; remember it if it is not what a release may carry."""
        bad = outcome in ("failed", "inconclusive", "invalid")
        text = reason
        if bad and advice:
            text = f"{reason.rstrip('.')}. {advice}" if reason else advice
        row = self.record(cell=self.cell, claim=claim, outcome=outcome, reason=text, **fields)
        if bad:
            self.bad.append(sentence(row))
        return row

    def settle(self) -> None:
        """Fail with every bad row, each on its own line."""
        if self.bad:
            pytest.fail("\n".join(self.bad), pytrace=False)


def sentence(row: Row) -> str:
    """A row in words: cell, claim, observed, limit, why."""
    text = f"{row.cell} {row.claim} {row.outcome}"
    if row.value is not None:
        text += f": observed {row.value:.4g}{_unit(row)}"
        if row.low is not None and row.high is not None:
            text += f" [{row.low:.4g}, {row.high:.4g}]"
        if row.n is not None:
            text += f", n={row.n}"
    if row.limit is not None:
        text += f", limit {row.limit:.4g}"
    return f"{text}: {row.reason}" if row.reason else text


def _unit(row: Row) -> str:
    return f" {row.unit}" if row.unit and row.unit != "1" else ""


# ------------------------------------------------------------------ sharding


def expect_stage(record: RecordRow, running: Running) -> None:
    """The engine does what the plan says, in both directions: serves, or fails at that stage."""
    rows = Rows(record, running.cell.id)
    planned, observed = running.cell.plan.failure_class, running.observed
    seen = running.reason or "it answers, and its ranks hold the whole checkpoint"
    summary = running.cell.plan.summary(running.cell.variant)
    if planned == observed:
        outcome: Outcome = "passed" if planned is None else "refused_as_planned"
        rows.add("sharding/stage", outcome, reason=f"{summary}. Observed: {seen}")
    else:
        was = "serves" if observed is None else f"fails ({observed})"
        to_be = "to serve" if planned is None else f"to fail ({planned})"
        reason = f"planned {to_be}, observed that it {was}: {seen}"
        advice = (
            f"Read {running.log}"
            if planned is None
            else "The planner's rule for this engine is out of date, or the checkpoint's headers "
            "disagree with its config: `python -m fixtures.planner DIR` shows the rule"
        )
        rows.add("sharding/stage", "failed", reason=reason, advice=advice)
    rows.settle()


def expect_shards(record: RecordRow, running: Running) -> None:
    """Every element of every tensor is held as planned; where rows are planned lost, they are."""
    rows = Rows(record, running.cell.id)
    found = running.coverage
    share = found.elements_held_as_planned / found.elements
    fields: dict[str, Any] = {
        "value": share,
        "unit": "1",
        "n": found.tensors,
        "limit": 1.0,
        "better": "exact",
        "definition": "share of checkpoint elements held by as many ranks as planned; v1",
    }
    loses = running.cell.plan.failure_class in ("silent", "first_request")
    if loses and not found.complete:
        rows.add("sharding/elements", "refused_as_planned", reason=found.summary(), **fields)
    elif loses:
        reason = "the plan says rows are lost, and every element is held"
        rows.add("sharding/elements", "failed", reason=reason, **fields)
    else:
        outcome: Outcome = "passed" if found.complete else "failed"
        advice = "The ranks do not hold this checkpoint: its answers are not to be trusted"
        rows.add("sharding/elements", outcome, reason=found.summary(), advice=advice, **fields)
    for audit in running.audits:
        rows.add(
            f"sharding/weight_bytes_rank{audit.rank}",
            "passed",
            value=float(audit.nbytes),
            unit="byte",
            n=len(audit.parameters),
            better="exact",
            definition="bytes of this rank's parameters after loading; v1",
        )
    rows.settle()


# ------------------------------------------------------------------ numerics

Metric = Literal["mean_d", "rms_d", "max_abs_d", "mean_kl", "same_top"]


def _metric(name: Metric, documents: Sequence[Differences]) -> Interval:
    """One metric over documents, its interval from resampling whole documents."""
    if name == "max_abs_d":  # no resample exceeds the largest seen: the value stands for itself
        largest = max(float(np.abs(document.d).max()) for document in documents)
        return Interval(largest, largest, largest, len(documents))
    parts = {
        "mean_d": [document.d for document in documents],
        "rms_d": [document.d**2 for document in documents],
        "mean_kl": [document.kl for document in documents],
        "same_top": [document.same_top for document in documents],
    }[name]
    mean = cluster_bootstrap(parts, np.mean, confidence=CONFIDENCE, seed=SEED, resamples=RESAMPLES)
    if name != "rms_d":
        return mean
    low = None if mean.low is None else float(np.sqrt(mean.low))
    high = None if mean.high is None else float(np.sqrt(mean.high))
    return Interval(float(np.sqrt(mean.value)), low, high, mean.n)


def _within(interval: Interval, limit: float) -> Outcome:
    """Is |value| shown to be at most the limit?"""
    if interval.low is None or interval.high is None:
        return "inconclusive"
    if -limit <= interval.low and interval.high <= limit:
        return "passed"
    return "failed" if interval.low > limit or interval.high < -limit else "inconclusive"


def expect_close(
    record: RecordRow,
    cell: Cell,
    strata: Mapping[str, Sequence[Differences]],
    limits: Mapping[Metric, float],
    *,
    against: str,
    prefix: str = "numerics",
    floor: float | None = None,
) -> None:
    """Every stratum's metrics within their limits; `floor` is what RMS d must *exceed*."""
    rows = Rows(record, cell.id)
    judges: dict[Metric, Ask] = {
        "mean_d": _within,
        "rms_d": verdict_upper,
        "max_abs_d": verdict_upper,
        "mean_kl": verdict_upper,
        "same_top": verdict_lower,
    }
    for stratum, documents in strata.items():
        for metric, judge in judges.items():
            interval = _metric(metric, documents)
            limit = limits.get(metric)
            outcome: Outcome = "passed" if limit is None else judge(interval, limit)
            rows.add(
                f"{prefix}/{stratum}/{metric}",
                outcome,
                value=interval.value,
                low=interval.low,
                high=interval.high,
                n=interval.n,
                unit="1" if metric == "same_top" else "nat",
                limit=limit,
                better="higher" if metric == "same_top" else None if floor else "lower",
                definition=f"{DEFINITIONS[metric]}; against {against}",
                advice=_far(outcome, against),
            )
        if floor is not None:
            interval = _metric("rms_d", documents)
            rows.add(
                f"{prefix}/{stratum}/told_apart",
                verdict_lower(interval, floor),
                value=interval.value,
                low=interval.low,
                high=interval.high,
                n=interval.n,
                unit="nat",
                limit=floor,
                definition=f"{DEFINITIONS['rms_d']}; against {against}; must exceed the limit",
                advice="A changed checkpoint that cannot be told apart means this comparison is "
                "blind, or the variant is the original under another name",
            )
    rows.settle()


def _far(outcome: Outcome, against: str) -> str:
    if outcome == "inconclusive":
        return "The interval straddles the limit: more documents would decide (--corpus, or rerun)"
    return (
        f"The answers differ from those of {against}. If sharding passed on this cell, the weights "
        "were changed: `python -m fixtures.variants verify DIR`; if not, start there"
    )


def expect_caught(
    record: RecordRow,
    cell: Cell,
    strata: Mapping[str, Sequence[Differences]],
    limit: float,
    *,
    against: str,
) -> None:
    """A cell planned to answer wrongly is shown to: its RMS d is beyond a good cell's limit."""
    rows = Rows(record, cell.id)
    for stratum, documents in strata.items():
        interval = _metric("rms_d", documents)
        rows.add(
            f"numerics/{stratum}/caught",
            verdict_lower(interval, limit),
            value=interval.value,
            low=interval.low,
            high=interval.high,
            n=interval.n,
            unit="nat",
            limit=limit,
            reason="planned to answer wrongly; the difference must exceed the limit of a good cell",
            definition=f"{DEFINITIONS['rms_d']}; against {against}; must exceed the limit",
        )
    rows.settle()


# ------------------------------------------------------- latency, throughput


def expect_within(
    rows: Rows,
    claim: str,
    interval: Interval,
    limit: float | None,
    *,
    unit: str,
    definition: str,
    floor: bool = False,
    advice: str = "",
) -> None:
    """One measured number against a ceiling or a floor; without a budget it is only recorded."""
    judge = verdict_lower if floor else verdict_upper
    outcome: Outcome = "passed" if limit is None else judge(interval, limit)
    if outcome == "inconclusive" and limit is not None:
        advice = "The interval straddles the budget: more requests would decide"
    rows.add(
        claim,
        outcome,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        n=interval.n,
        unit=unit,
        limit=limit,
        better="higher" if floor else "lower",
        definition=definition,
        reason=None if limit is not None else "recorded; deployments.toml sets no budget for it",
        advice=advice,
    )
