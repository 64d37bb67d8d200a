"""`pytest --faults`: seeded faults are detected, or this run's green rows mean nothing.

Copies of the checkpoint with one thing wrong are served by the real engine at tp 1, and judged by
the lanes of the cells they would have been: the exact one, and the statistical one of a cell on
several ranks, whose limits leave room for other sums. Nobody tells the judge what was done. Each
copy lives as long as its server.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from fixtures.checkpoint.tensors import checkpoint_digest
from fixtures.deployment import PlatformSettings
from fixtures.errors import ServingError, ShardproofError
from fixtures.faults import TRIALS, Trial, Unseeded, passing_fault
from fixtures.matrix import Cell, Matrix
from fixtures.miniature import cache_root
from fixtures.running import Servers
from fixtures.serving.server import Server
from reports.equivalence import Flips
from reports.record import RecordEvidence, RecordRow
from suites.answers import answers
from suites.baseline import Baseline, score_corpus
from suites.blame import blamed
from suites.corpus import Document
from suites.detection import (
    Result,
    Unjudged,
    Verdict,
    drawn,
    judged_blind,
    record_result,
)
from suites.expect import Rows
from suites.numerics import MismatchError
from suites.pace import Say
from suites.sensitivity import record_summary
from suites.tasks import Task
from suites.test_numerics import REFERENCE, lane, strata

pytestmark = pytest.mark.faults


def test_seeded(
    cell: Cell,
    measured: Server,
    servers: Servers,
    say: Say,
    matrix: Matrix,
    baseline: Baseline,
    documents: tuple[Document, ...],
    asked_tasks: tuple[Task, ...],
    placeholders: frozenset[int],
    settings: PlatformSettings,
    tp_detects: tuple[str, ...] | None,
    record: RecordRow,
    record_evidence: RecordEvidence,
) -> None:
    """Each fault of the catalogue is rejected, and a copy without a fault is not."""
    if baseline.scores is None:
        pytest.fail(f"{REFERENCE} has no scores to compare with", pytrace=False)
    if not documents:
        pytest.skip("the corpus has only pictures, and this model sees none: nothing is compared")
    reference, budget = baseline.scores, settings.numerics
    rows = Rows(record, cell.id)
    known = sum((baseline.right or {}).values())
    asked = asked_tasks if known >= Flips.needed(budget.task_loss) else ()
    try:
        unfaulted = answers(measured, documents, asked, say)
    except ServingError as error:
        pytest.fail(f"{cell.id} gives no answers to compare with: {error}", pytrace=False)
    digest = cache(checkpoint_digest)

    def tried(trial: Trial, why: str) -> Result:
        source: Path = matrix.directory(trial.kind.of)
        with passing_fault(
            source,
            trial.kind.name,
            root=cache_root() / "faults",
            strength=trial.strength,
            source_digest=digest(source),
        ) as fault:
            if isinstance(fault, Unseeded):
                return Unjudged(trial, fault.reason, possible=False)
            running = None
            try:
                label = f"fault-{trial.label}"
                running = servers.start_beside(cell, label, why, model=fault.directory)
                scores = score_corpus(running.server, documents, reference=reference, say=say)
                found = strata(reference, scores, documents, placeholders)
                given = answers(running.server, documents, asked, say)
            except (ServingError, MismatchError) as error:
                broken = blamed(running, error)
                if broken is None:
                    return Unjudged(trial, f"not judged: {error}")
                return Verdict(trial, fault, broken=broken)
            finally:
                servers.stop()  # before the files it reads are removed
            own = lane(cell, settings).limits
            return judged_blind(trial, fault, found, own, budget, unfaulted, given)

    results: list[Result] = []
    for number, trial in enumerate(TRIALS, 1):
        if any(isinstance(one, Unjudged) and one.trial.control for one in results):
            reason = "the copy without a fault could not be judged: a rejection would show nothing"
            result: Result = Unjudged(trial, reason)
        else:
            try:
                result = tried(trial, f"fault {number} of {len(TRIALS)}")
            except (ShardproofError, OSError) as error:  # one copy's disk is not the others'
                result = Unjudged(trial, f"not judged: {error}")
        results.append(result)
        record_result(rows, result, tp_detects)
    record_summary(rows, results, tp_detects)
    shown = [one for one in results if isinstance(one, Verdict) and not one.trial.control]
    if shown:
        record_evidence(
            cell="faults",
            name="faults/detection",
            columns=("fault", "strength", "rms_d", "limit", "outcome", "judges"),
            rows=tuple(drawn(verdict, budget.tp_rms_d) for verdict in shown),
            definition="seeded faults: relative change of the layer, largest RMS d of a stratum in "
            "nat, the RMS limit of a cell on several ranks; v1",
        )
    rows.settle()
