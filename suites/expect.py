"""Domain assertions: each records its rows first, then fails with all that is wrong in them.

An expectation never stops at the first bad number: the report gets every row, and the message of a
red test names claim, observed value with its interval, limit, and what to do about it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest

from fixtures.capacity import SPACE_VARIABLE, Unpredicted, capacity
from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.coverage import Coverage
from fixtures.deployment import PlatformSettings
from fixtures.running import Running
from reports.record import Outcome, RecordRow, Row
from reports.statistics import Interval

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
