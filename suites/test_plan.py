"""The prediction, held against the headers on disk: no engine is needed."""

from __future__ import annotations

import math

import pytest

from fixtures.checkpoint.layout import Place, locate, unread
from fixtures.checkpoint.tensors import MANIFEST, read_checkpoint
from fixtures.errors import InputError, ProofError
from fixtures.matrix import Cell, Matrix
from fixtures.variants import verify
from reports.record import RecordRow
from suites.expect import Rows

pytestmark = pytest.mark.plan

# What a proof of each kind of variant comes to.
_PROVEN = {
    "padded": "real channels are the source's, added ones exactly zero",
    "trimmed": "kept channels are the source's",
    "regrouped": "every weight dequantizes to the source's",
}

GROUP_SCALES = ("scales", "weight_scale")  # one for each group of inputs, where there are groups
GROUP_RULES = ("group_straddles_rank", "expert_group_straddles_rank")


def _fits(where: Place, shape: tuple[int, ...]) -> bool:
    """One number is stored with and without an axis; a map that orders nothing may be empty."""
    promised = where.stored.shape
    return (
        shape == promised
        or {shape, promised} == {(), (1,)}
        or (shape == (0,) and not where.counted)
    )


def test_headers(runnable: Cell, matrix: Matrix, record: RecordRow) -> None:
    """Every tensor on disk has the shape the config promises: the plan speaks of these weights."""
    checkpoint = read_checkpoint(matrix.directory(runnable.variant))
    rows = Rows(record, runnable.id)
    wrong = []
    for name, info in checkpoint.tensors.items():
        where = locate(name, checkpoint.config)
        if where is None:
            if not unread(name, checkpoint.config):
                wrong.append(f"{name} is in no table of tensor names")
        elif not _fits(where, info.shape):
            wrong.append(
                f"{name} is {list(info.shape)}, config.json promises {list(where.stored.shape)}: "
                "the engine would drop or miss the difference"
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
    groups, straddled = {}, set()
    for name, info in checkpoint.tensors.items():
        where = locate(name, checkpoint.config)
        if where is None or where.part not in GROUP_SCALES or where.parallel != "row":
            continue
        axis, group = where.cut_axis, where.stored.scheme.group
        if axis is not None and group:
            groups[where.pattern] = group
            if info.shape[axis] % runnable.tp:
                straddled.add(where.pattern)
    planned = {
        obstacle.layer
        for obstacle in runnable.plan.obstacles
        if obstacle.rule in GROUP_RULES
        and (size := groups.get(obstacle.layer))
        and math.gcd(obstacle.granule, size) == size
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
            reason = f"digests hold, and {_PROVEN[verified.manifest.kind]}"
            rows.add("plan/proof", "passed", reason=reason)
    rows.settle()
