"""Estimates, verdicts and power, held against simulations and arithmetic done by hand."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from reports.equivalence import (
    ALPHA,
    Estimate,
    Flips,
    cluster_mean,
    holm,
    negated,
    paired,
    within,
)
from reports.record import SampleError
from suites.calibration import NULLS

Floats = np.ndarray


def drawn(
    random: np.random.Generator, documents: int, *, spread: float = 1.0, shift: float = 0.0
) -> list[Floats]:
    """Documents of unequal length whose positions err together."""
    sizes = random.integers(5, 60, documents)
    return [shift + random.normal(0, spread) + random.normal(0, 3 * spread, size) for size in sizes]


def test_the_mean_is_that_of_all_positions() -> None:
    documents = [[1.0, 3.0], [5.0], *[[2.0, 2.0, 2.0]] * 6]
    expected = np.mean(np.concatenate(documents))
    assert cluster_mean(documents).value == pytest.approx(expected)


def resampled_slowly(documents: list[Floats], *, resamples: int, seed: int) -> float:
    """The standard error from the definition: draw documents, pool what their positions say, take
    the mean; how much that varies, widened by what few documents lack."""
    n = len(documents)
    means = []
    for chosen in np.random.default_rng(seed).integers(0, n, size=(resamples, n)):
        pooled = [float(value) for index in chosen for value in documents[index]]
        means.append(math.fsum(pooled) / len(pooled))
    return statistics.stdev(means) * math.sqrt(n / (n - 1))


@pytest.mark.parametrize("count", [8, 20])
def test_the_standard_error_is_what_resampling_gives(count: int) -> None:
    documents = drawn(np.random.default_rng(5), count)
    fast = cluster_mean(documents, confidence=0.98, resamples=500, seed=7)
    slow = resampled_slowly(documents, resamples=2000, seed=7)
    # The one is linearized, the other drawn.
    assert fast.standard_error == pytest.approx(slow, rel=0.1)


def test_one_seed_gives_one_interval_and_documents_alike_leave_no_room() -> None:
    documents = drawn(np.random.default_rng(6), 9)
    first, again, other = (cluster_mean(documents, seed=seed) for seed in (7, 7, 8))
    assert first == again != other
    assert cluster_mean([[0.0, 0.0]] * 8) == Estimate(0.0, 0.0, 0.0, 8, 0.0)


def test_positions_taken_for_documents_would_cover_the_truth_too_seldom() -> None:
    """The same data token by token: what the test of coverage below would see."""
    random, runs = np.random.default_rng(7), 200
    covered = 0
    for run in range(runs):
        tokens = [[token] for token in np.concatenate(drawn(random, 10))]
        found = cluster_mean(tokens, confidence=0.9, resamples=100, seed=run)
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0 <= found.high
    assert covered / runs < 0.75


def missed(
    documents: int, runs: int, draw: Callable[[np.random.Generator], list[Floats]], truth: float
) -> tuple[float, float]:
    """Shares of runs whose upper bound lies below the truth, and whose lower one above it."""
    random, above, below = np.random.default_rng(documents), 0, 0
    for run in range(runs):
        found = cluster_mean(draw(random), resamples=1000, seed=run % 8)
        assert found.low is not None
        assert found.high is not None
        above += found.high < truth
        below += found.low > truth
    return above / runs, below / runs


@pytest.mark.parametrize("documents", [8, 20, 60])
def test_bounds_cover_the_truth_as_often_as_they_say(documents: int) -> None:
    above, below = missed(documents, 1000, lambda random: drawn(random, documents), 0.0)
    # One-sided 1 % each; 23 of 1000 is what a true 1.3 % exceeds once in a hundred.
    assert above <= 0.023
    assert below <= 0.023


@pytest.mark.parametrize("documents", [8, 20, 60])
def test_squares_are_covered_nearly_as_often(documents: int) -> None:
    """Percentiles missed 2.7 % with 8 documents; a true 1.8 % exceeds 29 once in a hundred."""
    above, _ = missed(
        documents, 1000, lambda random: [one**2 for one in drawn(random, documents)], 10.0
    )
    assert above <= 0.029


@pytest.mark.parametrize("stratum", ["text", "code", "image"])
def test_divergences_as_the_null_has_them_are_covered_as_stated(stratum: str) -> None:
    """Positions drawn from the stored quantiles of tp 8, in as many documents as the corpus has."""
    content = json.loads((NULLS / "cpu.json").read_text())
    (null,) = (
        one
        for one in content["nulls"]
        if (one["name"], one["cell"], one["stratum"]) == ("sharded", "padded-tp8", stratum)
    )
    at, kl = np.array([(0.0, 0.0), *null["kl_quantiles"]]).T
    truth = float(np.sum(np.diff(at) * (kl[1:] + kl[:-1]) / 2))
    documents = null["documents"]

    def draw(random: np.random.Generator) -> list[Floats]:
        sizes = random.integers(20, 60, documents)
        return [np.interp(random.random(size), at, kl) for size in sizes]

    above, _ = missed(documents, 1000, draw, truth)
    assert above <= 0.026  # a true 1.5 %


HEAVY = [(1.0, 8, 0.07), (1.0, 60, 0.05), (2.0, 8, 0.19), (2.0, 60, 0.13)]


@pytest.mark.parametrize(("sigma", "documents", "most"), HEAVY)
def test_where_few_documents_hold_most_bounds_miss_oftener_and_are_known_to(
    sigma: float, documents: int, most: float
) -> None:
    """Whole documents of lognormal size; percentiles missed 10, 6, 36 and 22 %."""

    def draw(random: np.random.Generator) -> list[Floats]:
        return [np.full(30, size) for size in random.lognormal(0, sigma, documents)]

    above, _ = missed(documents, 600, draw, math.exp(sigma**2 / 2))
    assert above <= most


def test_where_nearly_all_documents_are_alike_percentiles_stand_in() -> None:
    found = cluster_mean([*[[0.0] * 5] * 7, [1.0] * 5])
    assert found.low == 0.0
    assert found.high is not None
    assert 0.125 < found.high < 1


def test_documents_far_from_nothing_are_told_from_it() -> None:
    """As a cell that lost rows has them: squares of 8 documents, one far below the others."""
    found = cluster_mean(
        [np.full(40, size**2) for size in (2.9, 2.9, 2.8, 2.9, 3.0, 2.9, 2.8, 0.3)]
    )
    assert found.low is not None
    assert found.low > 2


def test_what_is_never_negative_has_no_negative_bound() -> None:
    random = np.random.default_rng(5)
    found = cluster_mean([np.full(5, size) for size in random.lognormal(0, 2, 8)])
    assert found.low is not None
    assert found.low >= 0


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_a_mean_of_the_detectable_size_fails_to_pass_as_often_as_stated(scale: float) -> None:
    """With the spread of the corpus at hand nine times of ten, with a larger one oftener."""
    random, limit = np.random.default_rng(3), 3.0
    found = [cluster_mean(drawn(random, 30)).detectable(limit) or 0 for _ in range(40)]
    size = float(np.mean(found))
    assert 0 < size < limit
    missed = 0
    for run in range(400):
        one = cluster_mean(drawn(random, 30, spread=scale, shift=size), seed=run % 8)
        missed += within([one], limit) != ["passed"]
    assert missed / 400 >= 0.85
    assert scale > 1 or missed / 400 <= 0.96


def test_strata_that_agree_are_called_apart_no_oftener_than_one_would_be() -> None:
    """Six strata whose true mean lies at the limit: each alone strays beyond it in 1 % of runs."""
    random, runs = np.random.default_rng(4), 400
    failed = 0
    for run in range(runs):
        found = [
            cluster_mean(drawn(random, 20, shift=1.0), resamples=200, seed=run) for _ in range(6)
        ]
        failed += "failed" in within(found, 1.0)
    assert failed / runs <= 0.03


def test_too_few_documents_show_nothing() -> None:
    found = cluster_mean([[0.0]] * 6)
    assert (found.low, found.high, found.detectable(1.0)) == (None, None, None)
    assert within([found], 1.0) == ["inconclusive"]


@pytest.mark.parametrize(
    ("bad", "words"), [([[]], "document 0: 0 values"), ([[1.0], [math.nan]], "1 are NaN")]
)
def test_no_number_comes_of_nothing(bad: list[list[float]], words: str) -> None:
    with pytest.raises(SampleError, match=words):
        cluster_mean(bad)


def at(value: float, error: float, n: int = 30) -> Estimate:
    return Estimate(value, value - 2.5 * error, value + 2.5 * error, n, error)


CASES: list[tuple[str, list[Estimate], list[str]]] = [
    ("inside", [at(0.1, 0.1)], ["passed"]),
    ("beyond", [at(2.0, 0.1)], ["failed"]),
    ("beyond below", [at(-2.0, 0.1)], ["failed"]),
    ("straddling", [at(0.9, 0.2)], ["inconclusive"]),
    ("one of many", [at(0.0, 0.1)] * 5 + [at(2.0, 0.1)], ["passed"] * 5 + ["failed"]),
    ("alike and beyond", [at(2.0, 0.0)], ["failed"]),
    ("alike and inside", [at(0.5, 0.0)], ["passed"]),
]  # fmt: skip


@pytest.mark.parametrize(("_", "found", "verdicts"), CASES, ids=[case[0] for case in CASES])
def test_verdicts(_: str, found: list[Estimate], verdicts: list[str]) -> None:
    assert within(found, 1.0) == verdicts


def test_among_many_strata_one_must_stand_out_further() -> None:
    straying = at(1.0 + 2.7 * 0.1, 0.1)  # p = 0.006 two-sided 0.012, after Holm 0.07
    assert within([straying, *[at(0.0, 0.1)] * 5], 1.0)[0] == "inconclusive"


def test_a_limit_on_a_root_is_one_on_its_square() -> None:
    squares = at(4.0, 0.1)
    assert within([squares], 2.1, squared=True) == ["passed"]
    assert within([squares], 1.8, squared=True) == ["failed"]
    assert squares.root().value == 2.0
    assert squares.root().standard_error == pytest.approx(0.025)  # by a slope of 1 in 2 · 2


def test_the_root_of_squares_errs_as_roots_do() -> None:
    random = np.random.default_rng(6)
    roots = [cluster_mean([one**2 for one in drawn(random, 30)]).root() for _ in range(200)]
    observed = np.std([one.value for one in roots])
    stated = np.mean([one.standard_error or 0 for one in roots])
    assert stated == pytest.approx(observed, rel=0.2)
    assert Estimate(0.0, 0.0, 0.0, 9, 0.0).root().standard_error == 0.0


def test_holm_steps_down() -> None:
    assert holm([0.001, 0.02, 0.004, 0.9], alpha=0.01) == [True, False, False, False]
    assert holm([0.001, 0.0, 0.003, 0.9], alpha=0.01) == [True, True, True, False]
    assert holm([], alpha=0.01) == []


def test_the_negative_of_an_estimate_swaps_its_bounds() -> None:
    found = negated(Estimate(1.0, 0.5, 2.0, 9, 0.1))
    assert (found.value, found.low, found.high) == (-1.0, -2.0, -0.5)


def test_flips_are_counted_in_pairs() -> None:
    found = paired([True, True, False, False, True], [True, False, True, False, False])
    assert found == Flips(items=5, right_before=3, lost=2, won=1)


def test_mcnemar_is_the_binomial_of_the_flips() -> None:
    found = Flips(items=200, right_before=150, lost=9, won=1)
    by_hand = 2 * sum(math.comb(10, k) for k in (0, 1)) / 2**10
    assert found.p_value == pytest.approx(by_hand)
    assert Flips(10, 5, 0, 0).p_value == 1.0


@pytest.mark.parametrize("lost", [0, 1, 10])
def test_the_share_of_losses_has_exact_bounds(lost: int) -> None:
    found = Flips(items=200, right_before=200, lost=lost, won=0).loss()
    assert found.high is not None
    # At the upper bound, so few losses would be seen in 1 % of runs.
    assert stats.binom.cdf(lost, 200, found.high) == pytest.approx(ALPHA, rel=1e-6)


@pytest.mark.parametrize(("lost", "needed"), [(0, 90), (1, 130), (2, 165), (5, 259)])
def test_how_many_right_answers_leave_room_for_so_many_lost(lost: int, needed: int) -> None:
    assert Flips.needed(0.05, lost) == needed
    enough, short = (
        Flips(items=n, right_before=n, lost=lost, won=0).loss().high for n in (needed, needed - 1)
    )
    assert enough is not None
    assert short is not None
    assert enough <= 0.05 < short


@pytest.mark.parametrize("right", [90, 150, 240])
def test_a_loss_of_the_detectable_share_fails_to_pass_as_often_as_stated(right: int) -> None:
    share = Flips(right, right, 0, 0).detectable(0.05)
    assert share is not None
    passing = [
        lost for lost in range(right) if (Flips(right, right, lost, 0).loss().high or 1) <= 0.05
    ]
    assert stats.binom.cdf(max(passing), right, share) == pytest.approx(0.1)


def test_of_too_few_answers_no_loss_is_told() -> None:
    assert Flips(89, 89, 0, 0).detectable(0.05) is None
