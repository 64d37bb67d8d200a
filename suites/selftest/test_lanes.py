"""Judgements of lanes: which metric says what of which stratum."""

from __future__ import annotations

import numpy as np
import pytest

from suites.evidence import evidence, kl_quantiles
from suites.lanes import FEWEST, Judgement, Limits, Metric, judged, rejected, verdict
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
        ("all", "kl_q999"),
        *((stratum, metric) for stratum in ("text", "code") for metric in LIMITS),
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


def test_a_row_that_is_judged_tells_what_would_not_have_passed() -> None:
    for one in judged({"text": noise(1, 0.01)}, LIMITS, flip_margin=0.1):
        if one.metric in ("mean_d", "rms_d"):
            assert one.limit is not None
            assert one.detectable is not None
            assert 0 < one.detectable < one.limit
    for one in judged({"text": noise(1, 0.01)}, {}, flip_margin=0.1):
        assert one.detectable is None


def quantile_of(strata: dict[str, list[Differences]], limit: float) -> Judgement:
    found = judged(strata, {"kl_q999": limit}, flip_margin=0.1)
    (one,) = (one for one in found if one.metric == "kl_q999")
    return one


@pytest.mark.parametrize(("kl", "outcome"), [(1e-5, "passed"), (2e-3, "failed")])
def test_the_far_quantile_is_of_all_strata_and_judged_where_positions_suffice(
    kl: float, outcome: str
) -> None:
    strata = {
        "text": [differing(np.zeros(2500), kl=1e-5)], "code": [differing(np.zeros(2103), kl=kl)]
    }  # fmt: skip
    one = quantile_of(strata, 1e-3)
    assert (one.outcome, one.stratum, one.n, one.limit) == (outcome, "all", FEWEST, 1e-3)


def test_too_few_positions_show_no_far_quantile_but_one_beyond() -> None:
    one = quantile_of({"text": noise(1, 0.01)}, 1e-3)
    assert (one.outcome, one.limit, one.high) == ("passed", None, None)
    assert one.note == "recorded: 480 positions do not bound it, 4603 would; limit 0.001"
    assert quantile_of({"text": [differing(np.zeros(480), kl=1.0)]}, 1e-3).outcome == "failed"


def test_a_comparison_is_what_its_worst_judgement_is() -> None:
    loud, few = {"text": noise(1, 0.2)}, {"text": noise(1, 0.01, documents=3)}
    for strata, expected in (
        (loud, "failed"),
        (few, "inconclusive"),
        ({"text": noise(1, 0.01)}, "passed"),
    ):
        assert verdict(judged(strata, LIMITS, flip_margin=0.1)) == expected


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
