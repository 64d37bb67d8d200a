"""The proof of sharding finds every way in which ranks can fail to hold a checkpoint."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from fixtures.boxes import Box, grid, joined
from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.model import ModelConfig
from fixtures.coverage import Copy, RankAudit, coverage
from fixtures.miniature import QUANTIZATIONS, Quantization, Recipe, config_json, tensors
from suites.selftest.small_configs import config
from suites.selftest.stub_audit import UNREAD, cut_axis

MODEL = parse_config(config_json(Recipe(intermediate_size=1024)), source="miniature")
SHAPES = {tensor.name: tensor.shape for tensor in tensors(Recipe(intermediate_size=1024))}
KV_HEADS = re.compile(r"self_attn\.[kv]_proj\.")
SCALES = "model.layers.0.mlp.down_proj.scales"


def on_stage(name: str, stage: int, pp: int) -> bool:
    """Two stages of one layer each: the miniature's two."""
    if pp == 1 or "visual" in name:
        return True
    if "layers." in name:
        return f"layers.{stage}." in name
    return stage == (0 if "embed" in name else 1)


Shapes = Mapping[str, tuple[int, ...]]


def honest(
    tp: int, model: ModelConfig = MODEL, pp: int = 1, shapes: Shapes = SHAPES
) -> list[RankAudit]:
    """Audits of ranks that took exactly their share, written into parameters of that shape. What is
    cut where is told by names alone, without the suite's own tables."""
    audits = []
    for stage, rank in itertools.product(range(pp), range(tp)):
        copies, parameters = [], {}
        for name, shape in shapes.items():
            if not on_stage(name, stage, pp) or name.endswith(UNREAD):
                continue
            axis, box = cut_axis(name), [(0, size) for size in shape]
            if axis is not None and shape[axis] > 1:
                ranks = min(tp, model.kv_heads) if KV_HEADS.search(name) else tp
                share = shape[axis] // ranks
                index = rank * ranks // tp
                box[axis] = (index * share, (index + 1) * share)
            local = tuple(end - begin for begin, end in box)
            written: Box = tuple((0, size) for size in local)
            parameters[name] = local
            copies.append(Copy(stage * tp + rank, name, tuple(box), name, written, intact=True))
        number = stage * tp + rank
        audits.append(RankAudit(number, tp, shapes, parameters, 0, tuple(copies), ()))
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


EXTRA = "model.layers.2.input_layernorm.weight"


def test_a_layer_that_the_config_does_not_know_is_dropped() -> None:
    found = coverage(honest(2, pp=2), {**SHAPES, EXTRA: (1024,)}, MODEL, 2, 2)
    assert [(finding.kind, finding.tensor) for finding in found.findings] == [("dropped", EXTRA)]
    assert found.elements - found.elements_held_as_planned == 1024


def test_a_tensor_of_unknown_name_that_is_read_is_no_proof() -> None:
    audits = honest(1)
    copy = replace(audits[0].copies[0], tensor=EXTRA)
    audits[0] = replace(audits[0], copies=(*audits[0].copies, copy))
    found = coverage(audits, {**SHAPES, EXTRA: (1024,)}, MODEL, 1)
    assert [finding.kind for finding in found.findings] == ["unknown"]
    assert not found.proven


def test_a_buffer_that_engines_drop_is_not_missed() -> None:
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    assert coverage(honest(2), {**SHAPES, buffer: (64,)}, MODEL, 2).complete


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


def test_boxes_are_joined_where_none_overlap() -> None:
    experts: list[Box] = [((e, e + 1), (0, 4), (2, 6)) for e in range(128)]
    assert joined(experts) == [((0, 128), (0, 4), (2, 6))]
    twice = [*experts, ((3, 5), (0, 4), (2, 6))]
    assert joined(twice) == twice


def test_an_expert_that_a_rank_takes_twice_is_found() -> None:
    model = parse_config(config("qwen3_vl_moe"), source="c")
    name = "model.language_model.layers.0.mlp.experts.down_proj"
    shape = (8, 256, 512)
    for last, kinds_found in ((8, set()), (7, {"dropped"})):
        copies = tuple(
            Copy(0, name, ((e, e + 1), (0, 256), (0, 512)), "w2", None, intact=True)
            for e in range(last)
        )
        for more, repeated in (((), set()), (copies[:1], {"repeated"})):
            taken = (*copies, *(replace(copy, parameter="w13") for copy in more))
            audit = RankAudit(0, 1, {name: shape}, {}, 0, taken, ())
            found = coverage([audit], {name: shape}, model, 1)
            assert {finding.kind for finding in found.findings} == kinds_found | repeated


