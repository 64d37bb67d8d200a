"""The proof of sharding finds every way in which ranks can fail to hold a checkpoint."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.layout import place
from fixtures.checkpoint.model import ModelConfig
from fixtures.coverage import Box, Copy, RankAudit, coverage, grid
from fixtures.miniature import Recipe, config_json, tensors

MODEL = parse_config(config_json(Recipe(intermediate_size=1024)), source="miniature")
SHAPES = {tensor.name: tensor.shape for tensor in tensors(Recipe(intermediate_size=1024))}
SCALES = "model.layers.0.mlp.down_proj.scales"


def on_stage(name: str, stage: int, pp: int) -> bool:
    """Two stages of one layer each: the miniature's two."""
    if pp == 1 or "visual" in name:
        return True
    if "layers." in name:
        return f"layers.{stage}." in name
    return stage == (0 if "embed" in name else 1)


def honest(tp: int, model: ModelConfig = MODEL, pp: int = 1) -> list[RankAudit]:
    """Audits of ranks that took exactly their share, written into parameters of that shape."""
    audits = []
    for stage, rank in itertools.product(range(pp), range(tp)):
        copies, parameters = [], {}
        for name, shape in SHAPES.items():
            if not on_stage(name, stage, pp):
                continue
            where = place(name, model.quant)
            assert where is not None
            box = [(0, size) for size in shape]
            if where.cut_axis is not None:
                ranks = min(tp, model.kv_heads) if where.parallel == "kv_heads" else tp
                share = shape[where.cut_axis] // ranks
                index = rank * ranks // tp
                box[where.cut_axis] = (index * share, (index + 1) * share)
            local = tuple(end - begin for begin, end in box)
            written: Box = tuple((0, size) for size in local)
            parameters[name] = local
            copies.append(Copy(stage * tp + rank, name, tuple(box), name, written, intact=True))
        number = stage * tp + rank
        audits.append(RankAudit(number, tp, SHAPES, parameters, 0, tuple(copies), ()))
    return audits


def changed(audit: RankAudit, name: str, change: Callable[[Copy], Copy | None]) -> RankAudit:
    """The audit with one tensor's copy replaced, or removed."""
    copies = (change(copy) if copy.tensor == name else copy for copy in audit.copies)
    return replace(audit, copies=tuple(copy for copy in copies if copy is not None))


@pytest.mark.parametrize("tp", [1, 2])
def test_honest_stages_hold_everything_between_them(tp: int) -> None:
    found = coverage(honest(tp, pp=2), SHAPES, MODEL, tp, 2)
    assert found.complete, found.summary()
    assert found.elements == found.elements_held_as_planned
    # Read as ranks of one stage, each lacks what the other holds.
    assert not coverage(honest(1, pp=2), SHAPES, MODEL, 2).complete


def test_a_tensor_on_the_wrong_stage_is_missing_there_and_named_here() -> None:
    first, second = honest(1, pp=2)
    norm = next(copy for copy in second.copies if copy.tensor == "model.norm.weight")
    lacks = changed(second, "model.norm.weight", lambda _: None)
    moved = replace(first, copies=(*first.copies, replace(norm, rank=0)))
    found = coverage([moved, lacks], SHAPES, MODEL, 1, 2)
    assert [finding.kind for finding in found.findings] == ["unwritten", "dropped", "repeated"]
    assert "held by another stage than its own" in found.findings[2].message
    assert found.elements - found.elements_held_as_planned == 1024


def test_a_stage_that_left_no_record_is_no_proof() -> None:
    found = coverage(honest(2, pp=2)[:3], SHAPES, MODEL, 2, 2)
    assert [(finding.kind, finding.ranks) for finding in found.findings] == [("no_audit", (3,))]


def kinds(audits: list[RankAudit], tp: int, model: ModelConfig = MODEL) -> set[str]:
    return {finding.kind for finding in coverage(audits, SHAPES, model, tp).findings}


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_honest_ranks_hold_everything(tp: int) -> None:
    found = coverage(honest(tp), SHAPES, MODEL, tp)
    assert found.complete
    assert found.elements == found.elements_held_as_planned
    assert found.elements == sum(int(np.prod(shape)) for shape in SHAPES.values())


