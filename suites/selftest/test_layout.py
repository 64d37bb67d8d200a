import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.layout import Place, expected_shape, place
from fixtures.checkpoint.schemes import UNQUANTIZED, QuantConfig
from suites.selftest.test_config import FLAT

AWQ = QuantConfig("awq", 4, 128, True, ("visual",))


def found(name: str, quant: QuantConfig = AWQ) -> Place:
    where = place(name, quant)
    assert where is not None, f"{name} has no place"
    return where


@pytest.mark.parametrize(
    ("name", "role", "parallel", "cut_axis"),
    [
        ("model.layers.0.self_attn.q_proj.qweight", "q_proj", "qkv_heads", 1),
        ("model.layers.0.self_attn.q_proj.bias", "q_proj", "qkv_heads", 0),
        ("model.layers.79.self_attn.k_proj.scales", "k_proj", "kv_heads", 1),
        ("model.layers.79.self_attn.v_proj.weight", "v_proj", "kv_heads", 0),
        ("model.layers.1.self_attn.o_proj.qzeros", "o_proj", "row", 0),
        ("model.layers.1.self_attn.o_proj.weight", "o_proj", "row", 1),
        ("model.layers.0.mlp.gate_proj.qweight", "gate_proj", "column", 1),
        ("model.layers.0.mlp.up_proj.weight", "up_proj", "column", 0),
        ("model.layers.0.mlp.down_proj.qweight", "down_proj", "row", 0),
        ("model.layers.0.mlp.down_proj.bias", "down_proj", "row", None),
        ("model.language_model.layers.3.mlp.down_proj.scales", "down_proj", "row", 0),
        ("language_model.model.layers.3.mlp.down_proj.scales", "down_proj", "row", 0),
        ("model.layers.0.input_layernorm.weight", "norm", "replicated", None),
        ("model.layers.0.self_attn.q_norm.weight", "head_norm", "replicated", None),
        ("model.norm.weight", "norm", "replicated", None),
        ("model.language_model.norm.weight", "norm", "replicated", None),
        ("model.embed_tokens.weight", "embed_tokens", "vocab", 0),
        ("lm_head.weight", "lm_head", "vocab", 0),
        ("visual.blocks.0.attn.qkv.weight", "vision.attn.qkv", "column", 0),
        ("visual.blocks.0.attn.qkv.bias", "vision.attn.qkv", "column", 0),
        ("visual.blocks.31.attn.proj.weight", "vision.attn.proj", "row", 1),
        ("visual.blocks.31.attn.proj.bias", "vision.attn.proj", "row", None),
        ("model.visual.blocks.0.mlp.down_proj.weight", "vision.mlp.down_proj", "row", 1),
        ("visual.blocks.0.mlp.gate_proj.bias", "vision.mlp.gate_proj", "column", 0),
        ("visual.blocks.0.norm2.weight", "vision.norm", "replicated", None),
        ("visual.merger.ln_q.weight", "vision.norm", "replicated", None),
        ("visual.merger.mlp.0.weight", "vision.merger.0", "column", 0),
        ("model.visual.merger.mlp.2.weight", "vision.merger.2", "row", 1),
        ("visual.patch_embed.proj.weight", "vision.patch_embed", "replicated", None),
    ],
)
def test_a_tensor_is_cut_where_its_layer_says(
    name: str, role: str, parallel: str, cut_axis: int | None
) -> None:
    where = found(name)
    assert (where.role, where.parallel, where.cut_axis) == (role, parallel, cut_axis)
    assert f"{where.module}.{where.part}" == name


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.experts.0.down_proj.weight",
        "model.layers.0.mlp.down_proj.g_idx",
        "model.layers.0.mlp.down_proj.weight_packed",
        "model.layers.x.mlp.down_proj.weight",
        "mtp.layers.0.mlp.down_proj.weight",
        "visual.blocks.0.mlp.down_proj.qweight.extra",
        "model.norm.bias",
        "weight",
        "",
    ],
)
def test_an_unknown_tensor_has_no_place(name: str) -> None:
    assert place(name, AWQ) is None


def test_packed_parts_are_unknown_to_a_checkpoint_that_is_not_quantized() -> None:
    assert place("model.layers.0.mlp.down_proj.qweight", UNQUANTIZED) is None


@pytest.mark.parametrize(
    ("part", "steps"), [("qweight", (1, 8)), ("qzeros", (128, 8)), ("scales", (128, 1))]
)
def test_one_index_step_covers_a_word_or_a_group(part: str, steps: tuple[int, int]) -> None:
    where = found(f"model.layers.0.mlp.down_proj.{part}")
    assert (where.in_step, where.out_step) == steps
    assert where.cut_step == steps[0]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.mlp.down_proj.qweight", (29568, 1024)),
        ("model.layers.0.mlp.down_proj.qzeros", (231, 1024)),
        ("model.layers.0.mlp.down_proj.scales", (231, 8192)),
        ("model.layers.0.mlp.gate_proj.qweight", (8192, 3696)),
        ("model.layers.0.mlp.gate_proj.weight", (29568, 8192)),
        ("model.layers.0.self_attn.k_proj.bias", (1024,)),
        ("model.norm.weight", (8192,)),
        ("lm_head.weight", (152064, 8192)),
        ("visual.blocks.0.attn.qkv.weight", (3840, 1280)),
        ("visual.blocks.0.norm1.weight", (1280,)),
        ("visual.merger.mlp.0.weight", None),
    ],
)
def test_shapes_are_those_of_the_published_72b(name: str, shape: tuple[int, ...] | None) -> None:
    assert expected_shape(found(name), parse_config(FLAT, source="c")) == shape


def test_only_the_text_mlp_has_the_intermediate_axis() -> None:
    sides = {
        "model.layers.0.mlp.gate_proj.qweight": "out",
        "model.layers.0.mlp.up_proj.bias": "out",
        "model.layers.0.mlp.down_proj.scales": "in",
        "model.layers.0.mlp.down_proj.bias": None,
        "visual.blocks.0.mlp.down_proj.weight": None,
        "model.layers.0.self_attn.o_proj.qweight": None,
    }
    assert {name: found(name).resized for name in sides} == sides


def test_a_pattern_names_all_layers_at_once() -> None:
    where = found("model.layers.17.mlp.down_proj.qweight")
    assert (where.layer, where.pattern) == (17, "model.layers.*.mlp.down_proj")
    assert found("lm_head.weight").layer is None
