"""Judgements of lanes: which metric says what of which stratum."""

from __future__ import annotations

import numpy as np
import pytest

from suites.evidence import evidence, kl_quantiles
from suites.lanes import Limits, Metric, judged, rejected
from suites.numerics import Differences
from suites.selftest.apart import differing

LIMITS: Limits = {
    "mean_d": 0.01, "rms_d": 0.05, "mean_kl": 5e-3, "rms_dp": 0.01, "same_top": 0.97,
    "max_abs_d": 0.5, "hard_flips": 0,
}  # fmt: skip


def noise(seed: int, size: float, documents: int = 12) -> list[Differences]:
    random = np.random.default_rng(seed)
    return [differing(random.normal(0, size, 40)) for _ in range(documents)]


def test_what_agrees_passes_everywhere() -> None:
    found = judged({"text": noise(1, 0.01), "code": noise(2, 0.01)}, LIMITS, flip_margin=0.1)
    assert {one.outcome for one in found} == {"passed"}
    assert {(one.stratum, one.metric) for one in found} == {
        (stratum, metric) for stratum in ("text", "code") for metric in LIMITS
    }


def test_a_stratum_that_differs_is_named() -> None:
    strata = {"text": noise(1, 0.01), "image": noise(2, 0.2), "code": noise(3, 0.01)}
    found = rejected(judged(strata, LIMITS, flip_margin=0.1))
    assert {one.stratum for one in found} == {"image"}
    assert "rms_d" in {one.metric for one in found}


@pytest.mark.parametrize(("margin", "outcome"), [(0.05, "passed"), (0.2, "failed")])
def test_a_flip_is_hard_only_beyond_the_margin(margin: float, outcome: str) -> None:
    flipped = [differing(np.zeros(40), same=0.0, margin=margin)] * 12
    found = judged({"text": flipped}, {"hard_flips": 0}, flip_margin=0.1)
    (flips,) = [one for one in found if one.metric == "hard_flips"]
    assert (flips.outcome, flips.n) == (outcome, 480)


def test_every_averaged_row_tells_what_it_could_have_seen() -> None:
    for one in judged({"text": noise(1, 0.01)}, LIMITS, flip_margin=0.1):
        if one.metric in ("mean_d", "rms_d"):
            assert one.detectable is not None
            assert 0 < one.detectable < 0.05


def test_without_a_limit_nothing_is_held_against_it() -> None:
    found = judged({"text": noise(1, 5.0)}, {}, flip_margin=0.1)
    assert {one.outcome for one in found} == {"passed"}
    assert {one.limit for one in found} == {None}


METRICS: list[tuple[Metric, Differences]] = [
    ("mean_d", differing(np.full(40, 0.02))),
    ("rms_d", differing(np.array([0.1, -0.1] * 20))),
    ("mean_kl", differing(np.zeros(40), kl=0.01)),
    ("same_top", differing(np.zeros(40), same=0.0, margin=0.0)),
    ("max_abs_d", differing(np.array([0.6] + [0.0] * 39))),
]


@pytest.mark.parametrize(("metric", "document"), METRICS)
def test_each_metric_rejects_on_its_own(metric: Metric, document: Differences) -> None:
    limits: Limits = {metric: LIMITS[metric]}
    found = rejected(judged({"text": [document] * 12}, limits, flip_margin=0.1))
    assert [one.metric for one in found] == [metric]


def test_pictures_are_drawn_from_every_position() -> None:
    strata = {"text": [differing(np.full(100, 0.01))] * 3, "code": [differing(np.zeros(30))]}
    tables = {table.name: table for table in evidence(strata, against="x", flip_margin=0.1)}
    position = tables["numerics/position"].rows
    assert [row[:2] for row in position] == [("text", 0), ("text", 64), ("code", 0)]
    assert position[0][2:] == (0.01, 0.01, 0.01)
    assert sum(row[3] for row in tables["numerics/flips"].rows) == 330  # type: ignore[misc]
    for table in tables.values():
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_kl_quantiles_end_at_the_largest() -> None:
    documents = [differing(np.zeros(10), kl=kl) for kl in (0.1, 0.2, 0.3)]
    assert kl_quantiles(documents)[-1] == (1.0, 0.3)
