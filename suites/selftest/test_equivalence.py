"""Estimates, verdicts and power, held against simulations and arithmetic done by hand."""

from __future__ import annotations

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


def resampled_slowly(
    documents: list[Floats], *, confidence: float, resamples: int, seed: int
) -> tuple[float, float, float]:
    """(standard error, low, high) from the definition: draw documents, pool what their positions
    say, take the mean; percentiles widened as Hesterberg (2015) does."""
    n = len(documents)
    means = []
    for chosen in np.random.default_rng(seed).integers(0, n, size=(resamples, n)):
        pooled = [float(value) for index in chosen for value in documents[index]]
        means.append(math.fsum(pooled) / len(pooled))
    further = math.sqrt(n / (n - 1)) * float(stats.t(n - 1).isf((1 - confidence) / 2))
    tail = 0.5 * math.erfc(further / math.sqrt(2))
    ordered = sorted(means)

    def percentile(share: float) -> float:
        whole, part = divmod(share * (resamples - 1), 1)
        below, above = ordered[int(whole)], ordered[min(int(whole) + 1, resamples - 1)]
        return below + part * (above - below)

    error = statistics.stdev(means) * math.sqrt(n / (n - 1))
    return error, percentile(tail), percentile(1 - tail)


@pytest.mark.parametrize("count", [8, 20])
def test_resampling_by_a_product_of_matrices_is_resampling(count: int) -> None:
    documents = drawn(np.random.default_rng(5), count)
    fast = cluster_mean(documents, confidence=0.98, resamples=500, seed=7)
    slow = resampled_slowly(documents, confidence=0.98, resamples=500, seed=7)
    assert (fast.standard_error, fast.low, fast.high) == pytest.approx(slow, rel=1e-9)


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


@pytest.mark.parametrize("documents", [8, 20, 60])
def test_bounds_cover_the_truth_as_often_as_they_say(documents: int) -> None:
    random, runs = np.random.default_rng(1), 1000
    missed_above = missed_below = 0
    for run in range(runs):
        found = cluster_mean(drawn(random, documents), resamples=400, seed=run)
        assert found.low is not None
        assert found.high is not None
        missed_above += found.high < 0
        missed_below += found.low > 0
    # One-sided 1 % each; 25 of 1000 is what a true 1.5 % exceeds once in a hundred.
    assert missed_above <= 25
    assert missed_below <= 25


@pytest.mark.parametrize("documents", [8, 20, 60])
def test_squares_with_heavy_tails_are_covered_less_often_and_known_to_be(documents: int) -> None:
    """The RMS of few documents: the percentile bound errs on the low side where tails are heavy."""
    random, runs = np.random.default_rng(2), 600
    missed = 0
    for run in range(runs):
        squares = [values**2 for values in drawn(random, documents)]
        high = cluster_mean(squares, resamples=400, seed=run).high
        missed += high is not None and high < 10.0
    assert missed / runs <= {8: 0.06, 20: 0.04, 60: 0.03}[documents]


def test_a_difference_at_the_detectable_size_is_told_from_zero_as_often_as_stated() -> None:
    random = np.random.default_rng(3)
    size = float(np.mean([cluster_mean(drawn(random, 30)).detectable or 0 for _ in range(40)]))
    seen = 0
    for run in range(400):
        low = cluster_mean(drawn(random, 30, shift=size), resamples=400, seed=run).low
        seen += low is not None and low > 0
    assert 0.85 <= seen / 400 <= 0.96


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
    assert (found.low, found.high, found.detectable) == (None, None, None)
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


@pytest.mark.parametrize("share", [lambda f: f.detectable(), lambda f: 2 * f.detectable()])
def test_a_loss_of_the_detectable_share_shows(share: Callable[[Flips], float]) -> None:
    flips = Flips(items=100, right_before=90, lost=0, won=0)
    assert 1 - (1 - share(flips)) ** 100 >= 0.9 - 1e-9