def of_format(quant: Quantization) -> tuple[ModelConfig, Shapes]:
    """A miniature that shares out at every size, and its headers."""
    recipe = Recipe(intermediate_size=1024, quant=quant)
    model = parse_config(config_json(recipe), source="miniature")
    return model, {tensor.name: tensor.shape for tensor in tensors(recipe)}


@pytest.mark.parametrize("tp", [1, 2, 4, 8])
@pytest.mark.parametrize("quant", [quant for quant in QUANTIZATIONS if quant != "gptq-act"])
def test_honest_ranks_hold_every_format(quant: Quantization, tp: int) -> None:
    if quant == "fp8" and tp == 8:
        pytest.skip("its KV heads share a block then, and the engine refuses")
    model, shapes = of_format(quant)
    found = coverage(honest(tp, model, shapes=shapes), shapes, model, tp)
    assert found.complete, found.summary()
    assert found.elements == found.elements_held_as_planned


# The parts of down_proj that ranks divide, with the axis of each.
DIVIDED: dict[Quantization, dict[str, int]] = {
    "awq": {"qweight": 0, "qzeros": 0, "scales": 0},
    "gptq": {"qweight": 0, "qzeros": 0, "scales": 0},
    "gptq-v2": {"qweight": 0, "qzeros": 0, "scales": 0},
    "gptq-asym": {"qweight": 0, "qzeros": 0, "scales": 0},
    "compressed-tensors": {"weight_packed": 1, "weight_scale": 1},
    "compressed-tensors-asym": {"weight_packed": 1, "weight_scale": 1, "weight_zero_point": 1},
    "compressed-tensors-channel": {"weight_packed": 1},
    "compressed-tensors-int8": {"weight_packed": 1, "weight_scale": 1},
    "fp8": {"weight": 1, "weight_scale_inv": 1},
    "none": {"weight": 1},
}
EACH = [
    pytest.param(quant, part, axis, id=f"{quant}-{part}")
    for quant, parts in DIVIDED.items()
    for part, axis in parts.items()
]
DOWN = "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(("quant", "part", "axis"), EACH)
def test_in_every_format_a_lost_row_is_found(quant: Quantization, part: str, axis: int) -> None:
    model, shapes = of_format(quant)
    audits, name = honest(2, model, shapes=shapes), f"{DOWN}.{part}"

    def shorter(copy: Copy) -> Copy:
        box = list(copy.box)
        box[axis] = (box[axis][0], box[axis][1] - 1)
        return replace(copy, box=tuple(box))

    audits[1] = changed(audits[1], name, shorter)
    found = coverage(audits, shapes, model, 2)
    lost = [finding for finding in found.findings if finding.kind == "dropped"]
    assert [finding.tensor for finding in lost] == [name]
    assert lost[0].elements == np.prod(shapes[name]) // shapes[name][axis]


@pytest.mark.parametrize(
    ("quant", "part"),
    [(quant, part) for quant, parts in DIVIDED.items() if len(parts) > 1 for part in parts],
)
def test_in_every_format_a_part_read_by_the_wrong_rank_is_found(
    quant: Quantization, part: str
) -> None:
    model, shapes = of_format(quant)
    audits, name = honest(2, model, shapes=shapes), f"{DOWN}.{part}"
    boxes = [copy.box for audit in audits for copy in audit.copies if copy.tensor == name]
    for rank in (0, 1):
        audits[rank] = changed(audits[rank], name, lambda c: replace(c, box=boxes[1 - c.rank]))
    found = coverage(audits, shapes, model, 2)
    assert {finding.kind for finding in found.findings} == {"out_of_step"}
    assert {finding.ranks for finding in found.findings} == {(0,), (1,)}


def test_a_rank_without_the_scales_that_all_need_is_found() -> None:
    model, shapes = of_format("compressed-tensors-channel")
    audits, name = honest(2, model, shapes=shapes), f"{DOWN}.weight_scale"
    audits[1] = changed(audits[1], name, lambda _: None)
    found = coverage(audits, shapes, model, 2)
    assert ("dropped", name) in {(finding.kind, finding.tensor) for finding in found.findings}


