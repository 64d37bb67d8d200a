"""How far two servers' answers are apart: log-probability differences, document by document.

For token ids fixed by the corpus, with p the reference's and q the candidate's probabilities,
in natural logarithms and float64:

- d = log q(x) - log p(x) of each token x; its mean is a bias, its RMS the size of change;
- KL, coarse: the sum over the reference's 20 likeliest tokens of p·log(p/q), and the same for the
  rest taken as one token: a lower bound of the true divergence;
- Δp = q(x) - p(x), of which the RMS is what a reader would notice;
- same top: whether both put the same token first. Where they do not, the reference's margin (its
  first less its second) says whether that was a tie, or a hard flip.

Mean d alone proves nothing: a checkpoint that lost a quarter of its scales was measured at a mean d
of -0.02 nat, where RMS and KL stood far out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fixtures.serving.client import Scored

Floats = NDArray[np.float64]
TOP = 20
DEFINITIONS = {
    "mean_d": "mean log q(x) - log p(x) over prompt tokens; nat; v1",
    "rms_d": "root mean square of log q(x) - log p(x); nat; v1",
    "max_abs_d": "largest |log q(x) - log p(x)|; nat; v1",
    "mean_kl": "mean coarse KL(p|q) over the reference's top 20 and the rest; nat; v1",
    "kl_q999": "99.9 % quantile of the coarse KL(p|q) over all positions, its bounds as if these "
    "were independent; nat; v1",
    "rms_dp": "root mean square of q(x) - p(x); v1",
    "same_top": "share of positions with the same first token; v1",
    "hard_flips": "positions whose first token differs although the reference's leads by more "
    "than flip_margin; v1",
}


class MismatchError(ValueError):
    """The two servers did not score the same tokens."""


@dataclass(frozen=True, slots=True)
class Differences:
    """One document: an entry per scored position. `unlisted` counts bounded candidate terms.

    `index` is the position in the document, `margin` the reference's first log-probability less its
    second, in nats.
    """

    d: Floats
    kl: Floats
    same_top: Floats
    unlisted: int
    dp: Floats
    margin: Floats
    margin_change: Floats
    index: NDArray[np.int64]

    def hard_flips(self, margin: float) -> int:
        """Positions whose first token changed although it led by more than `margin` nats."""
        return int(np.count_nonzero((self.same_top == 0) & (self.margin > margin)))


def differences(
    reference: Scored, candidate: Scored, *, ignored: frozenset[int] = frozenset()
) -> Differences:
    """Hold a candidate's scores of one document against the reference's.

    Positions whose token is `ignored` do not count: an image's placeholder is nobody's prediction.
    """
    if tuple(reference.token_ids) != tuple(candidate.token_ids):
        raise MismatchError(
            f"the prompt became {len(candidate.token_ids)} tokens, {len(reference.token_ids)} on "
            "the reference, or other ones: tokenizer or image processor differ between the two"
        )
    d, kl, same, dp, margins, changes, index, unlisted = [], [], [], [], [], [], [], 0
    for ours, theirs in zip(reference.positions, candidate.positions, strict=True):
        if ours.token_id in ignored:
            continue
        d.append(theirs.logprob - ours.logprob)
        divergence, missing = coarse_kl(ours.top, theirs.top)
        kl.append(divergence)
        unlisted += missing
        first = _first(ours.top)
        same.append(float(first == _first(theirs.top)))
        dp.append(math.exp(theirs.logprob) - math.exp(ours.logprob))
        margins.append(_margin(ours.top, first))
        changes.append(abs(_margin(theirs.top, first) - margins[-1]))
        index.append(ours.index)
    return Differences(
        np.array(d), np.array(kl), np.array(same), unlisted, np.array(dp), np.array(margins),
        np.array(changes), np.array(index, np.int64),
    )  # fmt: skip


def _first(top: Mapping[int, float]) -> int:
    """The likeliest token; ties go to the smallest id, so that both sides break them alike."""
    return min(top, key=lambda token: (-top[token], token))


def _margin(top: Mapping[int, float], first: int) -> float:
    """How far a token leads the best other one, in nats; negative where another leads. A token that
    is not listed is taken to be as likely as the least likely listed one."""
    floor = min(top.values())
    others = [logprob for token, logprob in top.items() if token != first]
    return top.get(first, floor) - max(others, default=floor)


def coarse_kl(reference: Mapping[int, float], candidate: Mapping[int, float]) -> tuple[float, int]:
    """(divergence in nats, candidate terms that had to be bounded by its smallest listed one)."""
    listed = sorted(reference.items(), key=lambda item: -item[1])[:TOP]
    # Not its smallest: the prompt's own token is listed too, however unlikely it is.
    floor = sorted(candidate.values(), reverse=True)[:TOP][-1]
    total, missing, p_sum, q_sum = 0.0, 0, 0.0, 0.0
    for token, log_p in listed:
        log_q = candidate.get(token)
        if log_q is None:
            missing += 1
            log_q = floor
        p = math.exp(log_p)
        total += p * (log_p - log_q)
        p_sum += p
        q_sum += math.exp(log_q)
    p_rest, q_rest = max(1.0 - p_sum, 0.0), max(1.0 - q_sum, 1e-12)
    if p_rest > 0.0:
        total += p_rest * math.log(p_rest / q_rest)
    return max(total, 0.0), missing


def longest_run(tokens: Sequence[int]) -> int:
    """Length of the longest run of one repeated token."""
    longest = run = 0
    previous = None
    for token in tokens:
        run = run + 1 if token == previous else 1
        longest, previous = max(longest, run), token
    return longest
