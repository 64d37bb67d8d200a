"""The answers, held against the unpadded reference: original-tp1, teacher-forced."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import pytest

from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.deployment import NumericsBudget, PlatformSettings
from fixtures.errors import InputError, UnsupportedError
from fixtures.independent import TokenizedDocument
from fixtures.independent import score as score_independently
from fixtures.matrix import Cell, Matrix
from fixtures.reference import CorpusScores
from fixtures.running import cause_in
from fixtures.serving.client import Unscorable
from fixtures.serving.scoring import write
from fixtures.serving.server import Server
from reports.equivalence import Flips, paired
from reports.record import RecordEvidence, RecordRow
from suites.answers import answered
from suites.baseline import Baseline, ScoringError, at_positions_of, chat_messages, score_corpus
from suites.calibration import StoredNull
from suites.comparison import DECODE as DECODE
from suites.comparison import PREFILLED, Noted, compared, held
from suites.corpus import Document
from suites.evidence import Table, evidence
from suites.expect import Rows
from suites.expect_numerics import expect_caught, expect_close, expect_task, timed
from suites.lanes import Limits
from suites.numerics import Differences, longest_run
from suites.pace import Say
from suites.tasks import Task

pytestmark = pytest.mark.numerics

REPEAT_LIMIT = 12  # of 32 greedy tokens; garbage repeats one token to the end
GREEDY_TOKENS = 32
GREEDY_PROMPTS = 5
REFERENCE = "original-tp1"
INDEPENDENT_BYTES = 8e9  # of weights; a minute or so for each GB in float32


@pytest.fixture
def scores(
    cell: Cell,
    measured: Server,
    baseline: Baseline,
    documents: tuple[Document, ...],
    say: Say,
    record: RecordRow,
) -> CorpusScores:
    """This cell's scores of the corpus; a NaN or a failed request is a failed row of its own."""
    if reason := baseline.unscorable.get(cell.id):
        pytest.fail(f"{cell.id} has no scores to compare: {reason}", pytrace=False)
    if cell.id not in baseline.by_cell:
        rows = Rows(record, cell.id)
        try:
            with timed(rows, "scoring"):
                baseline.by_cell[cell.id] = score_corpus(
                    measured, documents, reference=baseline.scores, say=say
                )
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


def strata(
    reference: CorpusScores,
    candidate: CorpusScores,
    documents: tuple[Document, ...],
    ignored: frozenset[int],
) -> dict[str, list[Differences]]:
    """Differences per document by stratum; decoding is a stratum of its own."""
    return compared(reference, candidate, documents, ignored=ignored).strata


def exact_limits(budget: NumericsBudget) -> Limits:
    """What padding, splitting groups and pipeline stages may move: where arithmetic has one order,
    nothing."""
    return {"max_abs_d": budget.padded_max_abs_d, "hard_flips": 0}


def tp_limits(budget: NumericsBudget) -> Limits:
    """What adding up partial sums in another order may move."""
    return {
        "mean_d": budget.tp_mean_abs_d,
        "rms_d": budget.tp_rms_d,
        "mean_kl": budget.tp_mean_kl,
        "kl_q999": budget.tp_kl_q999,
        "rms_dp": budget.tp_rms_dp,
        "same_top": budget.tp_same_top,
        "hard_flips": 0,
    }


@dataclass(frozen=True, slots=True)
class Lane:
    """A comparison with original-tp1; `floor` is what its RMS d must exceed."""

    name: str
    limits: Limits
    floor: float | None = None


def lane(cell: Cell, settings: PlatformSettings) -> Lane:
    """By what the cell is held against original-tp1."""
    budget = settings.numerics
    if (inexact := budget.inexact.get(cell.variant)) is not None:
        return Lane("quality", {"mean_kl": inexact.mean_kl}, inexact.min_rms_d)
    if cell.tp > 1:
        return Lane("end_to_end", tp_limits(budget))
    if budget.padded_max_abs_d == 0:
        return Lane("exact", exact_limits(budget))
    return Lane("padding", {**tp_limits(budget), **exact_limits(budget)})


