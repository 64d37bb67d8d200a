"""Domain assertions of the numerics: rows of a comparison's strata, and what fails by them.

As in `suites.expect`: every row is recorded, and then the test fails with all that is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from reports.equivalence import Flips
from reports.record import Outcome, RecordRow
from reports.statistics import Interval, verdict_lower, verdict_upper
from suites.expect import RECORDED, UNJUDGED, Rows
from suites.lanes import Limits, Strata, estimate, judged
from suites.numerics import DEFINITIONS


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
        # A bias has no better: -0.002 is no improvement on 0.
        lower = None if floor or one.metric == "mean_d" else "lower"
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
            better="higher" if one.metric == "same_top" else lower,
            definition=f"{one.definition}; against {against}",
            reason="; ".join(filter(None, (UNJUDGED if unjudged else reason, one.note))) or None,
            advice=_far(one.outcome, against),
        )
        if floor is not None and one.metric == "rms_d":
            _expect_apart(
                rows,
                f"numerics/{lane}/{one.stratum}/told_apart",
                Interval(one.value, one.low, one.high, one.n),
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
    rms_d: Interval,
    limit: float,
    against: str,
    *,
    reason: str | None = None,
    advice: str = "",
) -> None:
    rows.add_measured(
        claim,
        verdict_lower(rms_d, limit),
        rms_d,
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
            estimate(documents, "rms_d").interval,
            limit,
            against,
            reason="planned to answer wrongly; the difference must exceed the limit of a good cell",
        )
        # Judged by nothing: the report's map of mean KL shows how far off it is.
        rows.add_measured(
            f"numerics/control/{stratum}/mean_kl",
            "passed",
            estimate(documents, "mean_kl").interval,
            None,
            unit="nat",
            definition=f"{DEFINITIONS['mean_kl']}; against {against}",
        )
    rows.settle()


@contextmanager
def timed(rows: Rows, part: str) -> Iterator[None]:
    """Record what a part of a cell's numerics took; nothing where it broke off."""
    began_s = monotonic()
    yield
    took = Interval(monotonic() - began_s, None, None, 1)
    rows.add_measured(
        f"numerics/seconds/{part}",
        "passed",
        took,
        None,
        unit="s",
        better="lower",
        definition="wall clock of one pass over what this cell is asked for its numerics; v1",
    )
