"""What pictures of a comparison are drawn from: where it differs, how far, and by which margins."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from suites.lanes import Strata
from suites.numerics import Differences

Cell: TypeAlias = float | int | str | None
QUANTILES: Final = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0)
MARGINS: Final = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
BUCKET: Final = 64


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers behind a picture."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    definition: str


def evidence(strata: Strata, *, against: str, flip_margin: float) -> list[Table]:
    """What pictures of this comparison are drawn from."""
    return [
        Table(
            "numerics/position",
            ("stratum", "position", "median", "p90", "max"),
            tuple(_by_position(strata)),
            "|log q(x) - log p(x)| by position in its document, buckets of 64 tokens; nat; v1",
        ),
        Table(
            "numerics/kl_quantiles",
            ("stratum", "against", "quantile", "kl"),
            tuple(
                (stratum, against, quantile, value)
                for stratum, documents in strata.items()
                for quantile, value in kl_quantiles(documents)
            ),
            "quantiles over positions of the coarse KL; nat; v1",
        ),
        Table(
            "numerics/flips",
            ("stratum", "margin_low", "margin_high", "positions", "flips", "threshold"),
            tuple((*row, flip_margin) for row in _by_margin(strata)),
            "positions whose first token changed, by the reference's margin in nat; v1",
        ),
    ]


def kl_quantiles(documents: Sequence[Differences]) -> list[tuple[float, float]]:
    """(quantile, KL in nats) over all positions."""
    every = np.concatenate([document.kl for document in documents])
    return [
        (q, float(value)) for q, value in zip(QUANTILES, np.quantile(every, QUANTILES), strict=True)
    ]


def _by_position(strata: Strata) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for stratum, documents in strata.items():
        d = np.abs(np.concatenate([document.d for document in documents]))
        bucket = np.concatenate([document.index for document in documents]) // BUCKET
        for begin in np.unique(bucket):
            here = d[bucket == begin]
            numbers = (float(np.median(here)), float(np.quantile(here, 0.9)), float(here.max()))
            rows.append((stratum, int(begin) * BUCKET, *numbers))
    return rows


def _by_margin(strata: Strata) -> list[tuple[Cell, ...]]:
    rows: list[tuple[Cell, ...]] = []
    for stratum, documents in strata.items():
        margin = np.concatenate([document.margin for document in documents])
        flipped = np.concatenate([document.same_top for document in documents]) == 0
        for low, high in itertools.pairwise(MARGINS):
            here = (margin >= low) & (margin < high)
            if here.any():
                rows.append((stratum, low, high, int(here.sum()), int((flipped & here).sum())))
    return rows
