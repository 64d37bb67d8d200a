"""`pytest --calibrate`: how far answers move for reasons that must not matter.

It proposes limits and judges nothing; whoever reads the proposal changes deployments.toml.
"""

from __future__ import annotations

import pytest

from fixtures.deployment import PlatformSettings
from fixtures.matrix import Cell
from fixtures.reference import CorpusScores
from fixtures.running import Servers
from fixtures.serving.server import Server
from reports.record import RecordRow
from suites.baseline import Baseline, score_corpus
from suites.calibration import BATCH_TOKENS, CONCURRENCY, RESAMPLES, Null, nulls, rejections
from suites.corpus import Document
from suites.expect import RECORDED
from suites.pace import Say
from suites.test_numerics import strata, tp_limits

pytestmark = pytest.mark.calibration
RESTARTED = 1  # more ranks take minutes to start, and have no other reason to differ


@pytest.fixture(scope="session")
def tp1_scores() -> dict[str, CorpusScores]:
    """Variant → its scores on one rank, of this run."""
    return {}


def test_null(
    cell: Cell,
    measured: Server,
    servers: Servers,
    say: Say,
    baseline: Baseline,
    documents: tuple[Document, ...],
    placeholders: frozenset[int],
    settings: PlatformSettings,
    calibration: list[Null],
    tp1_scores: dict[str, CorpusScores],
    record: RecordRow,
) -> None:
    """What each change that must not matter does to a proven cell's answers."""
    if cell.plan.failure_class is not None or cell.variant in settings.numerics.inexact:
        pytest.skip(f"{cell.id} is no cell whose answers are known to be right")
    if cell.pp > 1:
        pytest.skip(f"{cell.id}: pipeline stages hand numbers on as they are")

    def scores(server: Server, concurrency: int = 1) -> CorpusScores:
        return score_corpus(
            server,
            documents,
            reference=baseline.scores,
            concurrency=concurrency,
            say=say,
        )

    def take(name: str, reference: CorpusScores, candidate: CorpusScores) -> None:
        compared = strata(reference, candidate, documents, placeholders)
        found = nulls(name, cell.id, compared)
        calibration.extend(found)
        budget = settings.numerics
        wrongly = rejections(compared, tp_limits(budget), flip_margin=budget.flip_margin)
        record(
            cell=cell.id,
            claim=f"null/{name}/rejected",
            outcome="passed",
            value=wrongly / RESAMPLES,
            unit="1",
            n=RESAMPLES,
            reason=f"{RECORDED}; servers that agree, called different",
            definition="share of corpora resampled from these documents that the lane of a cell on "
            "several ranks rejects; v1",
        )
        for null in found:
            record(
                cell=cell.id,
                claim=f"null/{name}/{null.stratum}/rms_d",
                outcome="passed",
                value=null.rms_d,
                unit="nat",
                n=null.documents,
                reason=f"{RECORDED}; mean KL {null.mean_kl:.2g} nat",
                definition="root mean square of log q(x) - log p(x) under a change that must not "
                "matter; nat; v1",
            )

    first = scores(measured)
    take("repeat", first, scores(measured))
    take("concurrency", first, scores(measured, CONCURRENCY))
    if cell.tp == 1:
        tp1_scores[cell.variant] = first
    elif cell.variant in tp1_scores:
        take("sharded", tp1_scores[cell.variant], first)
    if cell.tp > RESTARTED:
        return
    restarted = servers.start_beside(cell, f"{cell.id}.restart", "the null: a restart")
    take("restart", first, scores(restarted.server))
    smaller = servers.start_beside(
        cell,
        f"{cell.id}.batch",
        "the null: smaller batches",
        more=("--enable-chunked-prefill", "--max-num-batched-tokens", str(BATCH_TOKENS)),
    )
    take("batch_tokens", first, scores(smaller.server))
