"""The null: how far answers move for reasons that must not matter, and the limits that follow.

    repeat        the same server asked again
    concurrency   the same server, sixteen requests at once: other batches
    restart       another start of the same cell
    batch_tokens  a start that prefills in smaller pieces
    sharded       a proven cell on N ranks against one: partial sums added up in another order

A limit has to leave room for the largest of these that its lane meets, and for no more than it
needs to: FACTORS times the far end of its interval. What a platform does bit by bit alike leaves a
null of zero, and only `sharded` says how far 16-bit sums move: without it, nothing is proposed.

An A/A comparison is a null that is judged as a run judges the cell: a `repeat` and a `restart` by
the cell's own lane, which on one rank of the CPU is the exact one, and the others, whose sums have
another order, by the limits of a cell on several ranks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy import stats

from fixtures.errors import InputError
from reports.equivalence import CONFIDENCE, Estimate
from reports.statistics import Interval, Verdict
from suites.evidence import kl_quantiles
from suites.lanes import Limits, Metric, Strata, estimate, judged, kl_q999, verdict
from suites.numerics import Differences

SCHEMA: Final = 1
NULLS: Final = Path(__file__).parent / "nulls"  # calibrations, each as it was measured
CONCURRENCY: Final = 16
BATCH_TOKENS: Final = 64
FLIP_QUANTILE: Final = 0.999
RESAMPLES: Final = 20
SAME_SUMS: Final = ("repeat", "restart")
SEED: Final = 21
# What a limit leaves above the far end of the largest null's interval: half as much again of what
# is a root or a mean, twice a divergence, which goes with the square.
FACTORS: Final[Mapping[str, float]] = {
    "tp_rms_d": 1.5, "tp_mean_abs_d": 1.5, "tp_mean_kl": 2.0, "tp_kl_q999": 2.0, "tp_rms_dp": 1.5,
    "tp_same_top": 1.5, "flip_margin": 1.5,
}  # fmt: skip
METRICS: Final[tuple[Metric, ...]] = ("mean_d", "rms_d", "mean_kl", "rms_dp", "same_top")


@dataclass(frozen=True, slots=True)
class Null:
    """One stratum under one change that must not matter. `reach` are the far ends of the metrics'
    intervals: what chance alone may show in another corpus of this size. Of several `comparisons`,
    as restarts are, the numbers are the loudest one's, and `rejected` counts those not passed."""

    name: str
    cell: str
    stratum: str
    documents: int
    positions: int
    mean_abs_d: float
    rms_d: float
    max_abs_d: float
    mean_kl: float
    rms_dp: float
    same_top: float
    margin_change: float
    reach: Mapping[str, float]
    kl_quantiles: tuple[tuple[float, float], ...]
    comparisons: int
    rejected: int


def nulls(name: str, cell: str, every: Sequence[Strata], *, rejected: int = 0) -> list[Null]:
    """What comparisons of one kind say of each stratum; `rejected` of them were not passed."""
    loudest = max(every, key=_loudness)
    return [
        _null(name, cell, stratum, found, comparisons=len(every), rejected=rejected)
        for stratum, found in loudest.items()
    ]


def _loudness(strata: Strata) -> float:
    return max(float((one.d**2).mean()) for found in strata.values() for one in found)


def _null(
    name: str,
    cell: str,
    stratum: str,
    documents: Sequence[Differences],
    *,
    comparisons: int,
    rejected: int,
) -> Null:
    d = np.concatenate([document.d for document in documents])
    found: dict[Metric, Estimate] = {name: estimate(documents, name) for name in METRICS}
    change = np.concatenate([document.margin_change for document in documents])
    return Null(
        name,
        cell,
        stratum,
        len(documents),
        d.size,
        abs(found["mean_d"].value),
        found["rms_d"].value,
        float(np.abs(d).max()),
        found["mean_kl"].value,
        found["rms_dp"].value,
        found["same_top"].value,
        float(np.quantile(change, FLIP_QUANTILE)),
        {
            **{str(name): _reach(name, one) for name, one in found.items()},
            "kl_q999": _reach_q999(documents),
        },
        tuple(kl_quantiles(documents)),
        comparisons,
        rejected,
    )


def _reach(metric: Metric, one: Estimate) -> float:
    """The end of an interval that is furthest from no difference; the value where it has none."""
    ends = [one.value, *(end for end in (one.low, one.high) if end is not None)]
    return min(ends) if metric == "same_top" else max(map(abs, ends))


def _reach_q999(documents: Sequence[Differences]) -> float:
    """The bound of the quantile, and where positions are too few for one, the largest KL seen."""
    high = kl_q999({"": documents}).high
    return high if high is not None else max(float(document.kl.max()) for document in documents)


def resampled(strata: Strata, limits: Limits, *, flip_margin: float) -> list[Verdict]:
    """What a lane would have said of RESAMPLES corpora drawn from this one's documents. It tells
    something only of limits that leave room: resamples of no difference are no difference."""
    random = np.random.default_rng(SEED)
    found = []
    for _ in range(RESAMPLES):
        drawn = {
            stratum: [found[index] for index in random.integers(0, len(found), len(found))]
            for stratum, found in strata.items()
        }
        found.append(verdict(judged(drawn, limits, flip_margin=flip_margin)))
    return found


