"""Documents that differ by as much as a test says."""

from __future__ import annotations

import numpy as np

from reports.statistics import Floats
from suites.numerics import Differences


def differing(d: Floats, *, kl: float = 0.0, same: float = 1.0, margin: float = 1.0) -> Differences:
    """One document whose positions differ by `d` nat, and alike in everything else."""
    size = len(d)
    return Differences(
        d=np.asarray(d, np.float64),
        kl=np.full(size, kl),
        same_top=np.full(size, same),
        unlisted=0,
        dp=np.asarray(d, np.float64) / 100,
        margin=np.full(size, margin),
        margin_change=np.abs(d),
        index=np.arange(1, size + 1),
    )
