"""The metrics of the numerics suite, held against arithmetic done by hand or the long way."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.serving.client import Position, Scored
from suites.numerics import TOP, MismatchError, coarse_kl, differences, longest_run


def scored(rows: list[dict[int, float]], tokens: list[int]) -> Scored:
    """Scores of a text whose first token is 0 and whose others are `tokens`."""
    positions = tuple(
        Position(index=i + 1, token_id=token, logprob=row[token], rank=1, top=row)
        for i, (row, token) in enumerate(zip(rows, tokens, strict=True))
    )
    return Scored((0, *tokens), positions)


def distribution(weights: list[float]) -> dict[int, float]:
    total = sum(weights)
    return {token: math.log(weight / total) for token, weight in enumerate(weights)}


def test_equal_answers_differ_by_nothing() -> None:
    answer = scored([distribution([5, 3, 2]), distribution([1, 8, 1])], [0, 1])
    found = differences(answer, answer)
    assert found.d.tolist() == [0.0, 0.0]
    assert found.kl.tolist() == [0.0, 0.0]
    assert found.same_top.tolist() == [1.0, 1.0]


def test_d_is_candidate_minus_reference() -> None:
    reference, candidate = distribution([5, 5]), distribution([9, 1])
    found = differences(scored([reference], [0]), scored([candidate], [0]))
    assert found.d[0] == pytest.approx(math.log(0.9 / 0.5))
    assert found.kl[0] == pytest.approx(0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1))


def test_ignored_tokens_do_not_count() -> None:
    rows = [distribution([5, 3, 2]), distribution([1, 8, 1])]
    answer = scored(rows, [2, 1])
    assert differences(answer, answer, ignored=frozenset({2})).d.size == 1


def test_other_tokens_are_a_mismatch_not_a_difference() -> None:
    row = distribution([1, 1])
    with pytest.raises(MismatchError, match="tokenizer or image processor"):
        differences(scored([row], [0]), scored([row], [1]))


@given(
    st.lists(st.floats(0.01, 10), min_size=30, max_size=60),
    st.randoms(use_true_random=False),
)
def test_coarse_kl_is_a_lower_bound_of_the_divergence(weights: list[float], random: object) -> None:
    shuffled = list(weights)
    assert hasattr(random, "shuffle")
    random.shuffle(shuffled)
    p, q = distribution(weights), distribution(shuffled)
    exact = sum(math.exp(p[t]) * (p[t] - q[t]) for t in p)
    coarse, missing = coarse_kl(p, q)
    assert missing == 0
    assert 0 <= coarse <= exact + 1e-9


def test_a_candidate_term_that_is_not_listed_is_bounded_and_counted() -> None:
    p = distribution([10, 9, 8, 1])
    q = {0: math.log(0.5), 2: math.log(0.3)}
    _, missing = coarse_kl(p, q)
    assert missing == 2
    assert TOP == 20


def test_the_prompts_own_unlikely_token_does_not_set_the_bound() -> None:
    p = distribution([2.0] * 21)
    top = {token: math.log(1 / 21) for token in range(1, 21)}
    exact, _ = coarse_kl(p, top)
    with_own, _ = coarse_kl(p, {**top, 500: -14.0})
    assert with_own == exact < 1e-3


def test_the_longest_run_of_one_token() -> None:
    assert longest_run([1, 1, 2, 2, 2, 1]) == 3
    assert longest_run([]) == 0
    assert longest_run(np.zeros(7, dtype=int).tolist()) == 7
