"""The prediction, held against the headers on disk: no engine is needed."""

from __future__ import annotations

import math

import pytest

from fixtures.checkpoint.layout import expected_shape, place
from fixtures.checkpoint.tensors import MANIFEST, read_checkpoint
from fixtures.errors import InputError, ProofError
from fixtures.matrix import Cell, Matrix
from fixtures.variants import verify
from reports.record import RecordRow
from suites.expect import Rows

pytestmark = pytest.mark.plan


def test_headers(runnable: Cell, matrix: Matrix, record: RecordRow) -> None:
    """Every tensor on disk has the shape the config promises: the plan speaks of these weights."""
    checkpoint = read_checkpoint(matrix.directory(runnable.variant))
    rows = Rows(record, runnable.id)
    wrong = []
    for name, info in checkpoint.tensors.items():
        where = place(name, checkpoint.config.quant)
        if where is None:
            wrong.append(f"{name} is in no table of tensor names")
            continue
        promised = expected_shape(where, checkpoint.config)
        if promised is not None and promised != info.shape:
            wrong.append(
                f"{name} is {list(info.shape)}, config.json promises {list(promised)}: the engine "
                "would drop or miss the difference"
            )
    rows.add(
        "plan/headers",
        "failed" if wrong else "passed",
        value=float(len(wrong)),
        unit="tensor",
        n=len(checkpoint.tensors),
        limit=0.0,
        better="exact",
        definition="tensors whose header disagrees with config.json; v1",
        reason="; ".join(wrong[:3]) or None,
        advice="Correct config.json, or rebuild the variant",
    )
    rows.settle()


def test_groups(runnable: Cell, matrix: Matrix, record: RecordRow) -> None:
    """The plan finds a straddled group exactly where the scale rows on disk cannot be shared."""
    checkpoint = read_checkpoint(matrix.directory(runnable.variant))
    rows = Rows(record, runnable.id)
    straddled = {
        where.pattern
        for name, info in checkpoint.tensors.items()
        if (where := place(name, checkpoint.config.quant)) is not None
        and where.part == "scales"
        and where.parallel == "row"
        and info.shape[0] % runnable.tp
    }
    group = checkpoint.config.quant.group_size
    planned = {
        obstacle.layer
        for obstacle in runnable.plan.obstacles
        if obstacle.rule == "group_straddles_rank" and math.gcd(obstacle.granule, group) == group
    }
    agree = straddled == planned
    rows.add(
        "plan/groups",
        "passed" if agree else "failed",
        value=float(len(straddled ^ planned)),
        unit="layer",
        n=len(checkpoint.tensors),
        limit=0.0,
        better="exact",
        definition="layers on whose scale rows headers and plan disagree; v1",
        reason=None if agree else f"on disk: {sorted(straddled)}; planned: {sorted(planned)}",
        advice="The checkpoint's scales do not follow its config's group size",
    )
    rows.settle()


def test_proof(runnable: Cell, matrix: Matrix, record: RecordRow) -> None:
    """A variant is what its manifest says, byte by byte."""
    directory = matrix.directory(runnable.variant)
    rows = Rows(record, runnable.id)
    if not (directory / MANIFEST).exists():
        pytest.skip(
            f"{directory.name} carries no {MANIFEST}: nothing to re-prove; its numerics judge it"
        )
    try:
        verified = verify(directory)
    except (ProofError, InputError) as error:
        advice = f"Do not ship it. Remove {directory} and build it again"
        rows.add("plan/proof", "failed", reason=str(error), advice=advice)
    else:
        if verified.not_proven:
            reason = f"not everything could be proven again: {'; '.join(verified.not_proven)}"
            rows.add("plan/proof", "inconclusive", reason=reason, advice="Build it again")
        else:
            reason = "digests, real channels and zero channels hold"
            rows.add("plan/proof", "passed", reason=reason)
    rows.settle()
