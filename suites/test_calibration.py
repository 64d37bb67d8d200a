"""`pytest --calibrate`: how far answers move for reasons that must not matter.

It proposes limits, and whoever reads the proposal changes deployments.toml. What it judges is the
judge: servers that agree must be called so, as often as they are started.
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
from suites.calibration import (
    BATCH_TOKENS,
    CONCURRENCY,
    SAME_SUMS,
    Null,
    called_different,
    nulls,
    resampled,
)
from suites.corpus import Document
from suites.expect import RECORDED, Rows
from suites.lanes import judged, verdict
from suites.pace import Say
from suites.test_numerics import lane, strata, tp_limits

pytestmark = pytest.mark.calibration
RESTARTED = 1  # more ranks take minutes to start, and have no other reason to differ
FAILED = (
    "This comparison rejects what is equal: its red rows are in doubt. Find what moves before any "
    "limit is changed"
)
STRADDLES = (
    "The limits leave these documents less room than chance takes, and a run would be "
    "inconclusive, too: compare more (`--corpus full`), or see the limits proposed at the end"
)


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
    pytestconfig: pytest.Config,
    record: RecordRow,
) -> None:
    """What each change that must not matter does to a proven cell's answers."""
    if cell.plan.failure_class is not None or cell.variant in settings.numerics.inexact:
        pytest.skip(f"{cell.id} is no cell whose answers are known to be right")
    if cell.pp > 1:
        pytest.skip(f"{cell.id}: pipeline stages hand numbers on as they are")

    rows = Rows(record, cell.id)

    def scores(server: Server, concurrency: int = 1) -> CorpusScores:
        return score_corpus(
            server,
            documents,
            reference=baseline.scores,
            concurrency=concurrency,
            say=say,
        )

    def take(name: str, reference: CorpusScores, *candidates: CorpusScores) -> None:
        every = [strata(reference, one, documents, placeholders) for one in candidates]
        budget = settings.numerics
        limits = lane(cell, settings).limits if name in SAME_SUMS else tp_limits(budget)
        verdicts = [
            verdict(judged(compared, limits, flip_margin=budget.flip_margin)) for compared in every
        ]
        found = called_different(verdicts)
        rejected = len(verdicts) - verdicts.count("passed")
        loudest = nulls(name, cell.id, every, rejected=rejected)
        calibration.extend(loudest)
        rows.add(
            f"null/{name}/rejected",
            max(verdicts, key=("passed", "inconclusive", "failed").index),
            value=found.value,
            low=found.low,
            high=found.high,
            unit="1",
            n=found.n,
            limit=0.0,
            better="lower",
            reason=f"{verdicts.count('failed')} of {found.n} called different, "
            f"{verdicts.count('inconclusive')} inconclusive, by limits on {', '.join(limits)}",
            definition="share of comparisons of servers that agree which the cell's lane does not "
            "pass; exact interval; v2",
            advice=FAILED if "failed" in verdicts else STRADDLES,
        )
        if name not in SAME_SUMS:
            drawn = called_different(resampled(every[0], limits, flip_margin=budget.flip_margin))
            rows.add_measured(
                f"null/{name}/resampled",
                "passed",
                drawn,
                None,
                unit="1",
                definition="share of corpora resampled from these documents that the lane of a "
                "cell on several ranks does not pass; v1",
            )
        for null in loudest:
            rows.add(
                f"null/{name}/{null.stratum}/rms_d",
                "passed",
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
    if cell.tp <= RESTARTED:
        again = []
        times: int = pytestconfig.getoption("--restarts")
        for number in range(1, times + 1):
            label, why = f"{cell.id}.restart{number}", f"the null: restart {number} of {times}"
            again.append(scores(servers.start_beside(cell, label, why).server))
        take("restart", first, *again)
        smaller = servers.start_beside(
            cell,
            f"{cell.id}.batch",
            "the null: smaller batches",
            more=("--enable-chunked-prefill", "--max-num-batched-tokens", str(BATCH_TOKENS)),
        )
        take("batch_tokens", first, scores(smaller.server))
    rows.settle()
