"""Domain assertions: each records its rows first, then fails with all that is wrong in them.

An expectation never stops at the first bad number: the report gets every row, and the message of a
red test names claim, observed value with its interval, limit, and what to do about it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fixtures.capacity import SPACE_VARIABLE, Unpredicted, capacity
from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.coverage import Coverage
from fixtures.deployment import PlatformSettings
from fixtures.running import Running, cause_in
from fixtures.serving.client import Stream
from reports.equivalence import Flips
from reports.record import Outcome, RecordRow, Row
from reports.statistics import Interval, verdict_lower, verdict_upper
from suites.lanes import Limits, Strata, estimate, judged
from suites.numerics import DEFINITIONS, Differences

RECORDED = "recorded; deployments.toml sets no limit for it"
UNJUDGED = "measured, and not judged: deployments.toml sets no limit for this comparison"


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

    def add_measured(
        self, claim: str, outcome: Outcome, interval: Interval, limit: float | None, **fields: Any
    ) -> None:
        """Record a number with its interval; without a limit it says that it is only recorded."""
        if limit is None:
            fields["reason"] = RECORDED
        fields |= {"value": interval.value, "low": interval.low, "high": interval.high}
        self.add(claim, outcome, limit=limit, n=interval.n, **fields)

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
    """The engine does what the plan says: it serves, or fails at that stage for that reason."""
    rows = Rows(record, running.cell.id)
    plan, observed = running.cell.plan, running.observed
    planned = plan.failure_class
    seen = running.reason or "it answers, and nothing it holds differs from the plan"
    summary = plan.summary(running.cell.variant)
    if planned != observed:
        was = "serves" if observed is None else f"fails ({observed})"
        to_be = "to serve" if planned is None else f"to fail ({planned})"
        advice = (
            f"Read {running.log}"
            if planned is None
            else "The planner's rule for this engine is out of date, or the checkpoint's headers "
            "disagree with its config: `python -m fixtures.planner DIR` shows the rule"
        )
        reason = f"planned {to_be}, observed that it {was}: {seen}"
        rows.add("sharding/stage", "failed", reason=reason, advice=advice)
    elif planned in (None, "silent") or any(
        re.search(obstacle.says, seen)
        for obstacle in plan.obstacles
        if plan.fails_at(obstacle) == planned
    ):
        outcome: Outcome = "passed" if planned is None else "refused_as_planned"
        rows.add("sharding/stage", outcome, reason=f"{summary.rstrip('.')}. Observed: {seen}")
    else:
        reason = (
            f"it fails at the planned stage ({planned}), but not for the planned reason: {seen}"
        )
        advice = f"Planned was that {summary.rstrip('.')}. Read {running.log}"
        rows.add("sharding/stage", "failed", reason=reason, advice=advice)
    rows.settle()


def expect_shards(record: RecordRow, running: Running) -> None:
    """Every element of every tensor is held as planned; where rows are planned lost, they are."""
    rows = Rows(record, running.cell.id)
    found = running.coverage
    fields: dict[str, Any] = {
        "value": found.elements_held_as_planned / found.elements if found.proven else None,
        "unit": "1",
        "n": found.tensors,
        "limit": 1.0,
        "better": "exact",
        "definition": "share of checkpoint elements held by as many ranks as planned; v1",
    }
    plan = running.cell.plan
    lossy = [o.layer for o in plan.obstacles if o.failure_class in ("silent", "first_request")]
    outcome: Outcome
    reason, advice = found.summary(), ""
    if not found.proven:
        outcome = "invalid"
        advice = f"The recorder did not run in every worker: read {running.log}"
    elif lossy:
        whole = [layer for layer in lossy if not _loses_rows_of(layer, found)]
        outcome = "failed" if whole else "refused_as_planned"
        if whole:
            reason = f"the plan says {whole[0]} loses rows, and it does not: {reason}"
    else:
        outcome = "passed" if found.complete else "failed"
        advice = "The ranks do not hold this checkpoint: its answers are not to be trusted"
    rows.add("sharding/elements", outcome, reason=reason, advice=advice, **fields)
    for audit in running.audits:
        rows.add(
            f"sharding/weight_bytes_rank{audit.rank}",
            "passed",
            value=float(audit.nbytes),
            unit="byte",
            n=len(audit.parameters),
            better="exact",
            reason=RECORDED,
            definition="bytes of this rank's parameters after loading; v1",
        )
    rows.settle()


def _loses_rows_of(layer: str, found: Coverage) -> bool:
    """Did the layer the plan names lose rows? It is known by what follows its index."""
    module = layer.rpartition("*")[2]
    dropped = (finding.tensor for finding in found.findings if finding.kind == "dropped")
    return any(f"{module}." in tensor for tensor in dropped)


def expect_capacity(record: RecordRow, running: Running, settings: PlatformSettings) -> None:
    """The engine's own count of the tokens it has room for is the planner's, within 1 %."""
    cell = running.cell
    rows = Rows(record, cell.id)
    model = read_checkpoint(running.model).config
    found = capacity(running.log.read_text(errors="replace"), model, cell.plan, settings)
    if isinstance(found, Unpredicted):
        pytest.skip(found.reason)
    if found is None and running.observed == "warmup":
        pytest.skip(f"{cell.id} was refused before it counted its cache")
    if found is None:
        reason = "the engine came so far without a line that tells its capacity"
        rows.add("sharding/capacity", "invalid", reason=reason, advice=f"Read {running.log}")
        rows.settle()
        return
    memory = {"cpu": SPACE_VARIABLE, "cuda": "the memory its log says is available for it"}
    rows.add(
        "sharding/capacity",
        "passed" if abs(found.ratio - 1) <= found.tolerance else "failed",
        value=found.ratio,
        unit="1",
        n=1,
        limit=1.0,
        better="exact" if cell.plan.platform == "cpu" else None,
        reason=f"room for {found.observed:,} tokens; {found.arithmetic} make {found.predicted:,}",
        definition="tokens the engine says its KV cache has room for, over those that "
        f"{memory[cell.plan.platform]} has room for by the model's shapes; within 1 %; v1",
        advice="The planner's arithmetic is not this engine's: do not size a deployment by it",
    )
    rows.settle()


# ------------------------------------------------------------------ numerics


def expect_close(
    record: RecordRow,
    cell: str,
    lane: str,
    strata: Strata,
    limits: Limits,
    *,
    against: str,
    flip_margin: float,
    floor: float | None = None,
) -> None:
    """Every stratum's metrics within their limits; `floor` is what RMS d must *exceed*. A
    comparison without any limit passes nothing: its numbers are there, and the claim is not run."""
    rows = Rows(record, cell)
    unjudged = not limits and floor is None
    for one in judged(strata, limits, flip_margin=flip_margin):
        reason = RECORDED if one.limit is None and one.note is None else None
        rows.add(
            f"numerics/{lane}/{one.stratum}/{one.metric}",
            "not_run" if unjudged else one.outcome,
            value=one.value,
            low=one.low,
            high=one.high,
            n=one.n,
            limit=one.limit,
            detectable=one.detectable,
            unit=one.unit,
            better="higher" if one.metric == "same_top" else None if floor else "lower",
            definition=f"{one.definition}; against {against}",
            reason="; ".join(filter(None, (UNJUDGED if unjudged else reason, one.note))) or None,
            advice=_far(one.outcome, against),
        )
    if floor is not None:
        for stratum, documents in strata.items():
            _expect_apart(
                rows,
                f"numerics/{lane}/{stratum}/told_apart",
                documents,
                floor,
                against,
                advice="A changed checkpoint that cannot be told apart means this comparison is "
                "blind, or the variant is the original under another name",
            )
    rows.settle()


def _far(outcome: Outcome, against: str) -> str:
    if outcome == "inconclusive":
        return "The interval straddles the limit: more documents would decide (`--corpus full`)"
    return (
        f"The answers differ from those of {against}. If sharding passed on this cell, the weights "
        "were changed: `python -m fixtures.variants verify DIR`; if not, start there"
    )


def _expect_apart(
    rows: Rows,
    claim: str,
    documents: Sequence[Differences],
    limit: float,
    against: str,
    *,
    reason: str | None = None,
    advice: str = "",
) -> None:
    found = estimate(documents, "rms_d")
    rows.add_measured(
        claim,
        verdict_lower(found.interval, limit),
        found.interval,
        limit,
        unit="nat",
        definition=f"{DEFINITIONS['rms_d']}; against {against}; must exceed the limit",
        reason=reason,
        advice=advice,
    )


def expect_task(rows: Rows, stratum: str, flips: Flips, limit: float | None) -> None:
    """Of the answers that were right, at most a share `limit` is lost."""
    found = flips.loss() if flips.right_before else None
    needed = Flips.needed(limit) if limit is not None else 1
    if found is None or (
        limit is not None
        and flips.right_before < needed
        and verdict_upper(found, limit) != "failed"
    ):
        reason = (
            f"the reference answers {flips.right_before} of {flips.items} rightly: to show how "
            f"many of them are lost takes {needed}"
        )
        rows.add(f"numerics/task/{stratum}/loss", "not_run", reason=reason)
        return
    after = flips.right_before - flips.lost + flips.won
    outcome = "passed" if limit is None else verdict_upper(found, limit)
    advice = "Answers changed that a user would notice: see the lanes above for where"
    if limit is not None and outcome == "inconclusive":
        advice = (
            f"To show that {flips.lost} lost are no more than {limit:.0%} takes "
            f"{Flips.needed(limit, flips.lost)} right answers (suites/answers.py): "
            "see the lanes above for where they changed"
        )
    rows.add(
        f"numerics/task/{stratum}/loss",
        outcome,
        value=found.value,
        low=found.low,
        high=found.high,
        n=found.n,
        limit=limit,
        detectable=None if limit is None else flips.detectable(limit),
        unit="1",
        better="lower",
        reason=f"{flips.right_before} of {flips.items} right on the reference, {after} here; "
        f"{flips.lost} lost, {flips.won} won (McNemar p = {flips.p_value:.2g})"
        + ("" if limit is not None else f"; {RECORDED}"),
        definition="share of the reference's right answers that are wrong here; exact interval, "
        "one-sided 1 %; v1",
        advice=advice,
    )


def expect_caught(
    record: RecordRow, cell: str, strata: Strata, limit: float, *, against: str
) -> None:
    """A cell planned to answer wrongly is shown to: its RMS d is beyond a good cell's limit."""
    rows = Rows(record, cell)
    for stratum, documents in strata.items():
        _expect_apart(
            rows,
            f"numerics/control/{stratum}/caught",
            documents,
            limit,
            against,
            reason="planned to answer wrongly; the difference must exceed the limit of a good cell",
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
    """One measured number against a ceiling or a floor; without a budget it is only recorded.

    A single sample (n = 1) has no interval, and is judged as it stands.
    """
    outcome: Outcome
    if limit is None:
        outcome = "passed"
    elif interval.n == 1:
        met = interval.value >= limit if floor else interval.value <= limit
        outcome = "passed" if met else "failed"
    else:
        outcome = (verdict_lower if floor else verdict_upper)(interval, limit)
    if outcome == "inconclusive":
        advice = "The interval straddles the budget: more requests would decide"
    rows.add_measured(
        claim,
        outcome,
        interval,
        limit,
        unit=unit,
        better="higher" if floor else "lower",
        definition=definition,
        advice=advice,
    )


def expect_answered(rows: Rows, claim: str, streams: Sequence[Stream], log: Path) -> None:
    """Every request got a whole answer in time; the first that did not says why."""
    failed = [stream for stream in streams if stream.error is not None]
    rows.add(
        claim,
        "failed" if failed else "passed",
        value=float(len(failed)),
        unit="request",
        n=len(streams),
        limit=0.0,
        better="lower",
        definition="requests without a complete answer before the deadline; v1",
        reason=failed[0].error if failed else None,
        advice=cause_in(log) if failed else "",
    )


def expect_baseline(rows: Rows, claim: str, limit: float | None) -> None:
    """A ratio with a limit needs the baseline it is a ratio to; a missing one is not a pass."""
    if limit is not None:
        rows.add(claim, "failed", reason="original-tp1 was not measured, so there is no ratio")