def test_shapes_written_over_each_other_lose_nothing_and_weights_do() -> None:
    model, shapes = of_format("compressed-tensors")
    for part, complete in (("weight_shape", True), ("weight_packed", False)):
        audits = honest(1, model, shapes=shapes)
        overwritten = "model.layers.0.self_attn.q_proj." + part
        audits[0] = changed(audits[0], overwritten, lambda c: replace(c, intact=False))
        assert coverage(audits, shapes, model, 1).complete is complete


def test_a_shape_that_nobody_reads_is_not_missed() -> None:
    model, shapes = of_format("compressed-tensors")
    audits = honest(1, model, shapes=shapes)
    audits[0] = changed(audits[0], f"{DOWN}.weight_shape", lambda _: None)
    kinds = {finding.kind for finding in coverage(audits, shapes, model, 1).findings}
    assert kinds == {"unwritten"}  # its parameter is there


def test_one_scale_of_a_fused_layer_is_held_once_however_often_it_is_read() -> None:
    model = parse_config(config("phi3", "fp8_tensor"), source="phi3")
    name = "model.layers.0.self_attn.qkv_proj.weight_scale"
    copies = tuple(Copy(0, name, (), name, ((part, part + 1),), True) for part in range(3))
    audit = RankAudit(0, 1, {name: ()}, {name: (3,)}, 0, copies, ())
    assert coverage([audit], {name: ()}, model, 1).complete
    lacking = coverage([replace(audit, copies=())], {name: ()}, model, 1)
    assert "its one number not held by any rank" in lacking.findings[-1].message


def test_an_order_of_groups_that_nobody_reads_is_lost() -> None:
    model, shapes = of_format("gptq-act")
    found = coverage(honest(1, model, shapes=shapes), shapes, model, 1)
    assert {finding.kind for finding in found.findings} == {"dropped"}
    assert all(finding.tensor.endswith(".g_idx") for finding in found.findings)


def test_defaults_of_the_cache_need_not_be_written_and_parts_of_weights_must() -> None:
    model, shapes = of_format("compressed-tensors")
    for parameter, complete in (("self_attn.attn.k_scale", True), ("self_attn.o_scale", False)):
        audits = honest(1, model, shapes=shapes)
        parameters = {**audits[0].parameters, f"model.layers.0.{parameter}": (1,)}
        audits[0] = replace(audits[0], parameters=parameters)
        assert coverage(audits, shapes, model, 1).complete is complete


def test_a_last_block_that_is_partial_ends_with_its_weights() -> None:
    recipe = Recipe(intermediate_size=1000, quant="fp8")
    model = parse_config(config_json(recipe), source="miniature")
    shapes = {tensor.name: tensor.shape for tensor in tensors(recipe)}
    assert shapes[f"{DOWN}.weight_scale_inv"][1] * 128 > 1000
    found = coverage(honest(1, model, shapes=shapes), shapes, model, 1)
    assert found.complete, found.summary()


def test_fused_heads_that_are_shared_are_held_by_their_replicas() -> None:
    model = parse_config(config("phi3"), source="phi3")
    name, tp = "model.layers.0.self_attn.qkv_proj.weight", 2 * model.kv_heads
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    shapes = {name: (queries + 2 * keys, model.hidden_size)}
    columns = (0, model.hidden_size)

    def audit(rank: int, *, shared: bool) -> RankAudit:
        own = rank // 2 if shared else rank % model.kv_heads // 2
        rows = [(rank * queries // tp, (rank + 1) * queries // tp)]
        for first in (queries, queries + keys):
            rows.append((first + own * model.head_dim, first + (own + 1) * model.head_dim))
        copies = [Copy(rank, name, (span, columns), None, None, True) for span in rows]
        return RankAudit(rank, tp, shapes, {}, 0, tuple(copies), ())

    assert coverage([audit(r, shared=True) for r in range(tp)], shapes, model, tp).complete
    found = coverage([audit(r, shared=False) for r in range(tp)], shapes, model, tp)
    assert {finding.kind for finding in found.findings} == {"dropped", "repeated"}
