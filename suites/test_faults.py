"""`pytest --faults`: seeded faults are detected, or this run's green rows mean nothing.

Copies of the checkpoint with one thing wrong are served by the real engine at tp 1, and judged by
the lanes of the cells they would have been: the exact one, and the statistical one of a cell on
several ranks, whose limits leave room for other sums. Nobody tells the judge what was done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from fixtures.deployment import PlatformSettings
from fixtures.errors import ServingError
from fixtures.faults import CATALOGUE, LADDER, Fault, Kind, Unseeded, cached_fault
from fixtures.matrix import Cell, Matrix
from fixtures.running import Servers
from fixtures.serving.server import Server
from reports.equivalence import Flips
from reports.record import Outcome, RecordEvidence, RecordRow
from suites.answers import Answers, Opinions, answers, opinions
from suites.baseline import Baseline, score_corpus
from suites.corpus import Document
from suites.expect import Rows
from suites.judges import NAMES
from suites.lanes import Judgement, Strata, judged, rejected
from suites.pace import Say
from suites.tasks import Task
from suites.test_numerics import REFERENCE, exact_limits, lane, strata, tp_limits

pytestmark = pytest.mark.faults
LADDERED = "one_scale"
UNDETECTED = (
    "This run cannot see such a fault: do not rely on its green numerics. Compare more documents "
    "(`--corpus full`), or lower the limits in deployments.toml (`--calibrate` proposes them)"
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One fault to seed."""

    kind: Kind
    strength: float | None = None

    @property
    def label(self) -> str:
        return self.kind.name if self.strength is None else f"{self.kind.name}-{self.strength:g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one fault. The judgements are those that reject it; `loudest` is its RMS d."""

    trial: Trial
    fault: Fault
    exact: tuple[Judgement, ...]
    statistical: tuple[Judgement, ...]
    loudest: float | None
    broken: str | None  # why it gave no scores at all
    opinions: Opinions

    @property
    def detected(self) -> bool:
        return bool(self.exact) or self.broken is not None

    @property
    def detected_statistically(self) -> bool:
        return bool(self.statistical) or self.broken is not None


def trials() -> Iterator[Trial]:
    """Every kind once, and one of them at every step of a ladder, for the smallest detected."""
    for kind in CATALOGUE.values():
        if kind.name == LADDERED:
            yield from (Trial(kind, strength) for strength in LADDER)
        elif kind.drawn_as != LADDERED:  # a step of that ladder under a name of its own
            yield Trial(kind)


def test_seeded(
    cell: Cell,
    measured: Server,
    servers: Servers,
    say: Say,
    matrix: Matrix,
    baseline: Baseline,
    documents: tuple[Document, ...],
    asked_tasks: tuple[Task, ...],
    placeholders: frozenset[int],
    settings: PlatformSettings,
    record: RecordRow,
    record_evidence: RecordEvidence,
) -> None:
    """Each fault of the catalogue is rejected, and a copy without a fault is not."""
    if baseline.scores is None:
        pytest.fail(f"{REFERENCE} has no scores to compare with", pytrace=False)
    reference = baseline.scores
    rows = Rows(record, cell.id)
    known = sum((baseline.right or {}).values())
    asked = asked_tasks if known >= Flips.needed(settings.numerics.task_loss) else ()
    unfaulted = answers(measured, documents, asked, say)
    every = list(trials())
    verdicts = []
    for number, trial in enumerate(every, 1):
        fault = cached_fault(
            matrix.directory(trial.kind.of), trial.kind.name, strength=trial.strength, say=say
        )
        if isinstance(fault, Unseeded):
            rows.add(f"faults/{trial.label}", "not_run", reason=fault.reason)
            continue
        label = f"fault-{trial.label}"
        try:
            running = servers.start_beside(
                cell, label, f"fault {number} of {len(every)}", model=fault.directory
            )
            scores = score_corpus(running.server, documents, reference=reference, say=say)
            found = strata(reference, scores, documents, placeholders)
            given = answers(running.server, documents, asked, say)
        except ServingError as error:
            verdict = Verdict(trial, fault, (), (), None, str(error), {})
        else:
            verdict = judged_blind(trial, fault, found, cell, settings, unfaulted, given)
        verdicts.append(verdict)
        _row(rows, verdict)
    _summary(rows, verdicts)
    record_evidence(
        cell="faults",
        name="faults/detection",
        columns=("fault", "strength", "rms_d", "limit", "outcome", "judges"),
        rows=tuple(
            _drawn(verdict, settings.numerics.tp_rms_d)
            for verdict in verdicts
            if verdict.trial.kind.detectable
        ),
        definition="seeded faults: relative change of the layer, largest RMS d of a stratum in "
        "nat, the RMS limit of a cell on several ranks; v1",
    )
    rows.settle()


