"""The null of a calibration, and the limits that follow from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from reports.statistics import Verdict
from suites.calibration import (
    FACTORS,
    RESAMPLES,
    Unproposed,
    called_different,
    document,
    null_quantiles,
    nulls,
    proposed,
    resampled,
    rounded_up,
)
from suites.lanes import Limits
from suites.numerics import Differences
from suites.selftest.apart import differing

QUIET = {"text": [differing(np.zeros(40))] * 8}
LOUD = {
    "text": [differing(np.full(40, 0.002), kl=1e-5, same=0.99)] * 8,
    "code": [differing(np.array([0.01, -0.01] * 20), kl=3e-5)] * 8,
}


def test_a_null_says_what_moved_in_each_stratum() -> None:
    text, code = nulls("sharded", "padded-tp2", [LOUD])
    assert (text.stratum, text.documents, text.positions) == ("text", 8, 320)
    assert text.mean_abs_d == pytest.approx(0.002)
    assert code.mean_abs_d == pytest.approx(0.0, abs=1e-12)
    assert code.rms_d == code.max_abs_d == pytest.approx(0.01)
    assert code.kl_quantiles[-1] == (1.0, 3e-5)


def test_limits_leave_room_for_the_largest_null() -> None:
    found = [*nulls("repeat", "padded-tp1", [QUIET]), *nulls("sharded", "padded-tp2", [LOUD])]
    limits = proposed(found)  # documents are alike, so that intervals reach no further than values
    assert isinstance(limits, dict)
    assert limits["tp_kl_q999"] == pytest.approx(FACTORS["tp_kl_q999"] * 3e-5)
    assert limits["tp_rms_d"] == pytest.approx(FACTORS["tp_rms_d"] * 0.01)
    assert limits["tp_mean_abs_d"] == pytest.approx(FACTORS["tp_mean_abs_d"] * 0.002)
    assert limits["tp_mean_kl"] == pytest.approx(FACTORS["tp_mean_kl"] * 3e-5)
    assert limits["tp_same_top"] == pytest.approx(1 - FACTORS["tp_same_top"] * 0.01)
    assert limits["flip_margin"] == pytest.approx(FACTORS["flip_margin"] * 0.01)


def test_limits_reach_as_far_as_chance_may_show() -> None:
    random = np.random.default_rng(1)
    scattered = {"text": [differing(random.normal(0, 0.01, 40), kl=1e-6) for _ in range(8)]}
    (null,) = nulls("sharded", "padded-tp2", [scattered])
    assert null.reach["mean_d"] > null.mean_abs_d
    assert null.reach["rms_d"] > null.rms_d
    limits = proposed([null])
    assert isinstance(limits, dict)
    assert limits["tp_rms_d"] >= FACTORS["tp_rms_d"] * null.reach["rms_d"]


@pytest.mark.parametrize(
    ("name", "found", "says"),
    [
        ("restart", LOUD, "no cell on several ranks was measured beside its own tp1"),
        ("sharded", QUIET, "a limit of 0 is none"),
    ],
)
def test_without_a_null_that_moves_sums_no_limit_is_proposed(
    name: str, found: dict[str, list[Differences]], says: str
) -> None:
    made = nulls(name, "padded-tp1", [found])
    limits = proposed(made)
    assert isinstance(limits, Unproposed)
    assert says in limits.reason
    content = json.loads(document(made, {}))
    assert content["proposed"] is None
    assert says in content["not_proposed"]


def test_of_many_restarts_the_loudest_is_kept() -> None:
    found = nulls("restart", "padded-tp1", [QUIET, LOUD, QUIET], rejected=1)
    assert {one.stratum for one in found} == {"text", "code"}
    assert {(one.comparisons, one.rejected) for one in found} == {(3, 1)}


def test_corpora_resampled_from_a_null_are_passed_as_it_is() -> None:
    limits: Limits = {"rms_d": 0.02, "mean_kl": 1e-4}
    assert resampled(LOUD, limits, flip_margin=0.1) == ["passed"] * RESAMPLES
    assert resampled(LOUD, {"rms_d": 0.005}, flip_margin=0.1) == ["failed"] * RESAMPLES


def test_a_comparison_that_shows_nothing_has_called_equals_different() -> None:
    verdicts: list[Verdict] = ["passed"] * 18
    found = called_different([*verdicts, "inconclusive", "failed"])
    assert (found.value, found.n) == (0.1, 20)
    spotless = called_different(["passed"] * 20)
    assert spotless.low == spotless.value == 0
    assert spotless.high == pytest.approx(1 - 0.01 ** (1 / 20))  # none of 20: at most 20.6 %


@pytest.mark.parametrize(
    ("value", "rounded"), [(0.0, 0.0), (0.01234, 0.013), (9.91e-5, 1e-4), (2.0, 2.0), (0.25, 0.25)]
)
def test_limits_are_rounded_up(value: float, rounded: float) -> None:
    assert rounded_up(value) == pytest.approx(rounded)
    assert rounded_up(value) >= value - 1e-15


def test_the_stored_null_is_the_largest_at_each_quantile(tmp_path: Path) -> None:
    file = tmp_path / "cpu.json"
    found = [*nulls("repeat", "padded-tp1", [QUIET]), *nulls("sharded", "padded-tp2", [LOUD])]
    file.write_text(document(found, {"engine": "vllm"}))
    assert json.loads(file.read_text())["engine"] == "vllm"
    quantiles = null_quantiles(file)
    assert quantiles["text"][-1] == (1.0, 1e-5)
    assert quantiles["code"][0][1] == 3e-5


def test_without_a_stored_null_there_is_none(tmp_path: Path) -> None:
    assert null_quantiles(tmp_path / "none.json") == {}
