"""The judges of the field, on answers made by hand: each sees what it is built to see."""

from __future__ import annotations

import numpy as np
import pytest

from fixtures.serving.scoring import Written
from suites.judges import greedy_text, logprobs_close, perplexity, task
from suites.selftest.apart import differing


def written(*tokens: int, likely: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Written:
    top = {token: -float(place) for place, token in enumerate(likely)}
    return Written(tokens, " ".join(map(str, tokens)), (top,) * len(tokens))


def test_equal_texts_pass_everywhere() -> None:
    same = [written(1, 2, 3)] * 3
    assert logprobs_close(same, same).passed
    assert greedy_text(same, same).passed


def test_a_mismatch_among_the_likely_passes_whatever_follows() -> None:
    """vLLM's comparison stops at the first mismatch: what is written after it is not judged."""
    found = logprobs_close([written(1, 2, 9)], [written(1, 3, 77)])
    assert found.passed
    assert found.seen == "1 of 1 part, among the top 5"
    assert not greedy_text([written(1, 2, 9)], [written(1, 3, 77)]).passed


@pytest.mark.parametrize(("ours", "theirs"), [(9, 2), (2, 9)])
def test_a_mismatch_unlikely_to_either_side_is_seen(ours: int, theirs: int) -> None:
    found = logprobs_close([written(1), written(1, ours)], [written(1), written(1, theirs)])
    assert (found.passed, found.seen) == (False, "prompt 1, token 1")


@pytest.mark.parametrize(("shift", "passed"), [(0.005, True), (-0.02, False), (0.02, False)])
def test_a_perplexity_ratio_sees_a_bias_and_nothing_else(shift: float, passed: bool) -> None:
    assert perplexity({"text": [differing(np.full(50, shift))]}).passed is passed
    scattered = differing(np.array([2.0, -2.0] * 25) + shift)
    assert perplexity({"text": [scattered]}).passed is passed


@pytest.mark.parametrize(("right", "passed"), [(100, True), (92, True), (91, False), (0, False)])
def test_a_task_may_fall_by_eight_percent(right: int, passed: bool) -> None:
    candidate = [True] * right + [False] * (100 - right)
    assert task([True] * 100, candidate).passed is passed


def test_a_task_nobody_can_do_says_nothing() -> None:
    assert task([False] * 10, [False] * 10).passed is None


def test_a_corpus_without_texts_says_nothing_by_texts() -> None:
    assert logprobs_close([], []).passed is greedy_text([], []).passed is None
    assert perplexity({}).passed is None