def test_kv_heads_fewer_than_ranks_are_held_by_their_replicas() -> None:
    model = replace(MODEL, kv_heads=4)
    assert coverage(honest(8, model), SHAPES, model, 8).complete
    assert "repeated" in kinds(honest(8, model), 8, MODEL)


def test_dropped_rows_are_named_with_tensor_rows_and_ranks() -> None:
    audits = honest(2)
    shorter = (0, 3)
    audits[0] = changed(audits[0], SCALES, lambda c: replace(c, box=(shorter, c.box[1])))
    found = coverage(audits, SHAPES, MODEL, 2)
    message = found.findings[0].message
    assert f"{SCALES}: row 3 of 8 not held by any rank (1024 elements" in message
    assert "rank 0: 0..2, rank 1: 4..7" in message
    assert found.elements - found.elements_held_as_planned == 1024


def test_scales_out_of_step_with_their_weights_are_found() -> None:
    audits = honest(2)
    audits[0] = changed(audits[0], SCALES, lambda c: replace(c, box=((0, 3), c.box[1])))
    audits[1] = changed(audits[1], SCALES, lambda c: replace(c, box=((3, 8), c.box[1])))
    assert kinds(audits, 2) == {"out_of_step"}


def test_rows_held_twice_are_found() -> None:
    audits = honest(2)
    audits[0] = changed(audits[0], SCALES, lambda c: replace(c, box=((0, 8), c.box[1])))
    assert "repeated" in kinds(audits, 2)


def test_a_tensor_nobody_read_is_found() -> None:
    audits = [changed(audit, "model.norm.weight", lambda _: None) for audit in honest(2)]
    found = kinds(audits, 2)
    assert found == {"dropped", "unwritten"}


def test_a_layer_that_the_config_does_not_know_is_dropped() -> None:
    extra = "model.layers.2.input_layernorm.weight"
    found = coverage(honest(2, pp=2), {**SHAPES, extra: (1024,)}, MODEL, 2, 2)
    assert [(finding.kind, finding.tensor) for finding in found.findings] == [("dropped", extra)]


def test_a_replica_that_one_rank_lacks_is_found() -> None:
    audits = honest(2)
    audits[1] = changed(audits[1], "model.norm.weight", lambda _: None)
    assert "dropped" in kinds(audits, 2)


def test_a_box_overwritten_after_its_copy_is_found() -> None:
    audits = honest(2)
    audits[1] = changed(audits[1], SCALES, lambda c: replace(c, intact=False))
    assert kinds(audits, 2) == {"altered"}


def test_a_parameter_half_written_is_found() -> None:
    audits = honest(2)
    audits[0] = changed(audits[0], SCALES, lambda c: replace(c, written=((0, 2), (0, 1024))))
    assert kinds(audits, 2) == {"unwritten"}


def test_a_rank_without_an_audit_is_no_proof() -> None:
    found = coverage(honest(4)[:3], SHAPES, MODEL, 4)
    assert [finding.kind for finding in found.findings] == ["no_audit"]
    assert not found.proven
    assert "there is no proof of what the ranks hold: ranks [3] left no audit" in found.summary()


def test_a_recorder_that_failed_is_no_proof() -> None:
    audits = honest(1)
    audits[0] = replace(audits[0], faults=("Traceback\nValueError: broken",))
    assert kinds(audits, 1) == {"fault"}


def test_the_grid_counts_like_a_plain_array() -> None:
    generator = np.random.default_rng(7)
    shape = (9, 13)
    for _ in range(25):
        boxes: list[Box] = []
        plain = np.zeros(shape, dtype=int)
        for _ in range(int(generator.integers(0, 5))):
            rows = sorted(int(n) for n in generator.integers(0, 10, 2))
            columns = sorted(int(n) for n in generator.integers(0, 14, 2))
            boxes.append(((rows[0], rows[1]), (columns[0], columns[1])))
            plain[rows[0] : rows[1], columns[0] : columns[1]] += 1
        counted = np.full(shape, -1)
        for part in grid(shape, boxes):
            (top, bottom), (left, right) = part
            inside = [b for b in boxes if b[0][0] <= top < b[0][1] and b[1][0] <= left < b[1][1]]
            counted[top:bottom, left:right] = len(inside)
        assert (counted == plain).all()
