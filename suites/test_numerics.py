"""The answers, held against the unpadded reference: original-tp1, teacher-forced."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.deployment import NumericsBudget, PlatformSettings
from fixtures.matrix import Cell, Matrix
from fixtures.reference import Scores
from fixtures.running import cause_in
from fixtures.serving.client import Unscorable, greedy
from fixtures.serving.server import Server
from reports.record import RecordRow
from suites.baseline import Baseline, ScoringError, score_corpus
from suites.corpus import Document
from suites.expect import Metric, Rows, expect_caught, expect_close
from suites.numerics import Differences, MismatchError, differences, longest_run

pytestmark = pytest.mark.numerics

REPEAT_LIMIT = 12  # of 32 greedy tokens; garbage repeats one token to the end
GREEDY_TOKENS = 32
GREEDY_PROMPTS = 5


@pytest.fixture
def scores(
    cell: Cell,
    measured: Server,
    baseline: Baseline,
    documents: tuple[Document, ...],
    record: RecordRow,
) -> Scores:
    """This cell's scores of the corpus; a NaN or a failed request is a failed row of its own."""
    if reason := baseline.unscorable.get(cell.id):
        pytest.fail(f"{cell.id} has no scores to compare: {reason}", pytrace=False)
    if cell.id not in baseline.by_cell:
        rows = Rows(record, cell.id)
        try:
            baseline.by_cell[cell.id] = score_corpus(measured, documents)
        except ScoringError as error:
            baseline.unscorable[cell.id] = str(error)
            rows.add(
                "numerics/finite",
                "failed",
                reason=str(error),
                advice=f"The server gives no usable log-probability; {cause_in(measured.log)}",
            )
            rows.settle()
    return baseline.by_cell[cell.id]


@pytest.fixture(scope="session")
def placeholders(matrix: Matrix) -> frozenset[int]:
    """Tokens that stand for a picture's patches: nobody predicts them."""
    raw = read_checkpoint(matrix.directory("original")).raw
    token = raw.get("image_token_id")
    return frozenset({token} if isinstance(token, int) else ())


def strata(
    reference: Scores,
    candidate: Scores,
    documents: tuple[Document, ...],
    ignored: frozenset[int],
) -> dict[str, list[Differences]]:
    """Differences per document, texts and pictures apart."""
    found: dict[str, list[Differences]] = {}
    for document in documents:
        name = "image" if document.image is not None else "text"
        pair = differences(reference[document.id], candidate[document.id], ignored=ignored)
        found.setdefault(name, []).append(pair)
    return found


def limits_for(cell: Cell, budget: NumericsBudget) -> Mapping[Metric, float]:
    """The limits of a cell that is planned to answer as the original does, or nearly."""
    if (inexact := budget.inexact.get(cell.variant)) is not None:
        return {"mean_kl": inexact.mean_kl}
    return sharding_limits(cell, budget)


def sharding_limits(cell: Cell, budget: NumericsBudget) -> Mapping[Metric, float]:
    """What sharding alone may move: pipeline stages hand numbers on, and move nothing."""
    return {"max_abs_d": budget.padded_max_abs_d} if cell.tp == 1 else tp_limits(budget)


def tp_limits(budget: NumericsBudget) -> Mapping[Metric, float]:
    """What adding up partial sums in another order may move."""
    return {
        "mean_d": budget.tp_mean_abs_d,
        "rms_d": budget.tp_rms_d,
        "mean_kl": budget.tp_mean_kl,
        "same_top": budget.tp_same_top,
    }


def test_close(
    cell: Cell,
    scores: Scores,
    baseline: Baseline,
    documents: tuple[Document, ...],
    settings: PlatformSettings,
    placeholders: frozenset[int],
    record: RecordRow,
) -> None:
    """The cell answers as the original does; a cell planned to answer wrongly is caught at it."""
    if baseline.scores is None:
        pytest.fail("original-tp1 has no scores to compare with", pytrace=False)
    silent = cell.plan.failure_class == "silent"
    own = f"{cell.variant}-tp1"
    if silent and cell.variant != "original" and own not in baseline.by_cell:
        pytest.skip(f"{own} was not scored in this run: select it too to judge {cell.id} by it")
    # A silent cell of a changed checkpoint differs from the original anyway: its own tp1 judges it.
    against = own if silent else "original-tp1"
    reference = baseline.by_cell.get(own, baseline.scores) if silent else baseline.scores
    try:
        found = strata(reference, scores, documents, placeholders)
    except MismatchError as error:
        Rows(record, cell.id).add("numerics/tokens", "invalid", reason=str(error))
        pytest.fail(str(error), pytrace=False)
    if silent:
        expect_caught(record, cell, found, settings.numerics.tp_rms_d, against=against)
        return
    inexact = settings.numerics.inexact.get(cell.variant)
    floor = None if inexact is None else inexact.min_rms_d
    limits = limits_for(cell, settings.numerics)
    expect_close(record, cell, found, limits, against=against, floor=floor)


def test_sharding_alone(
    cell: Cell,
    scores: Scores,
    baseline: Baseline,
    documents: tuple[Document, ...],
    settings: PlatformSettings,
    placeholders: frozenset[int],
    record: RecordRow,
) -> None:
    """A variant at tp N answers as the same variant on one rank: padding and sharding apart."""
    own = f"{cell.variant}-tp1"
    if cell.ranks == 1 or cell.plan.failure_class == "silent":
        pytest.skip(f"{cell.id}: nothing to compare with {own}")
    if own not in baseline.by_cell:
        pytest.skip(f"{own} was not scored in this run: select it too to separate the two effects")
    found = strata(baseline.by_cell[own], scores, documents, placeholders)
    limits = sharding_limits(cell, settings.numerics)
    expect_close(record, cell, found, limits, against=own, prefix="numerics/sharding_alone")


def test_no_repeated_token(
    cell: Cell, measured: Server, documents: tuple[Document, ...], record: RecordRow
) -> None:
    """Not every greedy answer is one repeated token, the mark of a broken kernel.

    Every one: a healthy model may repeat itself after some prompt, NaN does after each.
    """
    texts = [document.text for document in documents if document.image is None][:GREEDY_PROMPTS]
    rows = Rows(record, cell.id)
    runs = []
    for text in texts:
        written = greedy(measured, text, n=GREEDY_TOKENS)
        if isinstance(written, Unscorable):
            rows.add("numerics/longest_repeat", "failed", reason=written.reason)
            rows.settle()
            return
        runs.append(longest_run(written.token_ids))
    longest = min(runs)
    rows.add(
        "numerics/longest_repeat",
        "failed" if longest > REPEAT_LIMIT else "passed",
        value=float(longest),
        unit="token",
        n=len(runs),
        limit=float(REPEAT_LIMIT),
        better="lower",
        definition=f"longest run of a token in {GREEDY_TOKENS} greedy ones, least of prompts; v1",
        advice="One token repeated in every answer is how NaN and lost scales look in text",
    )
    rows.settle()