def called_different(verdicts: Sequence[Verdict]) -> Interval:
    """Of comparisons of servers that agree, the share that was not passed, with exact bounds."""
    wrong = sum(one != "passed" for one in verdicts)
    bounds = stats.binomtest(wrong, len(verdicts)).proportion_ci(CONFIDENCE, method="exact")
    return Interval(wrong / len(verdicts), float(bounds.low), float(bounds.high), len(verdicts))


@dataclass(frozen=True, slots=True)
class Unproposed:
    """No limits can be made of these nulls."""

    reason: str


def proposed(found: Iterable[Null]) -> dict[str, float] | Unproposed:
    """Limits for `[platforms.X.numerics]`, rounded up to two digits."""
    every = list(found)
    if not any(null.name == "sharded" for null in every):
        return Unproposed(
            "no cell on several ranks was measured beside its own tp1, and only that moves sums as "
            "tp does: select both, as `-m padded` does"
        )

    def largest(metric: str) -> float:
        return max(null.reach[metric] for null in every)

    measured = {
        "tp_rms_d": largest("rms_d"),
        "tp_mean_abs_d": largest("mean_d"),
        "tp_mean_kl": largest("mean_kl"),
        "tp_kl_q999": largest("kl_q999"),
        "tp_rms_dp": largest("rms_dp"),
        "flip_margin": max(null.margin_change for null in every),
    }
    if still := [name for name, value in measured.items() if value <= 0]:
        return Unproposed(
            f"nothing moved by which {', '.join(still)} could be told: a limit of 0 is none"
        )
    limits = {name: rounded_up(FACTORS[name] * value) for name, value in measured.items()}
    changed = 1 - min(null.reach["same_top"] for null in every)
    # A share that is the same must be more than none to be a limit.
    return limits | {"tp_same_top": max(0.01, 1 - rounded_up(FACTORS["tp_same_top"] * changed))}


def rounded_up(value: float) -> float:
    """To two significant digits, so that a limit is never below what it was made of."""
    if value <= 0:
        return 0.0
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / step - 1e-9) * step:.3g}")


def document(found: Sequence[Null], header: Mapping[str, Any]) -> str:
    """The calibration as JSON: nulls, proposed limits, and what they were measured on."""
    limits = proposed(found)
    content = {
        "schema": SCHEMA,
        **header,
        "proposed": None if isinstance(limits, Unproposed) else limits,
        "not_proposed": limits.reason if isinstance(limits, Unproposed) else None,
        "nulls": [asdict(null) for null in found],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


@dataclass(frozen=True, slots=True)
class StoredNull:
    """By stratum, the largest null's quantiles of KL; none where no calibration is of this run.
    `told` says whose they are, or why there are none."""

    quantiles: Mapping[str, list[tuple[float, float]]]
    told: str


def stored_null(conditions: Mapping[str, Any], folder: Path = NULLS) -> StoredNull:
    """The calibration that was measured under a run's conditions (a calibration's header): the same
    checkpoint, engine, arguments and corpus. Another one's noise says nothing of this one's."""
    unlike: list[tuple[int, str]] = []
    for path in sorted(folder.glob("*.json")):
        header = _stored(path)
        differing = [
            f"{name} {_shown(header.get(name), conditions[name])}"
            for name in ("checkpoint", "engine", "arguments", "corpus")
            if _identity(header.get(name)) != _identity(conditions[name])
        ]
        if not differing:
            cpu = header.get("machine", {}).get("cpu", "an unknown machine")
            told = f"The null is that of suites/nulls/{path.name}, measured on {cpu}"
            return StoredNull(null_quantiles(path), told)
        unlike.append((len(differing), f"{path.name}, is of {' and '.join(differing)}"))
    nearest = f"; the nearest, {min(unlike)[1]}" if unlike else ""
    return StoredNull(
        {}, f"No null is drawn: none was measured under these conditions (--calibrate){nearest}"
    )


def _identity(value: Any) -> Any:
    """What tells checkpoints and corpora apart is their digest, whatever they are called."""
    return value.get("digest", value) if isinstance(value, Mapping) else list(value or ())


def _shown(value: Any, asked: Any) -> str:
    """A stored condition, as far as it tells it from what is asked."""
    if isinstance(value, Mapping):
        return " ".join(str(value[key]) for key in ("name", "version") if key in value)
    return " ".join(word for word in value or () if word not in asked) or "fewer than this run's"


def _stored(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is no calibration: {error}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise InputError(f"{path} is no calibration of schema {SCHEMA}: measure it anew")
    return content


def null_quantiles(path: Path) -> dict[str, list[tuple[float, float]]]:
    """By stratum, the largest stored null's quantiles of KL."""
    largest: dict[str, list[tuple[float, float]]] = {}
    for null in _stored(path)["nulls"]:
        pairs = [(float(q), float(kl)) for q, kl in null["kl_quantiles"]]
        before = largest.get(null["stratum"], pairs)
        largest[null["stratum"]] = [
            (q, max(kl, other)) for (q, kl), (_, other) in zip(pairs, before, strict=True)
        ]
    return largest
