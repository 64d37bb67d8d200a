"""A run with evidence for every picture: made-up numbers of the sizes that were measured.

The sizes are those of the embedded miniature on the CPU: nothing at all from padding alone, some
0.004 nat of RMS d from sharding, 0.2 nat where rows are lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from reports.record import Evidence, Row, Run
from suites.selftest.sample_run import a_cell, a_header, a_row, a_run

STRATA = ("text", "image", "long", "code/CJK", "decode")
VARIANTS = ("original", "trimmed", "padded", "regrouped")
SIZES = (1, 2, 4, 8)
REFUSED = {"original-tp8": "load", "trimmed-tp8": "load", "original-tp4": "silent"}
POINTS = (0.0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0)
MARGINS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, None)
FAULTS: tuple[tuple[str, float | None, float, str], ...] = (
    ("last group of one rank zeroed", 1.0, 0.31, "detected"),
    ("gate and up swapped for one group", 0.8, 0.12, "detected"),
    ("two groups swapped", 0.5, 0.074, "detected"),
    ("bias shard shifted", 0.2, 0.031, "detected"),
    ("pad zero-point + 1 under a live scale", 0.05, 0.0075, "inconclusive"),
    ("one scale × 1.01", 0.01, 0.0021, "missed"),
    ("blind config-edit trim", None, 0.196, "detected"),
)


def a_run_with_pictures() -> Run:
    """Sixteen cells and the faults."""
    names = [f"{variant}-tp{tp}" for variant in VARIANTS for tp in SIZES]
    plan = [
        {
            "cell": name,
            "variant": name.split("-")[0],
            "tp": int(name[-1]),
            "serves": name not in REFUSED,
            "failure_class": REFUSED.get(name),
            "message": None,
        }
        for name in names
    ]
    header = a_header(matrix={"variants": list(VARIANTS), "tps": list(SIZES)}, plan=plan)
    rows: list[Row] = [a_row(cell="faults", claim="faults/detected", value=5.0, unit="1", n=7)]
    cells, evidence = [], [faults()]
    for seed, name in enumerate(names):
        stage = REFUSED.get(name)
        cells.append(a_cell(name, planned=stage, observed=stage))
        if stage == "load":
            rows.append(stage_row(name))
            continue
        size = rms_d(name)
        rows += numerics_rows(name, size, caught=stage == "silent")
        if name != "original-tp1":
            evidence += evidence_of(name, size, np.random.default_rng(seed))
    return a_run(rows, cells, header=header, evidence=evidence)


def rms_d(cell: str) -> float:
    """What padding, sharding, trimming and losing rows were measured at, roughly."""
    variant, tp = cell.split("-tp")
    if cell == "original-tp4":
        return 0.235
    own = {"original": 0.0, "padded": 0.0, "trimmed": 0.196, "regrouped": 0.0}[variant]
    return own + (0.0 if tp == "1" else 0.0035 + 0.0004 * int(tp))


def stage_row(cell: str) -> Row:
    reason = "720 is not a multiple of 32"
    fields: dict[str, Any] = {"low": None, "high": None, "limit": None, "value": None, "n": None}
    return a_row(
        cell=cell, claim="sharding/stage", outcome="refused_as_planned", reason=reason, **fields
    )


def numerics_rows(cell: str, size: float, *, caught: bool) -> list[Row]:
    """Two strata of the lane that a cell is compared in; pictures are half as far off as text."""
    lane = "control" if caught else "quality" if "trimmed" in cell else ""
    lane = lane or ("exact" if cell.endswith("tp1") else "end_to_end")
    rows = []
    for stratum, far in (("text", size), ("image", size / 2)):
        kl = far**2 / 2
        for metric, value, limit in (("rms_d", far, 0.01), ("mean_kl", kl, 2e-4)):
            rows.append(
                a_row(
                    cell=cell,
                    claim=f"numerics/{lane}/{stratum}/"
                    + ("caught" if caught and metric == "rms_d" else metric),
                    value=value,
                    unit="nat",
                    n=200,
                    low=value * 0.9,
                    high=value * 1.2,
                    limit=limit if lane in ("exact", "end_to_end") else None,
                    detectable=0.0004 if metric == "rms_d" else 1e-6,
                )
            )
    return rows


def evidence_of(cell: str, size: float, generator: np.random.Generator) -> list[Evidence]:
    return [
        position(cell, size, generator),
        kl_quantiles(cell, size, generator),
        flips(cell, size, generator),
    ]


def position(cell: str, size: float, generator: np.random.Generator) -> Evidence:
    rows: list[Sequence[Any]] = []
    for stratum in STRATA:
        for start in range(0, 256 if stratum != "long" else 1024, 32):
            d = np.abs(generator.standard_t(4, size=64)) * size * generator.uniform(0.5, 1.2)
            d[d < size / 3] = 0.0
            rows.append((stratum, start, *(float(np.quantile(d, q)) for q in (0.5, 0.9, 1.0))))
    columns = ("stratum", "position", "median", "p90", "max")
    definition = "|log q(x) - log p(x)| of the tokens in a bucket of 32 positions; nat; v1"
    return Evidence(
        cell=cell,
        name="numerics/position",
        columns=columns,
        rows=tuple(map(tuple, rows)),
        definition=definition,
    )


def kl_quantiles(cell: str, size: float, generator: np.random.Generator) -> Evidence:
    rows = []
    for stratum in STRATA:
        for against, scale in (("original-tp1", size), ("null", 0.003)):
            kl = (generator.standard_t(5, size=4000) * scale) ** 2 / 2
            rows += [(stratum, against, q, float(np.quantile(kl, q))) for q in POINTS]
    return Evidence(
        cell=cell,
        name="numerics/kl_quantiles",
        columns=("stratum", "against", "quantile", "kl"),
        rows=tuple(rows),
        definition="quantiles over positions of coarse KL; nat; v1",
    )


def flips(cell: str, size: float, generator: np.random.Generator) -> Evidence:
    rows = []
    for stratum in STRATA:
        for low, high in pairwise(MARGINS):
            assert low is not None
            positions = 0 if (stratum, low) == ("image", 0.0) else int(40 + 400 * low)
            share = min(0.5, size) * float(np.exp(-low / (size + 1e-9) / 4))
            rows.append(
                (stratum, low, high, positions, int(generator.binomial(positions, share)), 0.035)
            )
    return Evidence(
        cell=cell,
        name="numerics/flips",
        columns=("stratum", "margin_low", "margin_high", "positions", "flips", "threshold"),
        rows=tuple(rows),
        definition="positions whose likeliest token is another, by the reference's margin; v1",
    )


def faults() -> Evidence:
    rows = tuple(
        (fault, strength, observed, 0.01, outcome, "rms_d, mean_kl" if outcome != "missed" else "")
        for fault, strength, observed, outcome in FAULTS
    )
    return Evidence(
        cell="faults",
        name="faults/detection",
        columns=("fault", "strength", "rms_d", "limit", "outcome", "judges"),
        rows=rows,
        definition="RMS d of a checkpoint with one seeded fault, judged blind; nat; v1",
    )