def test_close(
    cell: Cell,
    scores: CorpusScores,
    baseline: Baseline,
    documents: tuple[Document, ...],
    settings: PlatformSettings,
    placeholders: frozenset[int],
    null: StoredNull,
    record: RecordRow,
    record_evidence: RecordEvidence,
) -> None:
    """The cell answers as the original does; a cell planned to answer wrongly is caught at it."""
    if baseline.scores is None:
        pytest.fail(f"{REFERENCE} has no scores to compare with", pytrace=False)
    if scores is baseline.scores:
        pytest.skip(f"{cell.id} is the reference of this run, scored just now: no second opinion")
    silent = cell.plan.failure_class == "silent"
    own = f"{cell.variant}-tp1"
    if silent and cell.variant != "original" and own not in baseline.by_cell:
        pytest.skip(f"{own} was not scored in this run: select it too to judge {cell.id} by it")
    # A silent cell of a changed checkpoint differs from the original anyway: its own tp1 judges it.
    against = own if silent else REFERENCE
    reference = baseline.by_cell.get(own, baseline.scores) if silent else baseline.scores
    judged_by = lane(cell, settings)
    rows = Rows(record, cell.id)
    found = held(
        rows,
        "control" if silent else judged_by.name,
        reference,
        scores,
        documents,
        placeholders,
        alike=not silent and judged_by.floor is None,
    )
    noted = Noted(record, found)
    margin = settings.numerics.flip_margin
    for table in evidence(found.strata, against=against, flip_margin=margin):
        record_evidence(cell=cell.id, **asdict(with_null(table, null)))
    if silent:
        expect_caught(noted, cell.id, found.strata, settings.numerics.tp_rms_d, against=against)
        return
    expect_close(
        noted,
        cell.id,
        judged_by.name,
        found.strata,
        judged_by.limits,
        against=against,
        flip_margin=margin,
        floor=judged_by.floor,
    )
    rows.settle()


def with_null(table: Table, null: StoredNull) -> Table:
    """The KL of a cell beside that of the null of its conditions; where there is none, why not."""
    if table.name != "numerics/kl_quantiles":
        return table
    kinds = {row[0] for row in table.rows}
    more = [
        (stratum, "null", quantile, kl)
        for stratum, found in null.quantiles.items()
        for quantile, kl in found
        if stratum in kinds
    ]
    return replace(table, rows=(*table.rows, *more), definition=f"{table.definition}. {null.told}")


def test_tensor_parallel_alone(
    cell: Cell,
    scores: CorpusScores,
    baseline: Baseline,
    documents: tuple[Document, ...],
    settings: PlatformSettings,
    placeholders: frozenset[int],
    record: RecordRow,
) -> None:
    """A variant at tp N answers as the same variant on one rank: padding and sharding apart."""
    own = f"{cell.variant}-tp1"
    if cell.tp == 1 or cell.plan.failure_class == "silent":
        pytest.skip(f"{cell.id}: nothing to compare with {own}")
    if own not in baseline.by_cell:
        pytest.skip(f"{own} was not scored in this run: select it too to separate the two effects")
    rows = Rows(record, cell.id)
    found = held(rows, "tp", baseline.by_cell[own], scores, documents, placeholders)
    expect_close(
        Noted(record, found),
        cell.id,
        "tp",
        found.strata,
        tp_limits(settings.numerics),
        against=own,
        flip_margin=settings.numerics.flip_margin,
    )
    rows.settle()