def judged_blind(
    trial: Trial,
    fault: Fault,
    found: Strata,
    cell: Cell,
    settings: PlatformSettings,
    unfaulted: Answers,
    given: Answers,
) -> Verdict:
    """The lanes' judgement of a candidate, whatever it is."""
    budget = settings.numerics
    own = rejected(judged(found, lane(cell, settings).limits, flip_margin=budget.flip_margin))
    statistical = rejected(judged(found, tp_limits(budget), flip_margin=budget.flip_margin))
    everywhere = judged(found, exact_limits(budget), flip_margin=budget.flip_margin)
    loudest = max(one.value for one in everywhere if one.metric == "rms_d")
    return Verdict(
        trial, fault, tuple(own), tuple(statistical), loudest, None,
        opinions(found, unfaulted, given),
    )  # fmt: skip


def _row(rows: Rows, verdict: Verdict) -> None:
    fault, wanted = verdict.fault, verdict.trial.kind.detectable
    outcome: Outcome = "passed" if verdict.detected == wanted else "invalid"
    seen = verdict.broken or _named(verdict.exact) or "nothing"
    others = "; ".join(
        f"{name} would have {'passed' if opinion.passed else 'rejected'} it ({opinion.seen})"
        for name, opinion in verdict.opinions.items()
        if opinion.passed is not None
    )
    rows.add(
        f"faults/{verdict.trial.label}",
        outcome,
        value=verdict.loudest,
        unit="nat",
        n=1 if verdict.loudest is not None else None,
        reason=f"{fault.simulates}; {fault.where}: changes {fault.relative:.2g} of the layer. "
        f"Rejected by {seen}; on several ranks by "
        f"{verdict.broken or _named(verdict.statistical) or 'nothing'}. {others}",
        definition=f"a faulty copy's largest RMS d of a stratum, against {REFERENCE}; v1",
        advice=UNDETECTED
        if wanted
        else "A copy with the same numbers was rejected: the "
        "comparison itself moves, so every red row of this run is in doubt",
    )


def _drawn(verdict: Verdict, limit: float) -> tuple[str | float | None, ...]:
    rejecting = [name for name, opinion in verdict.opinions.items() if opinion.passed is False]
    lanes = ["exact"] * verdict.detected + ["several ranks"] * verdict.detected_statistically
    outcome = "detected" if verdict.detected else "missed"
    return (
        verdict.trial.label, verdict.fault.relative or None, verdict.loudest, limit, outcome,
        ", ".join([*lanes, *rejecting]) or "none",
    )  # fmt: skip


def _named(judgements: Sequence[Judgement], shown: int = 3) -> str:
    names = [f"{one.stratum}/{one.metric} {one.value:.2g}" for one in judgements]
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _summary(rows: Rows, verdicts: Sequence[Verdict]) -> None:
    """How many are seen, and how small a fault is seen where sums have more than one order."""
    seeded = [verdict for verdict in verdicts if verdict.trial.kind.detectable]
    if not seeded:
        rows.add("faults/detected", "not_run", reason="this checkpoint can have none of the faults")
        return
    found = [verdict for verdict in seeded if verdict.detected]
    missed = [verdict.trial.label for verdict in seeded if not verdict.detected]
    rows.add(
        "faults/detected",
        "invalid" if missed else "passed",
        value=len(found) / len(seeded),
        unit="1",
        n=len(seeded),
        limit=1.0,
        better="exact",
        reason=f"missed: {', '.join(missed)}" if missed else "every seeded fault is rejected",
        definition="share of seeded faults that the lane of a cell on one rank rejects; v1",
        advice=UNDETECTED,
    )
    loud = [verdict for verdict in seeded if verdict.detected_statistically]
    missed = [verdict.trial.label for verdict in seeded if not verdict.detected_statistically]
    rows.add(
        "faults/detected_on_several_ranks",
        "passed",
        value=len(loud) / len(seeded),
        unit="1",
        n=len(seeded),
        better="higher",
        reason=f"recorded; not seen where sums have other orders: {', '.join(missed) or 'none'}",
        definition="share of seeded faults beyond the limits of a cell on several ranks; v1",
    )
    for claim, which in (
        ("smallest_detected", found),
        ("smallest_detected_on_several_ranks", loud),
    ):
        sizes = [verdict.fault.relative for verdict in which if verdict.fault.relative > 0]
        if sizes:
            rows.add(
                f"faults/{claim}",
                "passed",
                value=min(sizes),
                unit="1",
                n=len(which),
                better="lower",
                reason="recorded; deployments.toml sets no limit for it",
                definition="smallest relative change of a layer's weights that is rejected; v1",
            )
    for name in NAMES:
        held = [verdict.opinions[name] for verdict in seeded if name in verdict.opinions]
        judged_ones = [opinion for opinion in held if opinion.passed is not None]
        if judged_ones:
            rows.add(
                f"faults/others/{name}",
                "passed",
                value=sum(not opinion.passed for opinion in judged_ones) / len(judged_ones),
                unit="1",
                n=len(judged_ones),
                better="higher",
                reason="recorded, beside ours: what this judge would have rejected",
                definition="share of seeded faults this judge rejects; suites/judges.py; v1",
            )
