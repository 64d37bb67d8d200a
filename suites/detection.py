"""What came of seeded faults: seen or missed, by which lanes, and what a run may say of it.

A fault that the catalogue lists must be seen on one rank; one that deployments.toml names under
`tp_detects` must be seen by the limits of several ranks as well. What is missed beyond these is
known to be, and recorded with its size. A copy that could not be served or scored for reasons that
are not its own shows nothing: neither that it was seen nor that it was missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from fixtures.deployment import NumericsBudget
from fixtures.faults import Fault, Trial
from reports.record import Outcome
from suites.answers import Answers, Opinions, opinions
from suites.expect import Rows
from suites.lanes import Judgement, Limits, Strata, judged, rejected
from suites.test_numerics import DECODE, REFERENCE, tp_limits

UNDETECTED: Final = (
    "This run cannot see such a fault: do not rely on its green numerics. Compare more documents "
    "(`--corpus full`), or lower the limits in deployments.toml (`--calibrate` proposes them)"
)
REJECTED: Final = (
    "A copy with the same numbers was rejected: the comparison itself moves, so every red row of "
    "this run is in doubt"
)
UNJUDGED: Final = "This says nothing about the fault: mend what stood in its way, and run again"
RMS: Final = f"a faulty copy's largest RMS d of a stratum, against {REFERENCE}; v1"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one fault. The judgements are those that reject it; `loudest` is its RMS d."""

    trial: Trial
    fault: Fault
    exact: tuple[Judgement, ...] = ()
    statistical: tuple[Judgement, ...] = ()
    loudest: float | None = None
    broken: str | None = None  # why it gave no scores at all, where it is to blame itself
    opinions: Opinions | None = None

    @property
    def detected(self) -> bool:
        return bool(self.exact) or self.broken is not None

    @property
    def detected_statistically(self) -> bool:
        return bool(self.statistical) or self.broken is not None

    @property
    def seen_by(self) -> str:
        return self.broken or _named(self.exact) or "nothing"

    @property
    def seen_statistically_by(self) -> str:
        return self.broken or _named(self.statistical) or "nothing"

    @property
    def size(self) -> str:
        """What `known to be missed` is told with."""
        return "" if self.loudest is None else f" (RMS d {self.loudest:.2g} nat)"


@dataclass(frozen=True, slots=True)
class Unjudged:
    """A fault about which nothing is known; `possible` is false where no such copy can be made."""

    trial: Trial
    reason: str
    possible: bool = True


Result: TypeAlias = Verdict | Unjudged


def judged_blind(
    trial: Trial,
    fault: Fault,
    found: Strata,
    own: Limits,
    budget: NumericsBudget,
    unfaulted: Answers,
    given: Answers,
) -> Verdict:
    """The lanes' judgement of a candidate, whatever it is; `own` are the limits of one rank."""
    everywhere = judged(found, own, flip_margin=budget.flip_margin)
    statistical = judged(found, tp_limits(budget), flip_margin=budget.flip_margin)
    # What is decoded stands in the texts already: other judges get each position once.
    prefilled = {name: documents for name, documents in found.items() if name != DECODE}
    return Verdict(
        trial,
        fault,
        tuple(rejected(everywhere)),
        tuple(rejected(statistical)),
        max(one.value for one in everywhere if one.metric == "rms_d"),
        None,
        opinions(prefilled, unfaulted, given),
    )


def record_result(rows: Rows, result: Result, required: Sequence[str] | None) -> None:
    """A row for one rank, and one for several."""
    claim, trial = f"faults/{result.trial.label}", result.trial
    if isinstance(result, Unjudged):
        needed = result.possible and (trial.listed or trial.control)
        rows.add(claim, "invalid" if needed else "not_run", reason=result.reason, advice=UNJUDGED)
    else:
        _one_rank(rows, claim, result)
    if not trial.control:
        _several_ranks(rows, f"faults/several_ranks/{trial.label}", result, required)


def _one_rank(rows: Rows, claim: str, verdict: Verdict) -> None:
    fault, trial = verdict.fault, verdict.trial
    step = "" if trial.listed or trial.control else "A step of the ladder, recorded. "
    others = "; ".join(
        f"{name} would have {'passed' if opinion.passed else 'rejected'} it ({opinion.seen})"
        for name, opinion in (verdict.opinions or {}).items()
        if opinion.passed is not None
    )
    well = verdict.detected != trial.control or bool(step)
    rows.add(
        claim,
        "passed" if well else "invalid",
        value=verdict.loudest,
        unit="nat",
        n=1 if verdict.loudest is not None else None,
        reason=f"{fault.simulates}; {fault.where}: changes {fault.relative:.2g} of the layer. "
        f"{step}Rejected by {verdict.seen_by}; on several ranks by "
        f"{verdict.seen_statistically_by}. {others}".rstrip(),
        definition=RMS,
        advice=REJECTED if trial.control else UNDETECTED,
    )


def _several_ranks(rows: Rows, claim: str, result: Result, required: Sequence[str] | None) -> None:
    must = required is not None and result.trial.label in required
    if isinstance(result, Unjudged):
        if must:
            outcome: Outcome = "invalid" if result.possible else "not_run"
            rows.add(claim, outcome, reason=result.reason, advice=UNJUDGED)
        return
    seen = result.detected_statistically
    by = f"rejected by {result.seen_statistically_by}"
    if must:
        reason = f"must be seen (tp_detects in deployments.toml): {by}"
    elif required is None:
        reason = f"recorded; deployments.toml does not say what must be seen: {by}"
    elif seen:
        reason = f"expected to be missed, and seen: {by}. `tp_detects` in deployments.toml may "
        reason += "ask for it"
    else:
        reason = "known to be missed where sums have other orders; recorded"
    rows.add(
        claim,
        "invalid" if must and not seen else "passed",
        value=result.loudest,
        unit="nat",
        n=1 if result.loudest is not None else None,
        reason=reason,
        definition=RMS,
        advice=UNDETECTED,
    )


def drawn(verdict: Verdict, limit: float) -> tuple[str | float | None, ...]:
    """Its line in the picture: fault, strength, RMS d, limit, outcome, judges."""
    given = (verdict.opinions or {}).items()
    rejecting = [name for name, opinion in given if opinion.passed is False]
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