@pytest.mark.reference
def test_independent(
    cell: Cell,
    measured: Server,
    matrix: Matrix,
    baseline: Baseline,
    documents: tuple[Document, ...],
    settings: PlatformSettings,
    placeholders: frozenset[int],
    record: RecordRow,
) -> None:
    """The reference every cell is held against is what its own numbers say in float32."""
    if baseline.scores is None:
        pytest.fail(f"{measured.model} has no scores to judge", pytrace=False)
    directory = matrix.directory("original")
    size = sum(info.nbytes for info in read_checkpoint(directory).tensors.values())
    if size > INDEPENDENT_BYTES:
        pytest.skip(
            f"{size / 1e9:.0f} GB in float32 on a CPU take hours: `python -m fixtures.independent "
            "DIR --text ...` scores a text of your choice"
        )
    served = baseline.scores.prefilled
    asked = [TokenizedDocument(one.id, served[one.id].token_ids, one.image) for one in documents]
    rows = Rows(record, cell.id)
    try:
        own = score_independently(directory, asked)
    except UnsupportedError as error:
        pytest.skip(f"no independent reference: {error}")
    except InputError as error:
        rows.add(
            "numerics/independent/scored",
            "invalid",
            reason=str(error),
            advice="Nothing else judges original-tp1, by which every other cell is judged",
        )
        rows.settle()
        return
    counted = {name: at_positions_of(served[name], scored) for name, scored in own.items()}
    found = held(
        rows,
        "independent",
        CorpusScores(counted, {}),
        CorpusScores(served, {}),
        documents,
        placeholders,
        undecoded=PREFILLED,
    )
    budget = settings.numerics
    method = matrix.original.quant.method
    own_limits = budget.independent.get(method)
    limits: Limits = (
        {} if own_limits is None else {"rms_d": own_limits.rms_d, "mean_kl": own_limits.mean_kl}
    )
    expect_close(
        Noted(record, found),
        cell.id,
        "independent",
        found.strata,
        limits,
        against="transformers in float32 on dequantized weights",
        flip_margin=budget.flip_margin,
    )
    rows.settle()


def test_tasks(
    cell: Cell,
    measured: Server,
    baseline: Baseline,
    asked_tasks: tuple[Task, ...],
    settings: PlatformSettings,
    say: Say,
    record: RecordRow,
) -> None:
    """What the original answers rightly, the cell does."""
    before = baseline.right or {}
    known, needed = sum(before.values()), Flips.needed(settings.numerics.task_loss)
    if known < needed:
        pytest.skip(
            f"{REFERENCE} answers {known} of {len(before)} tasks rightly (random weights?): to "
            f"show that few are lost takes {needed}"
        )
    if cell.plan.failure_class == "silent":
        pytest.skip(f"{cell.id} is planned to answer wrongly: nobody expects it to do tasks")
    rows = Rows(record, cell.id)
    try:
        with timed(rows, "tasks"):
            after = answered(measured, asked_tasks, say)
    except ScoringError as error:
        rows.add(
            "numerics/task/answered", "failed", reason=str(error), advice=cause_in(measured.log)
        )
        rows.settle()
        return
    exact = cell.variant not in settings.numerics.inexact
    for stratum, pictures in (("text", False), ("image", True)):
        ids = [one.id for one in asked_tasks if (one.image is not None) is pictures]
        if ids:
            flips = paired([before[one] for one in ids], [after[one] for one in ids])
            expect_task(rows, stratum, flips, settings.numerics.task_loss if exact else None)
    rows.settle()


def test_no_repeated_token(
    cell: Cell, measured: Server, documents: tuple[Document, ...], record: RecordRow
) -> None:
    """Not every greedy answer is one repeated token, the mark of a broken kernel.

    Every one: a healthy model may repeat itself after some prompt, NaN does after each.
    """
    texts = [document.text for document in documents if document.image is None]
    chats = [chat_messages(document) for document in documents if document.image is not None]
    asked = (texts or chats)[:GREEDY_PROMPTS]
    rows = Rows(record, cell.id)
    runs = []
    found = write(measured, asked, tokens=GREEDY_TOKENS, past_end=True, concurrency=GREEDY_PROMPTS)
    for written in found:
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
