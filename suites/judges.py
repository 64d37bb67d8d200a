"""What others would have said: four ways in use of telling whether two servers answer alike.

They are implemented as they are used in the field, to be set beside our lanes on the same faults:

    logprobs_close   vLLM's check_logprobs_close: two greedy continuations may part, if each one's
                     token at the first mismatch is among the other's five likeliest; what follows
                     the first mismatch is not looked at
    perplexity       the ratio of perplexities on the corpus stays within 1 %
    greedy_text      every greedy continuation is the same text
    task_8pct        the accuracy on a task falls by no more than 8 %, relatively (the tolerance of
                     vLLM's own lm-eval tests)

Each takes a reference and a candidate, and says whether it would have let the candidate pass.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from fixtures.serving.scoring import Written
from suites.lanes import Strata

PERPLEXITY_TOLERANCE: Final = 0.01
TASK_TOLERANCE: Final = 0.08
TOP: Final = 5
NOTHING: Final = "the corpus has no texts to judge by"
NAMES: Final = ("logprobs_close", "perplexity", "greedy_text", "task_8pct")


@dataclass(frozen=True, slots=True)
class Opinion:
    """`passed` None: there was nothing to judge by, and why is in `seen`."""

    judge: str
    passed: bool | None
    seen: str


def logprobs_close(reference: Sequence[Written], candidate: Sequence[Written]) -> Opinion:
    """Would vLLM's own comparison of two models let it pass?"""
    if not reference:
        return Opinion("logprobs_close", None, NOTHING)
    parted = 0
    for index, (ours, theirs) in enumerate(zip(reference, candidate, strict=True)):
        for step, (a, b) in enumerate(zip(ours.token_ids, theirs.token_ids, strict=False)):
            if a == b:
                continue
            parted += 1
            # One top list an answer: the likeliest TOP, without what was chosen beside them.
            if a not in _likeliest(theirs.tops[step]) or b not in _likeliest(ours.tops[step]):
                return Opinion("logprobs_close", False, f"prompt {index}, token {step}")
            break
    return Opinion(
        "logprobs_close", True, f"{parted} of {len(reference)} part, among the top {TOP}"
    )


def _likeliest(top: Mapping[int, float]) -> set[int]:
    return set(sorted(top, key=lambda token: -top[token])[:TOP])


def perplexity(strata: Strata) -> Opinion:
    """Is the ratio of perplexities over the whole corpus within its tolerance? Each of its
    positions is to stand in one stratum: those that were decoded too, once."""
    if not any(strata.values()):
        return Opinion("perplexity", None, NOTHING)
    d = np.concatenate([document.d for found in strata.values() for document in found])
    ratio = math.exp(-float(d.mean()))
    passed = abs(ratio - 1) <= PERPLEXITY_TOLERANCE
    return Opinion("perplexity", passed, f"ratio {ratio:.4f}")


def greedy_text(reference: Sequence[Written], candidate: Sequence[Written]) -> Opinion:
    """Are all greedy texts the same?"""
    if not reference:
        return Opinion("greedy_text", None, NOTHING)
    pairs = zip(reference, candidate, strict=True)
    other = sum(ours.text != theirs.text for ours, theirs in pairs)
    return Opinion("greedy_text", not other, f"{other} of {len(reference)} texts differ")


def task(reference: Sequence[bool], candidate: Sequence[bool]) -> Opinion:
    """Does the accuracy fall by no more than its tolerance? `True` is a right answer."""
    before, after = sum(reference), sum(candidate)
    if not before:
        return Opinion("task_8pct", None, "the reference answers nothing rightly")
    passed = after >= (1 - TASK_TOLERANCE) * before
    return Opinion("task_8pct", passed, f"{after} right of {len(candidate)}, {before} before")
