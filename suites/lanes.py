"""Lanes: pairs of servers whose answers are compared, each with its own claim and its own limits.

    exact        a padded, regrouped or pipelined cell on one tp rank against original-tp1, where
                 arithmetic has one order: not one bit may move
    padding      the same where kernels choose an order by shape
    tp           a cell against its own variant on one rank: what tensor parallelism alone does
    end_to_end   a cell on several ranks against original-tp1: what the user is promised
    quality      a variant that is another model: told apart, and no stranger
    control      a cell planned to answer wrongly: it must be caught

A lane judges strata apart: kinds of text, pictures, and decoding, each a list of documents. The
99.9 % quantile of KL is of all of them together: a bound on it takes FEWEST positions. Nothing here
records or raises: `judged` gives what a test makes rows of, and what seeded faults are held
against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, TypeAlias

import numpy as np

from reports.equivalence import CONFIDENCE, Estimate, cluster_mean, within
from reports.record import Outcome
from reports.statistics import (
    Floats,
    Interval,
    Verdict,
    fewest_units,
    quantile_interval,
    verdict_upper,
)
from suites.numerics import DEFINITIONS, Differences

Metric = Literal[
    "mean_d", "rms_d", "max_abs_d", "mean_kl", "kl_q999", "rms_dp", "same_top", "hard_flips"
]
Strata: TypeAlias = Mapping[str, Sequence[Differences]]
Limits: TypeAlias = Mapping[Metric, float]

# What is averaged over positions; a root is taken of the squared ones.
_AVERAGED: Final[Mapping[Metric, Callable[[Differences], Floats]]] = {
    "mean_d": lambda document: document.d,
    "rms_d": lambda document: document.d**2,
    "mean_kl": lambda document: document.kl,
    "rms_dp": lambda document: document.dp**2,
    "same_top": lambda document: document.same_top,
}
_SQUARED: Final = ("rms_d", "rms_dp")
EVERY: Final = "all"  # in place of a stratum
QUANTILE: Final = 0.999
FEWEST: Final = math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log(QUANTILE))  # 4603 positions
_UNITS: Final[Mapping[Metric, str]] = {
    "mean_d": "nat", "rms_d": "nat", "max_abs_d": "nat", "mean_kl": "nat", "kl_q999": "nat",
    "rms_dp": "1", "same_top": "1", "hard_flips": "position",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judgement:
    """One metric of one stratum. `limit` None: measured, and held against nothing. `detectable` is
    the smallest true distance from no difference that would not pass, with a power of 90 %."""

    stratum: str
    metric: Metric
    outcome: Outcome
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    detectable: float | None = None
    limit: float | None = None
    note: str | None = None

    @property
    def unit(self) -> str:
        return _UNITS[self.metric]

    @property
    def definition(self) -> str:
        return DEFINITIONS[self.metric]


def judged(strata: Strata, limits: Limits, *, flip_margin: float) -> list[Judgement]:
    """Every metric of every stratum, against the limits there are."""
    found = []
    for metric in _AVERAGED:
        found += _averaged(strata, metric, limits.get(metric))
    for stratum, documents in strata.items():
        found.append(_largest(stratum, documents, limits.get("max_abs_d")))
        found.append(_flips(stratum, documents, limits.get("hard_flips"), flip_margin))
    found = _spared(found)
    found.append(_far_quantile(strata, limits.get("kl_q999")))
    order = [*strata, EVERY]
    return sorted(found, key=lambda one: order.index(one.stratum))


def _spared(found: Sequence[Judgement]) -> list[Judgement]:
    """Where means of some strata can be judged, those of too few documents are not: they would be
    inconclusive in every run, whatever the servers do."""
    few = fewest_units(CONFIDENCE)
    if not any(one.limit is not None and one.metric in _AVERAGED and one.n >= few for one in found):
        return list(found)
    note = f"fewer than {few} documents of this kind have no interval: give a corpus with more"
    return [
        replace(one, outcome="not_run", note="; ".join(filter(None, (one.note, note))))
        if one.outcome == "inconclusive" and one.n < few
        else one
        for one in found
    ]


def rejected(judgements: Sequence[Judgement]) -> list[Judgement]:
    """Those by which the two servers are shown to differ."""
    return [one for one in judgements if one.outcome == "failed"]


def verdict(judgements: Sequence[Judgement]) -> Verdict:
    """Of a whole comparison: failed by one is failed, and passed is what every one passes."""
    found = {one.outcome for one in judgements}
    return (
        "failed" if "failed" in found else "inconclusive" if "inconclusive" in found else "passed"
    )


def estimate(documents: Sequence[Differences], metric: Metric) -> Estimate:
    """A metric over documents; that of squares as a root."""
    found = _mean(documents, metric)
    return found.root() if metric in _SQUARED else found


def _mean(documents: Sequence[Differences], metric: Metric) -> Estimate:
    if metric != "same_top":
        return cluster_mean([_AVERAGED[metric](document) for document in documents])
    # Of what changed, which is never less than none: no bound on what is the same exceeds 1.
    return _complement(cluster_mean([1 - document.same_top for document in documents]))


def kl_q999(strata: Strata) -> Interval:
    """The 99.9 % quantile of KL over all positions; its bounds take positions for independent, and
    are None where they are too few."""
    kl = np.concatenate([document.kl for found in strata.values() for document in found])
    return quantile_interval(kl, QUANTILE, confidence=CONFIDENCE)


def _averaged(strata: Strata, metric: Metric, limit: float | None) -> list[Judgement]:
    """One metric in all strata; among several, chance is allowed for."""
    means = [_mean(found, metric) for found in strata.values()]
    squared, shares = metric in _SQUARED, metric == "same_top"
    held = [_complement(mean) for mean in means] if shares else means
    outcomes: Sequence[Outcome] = ["passed"] * len(means)
    detectable: Sequence[float | None] = [None] * len(means)
    if limit is not None:
        most = 1 - limit if shares else limit
        outcomes = within(held, most, squared=squared)
        detectable = [one.detectable(most**2 if squared else most) for one in held]
    judgements = []
    for (stratum, documents), mean, outcome, least in zip(
        strata.items(), means, outcomes, detectable, strict=True
    ):
        shown = mean.root() if squared else mean
        unlisted = sum(document.unlisted for document in documents)
        note = f"{unlisted} terms bounded by the least listed one" if unlisted else None
        judgement = Judgement(
            stratum, metric, outcome, shown.value, shown.n, shown.low, shown.high,
            math.sqrt(least) if squared and least is not None else least,
            limit, note if metric == "mean_kl" else None,
        )  # fmt: skip
        judgements.append(judgement)
    return judgements


def _complement(mean: Estimate) -> Estimate:
    low = None if mean.high is None else 1 - mean.high
    high = None if mean.low is None else 1 - mean.low
    return Estimate(1 - mean.value, low, high, mean.n, mean.standard_error)


def _far_quantile(strata: Strata, limit: float | None) -> Judgement:
    """Fewer positions than a bound takes can show that it is beyond the limit, and no more."""
    found = kl_q999(strata)
    outcome: Outcome = "passed" if limit is None else verdict_upper(found, limit)
    note = None
    if limit is not None and found.high is None and outcome != "failed":
        note = f"recorded: {found.n} positions do not bound it, {FEWEST} would; limit {limit:g}"
        outcome, limit = "passed", None
    return Judgement(
        EVERY, "kl_q999", outcome, found.value, found.n, found.low, found.high, None, limit, note
    )


def _largest(stratum: str, documents: Sequence[Differences], limit: float | None) -> Judgement:
    """It has no interval: no resample exceeds the largest seen."""
    largest = max(float(np.abs(document.d).max()) for document in documents)
    outcome: Outcome = "passed" if limit is None or largest <= limit else "failed"
    return Judgement(stratum, "max_abs_d", outcome, largest, len(documents), limit=limit)


def _flips(
    stratum: str, documents: Sequence[Differences], limit: float | None, margin: float
) -> Judgement:
    """A count, and judged as it stands: hard flips are not noise."""
    flips = sum(document.hard_flips(margin) for document in documents)
    positions = sum(document.d.size for document in documents)
    outcome: Outcome = "passed" if limit is None or flips <= limit else "failed"
    note = f"flip_margin is {margin:g} nat"
    return Judgement(stratum, "hard_flips", outcome, flips, positions, limit=limit, note=note)
