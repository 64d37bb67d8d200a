"""Where each format's tensors sit, and how ranks divide them: by their names as checkpoints have
them, against sides and axes written down here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.layout import Parallel, Place, is_multi_token, locate, unread
from fixtures.checkpoint.model import ModelConfig
from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.miniature import Quantization, Recipe, config_json
from suites.selftest.small_configs import config
from suites.selftest.test_config import FLAT
from suites.selftest.tiny import Tiny

AWQ = parse_config(FLAT, source="c")


def miniature(quant: Quantization) -> ModelConfig:
    return parse_config(config_json(Recipe(quant=quant)), source="miniature")


def found(name: str, model: ModelConfig = AWQ) -> Place:
    where = locate(name, model)
    assert where is not None, f"{name} has no place"
    return where


@pytest.mark.parametrize(
    ("name", "parallel", "cut_axis"),
    [
        ("model.layers.0.self_attn.q_proj.qweight", "qkv_heads", 1),
        ("model.layers.0.self_attn.q_proj.bias", "qkv_heads", 0),
        ("model.layers.79.self_attn.k_proj.scales", "kv_heads", 1),
        ("model.layers.1.self_attn.o_proj.qzeros", "row", 0),
        ("model.layers.0.mlp.gate_proj.qweight", "column", 1),
        ("model.layers.0.mlp.down_proj.qweight", "row", 0),
        ("model.language_model.layers.3.mlp.down_proj.scales", "row", 0),
        ("language_model.model.layers.3.mlp.down_proj.scales", "row", 0),
        ("model.layers.0.input_layernorm.weight", "replicated", None),
        ("model.norm.weight", "replicated", None),
        ("model.language_model.norm.weight", "replicated", None),
        ("model.embed_tokens.weight", "vocab", 0),
        ("lm_head.weight", "vocab", 0),
        ("visual.blocks.0.attn.qkv.weight", "column", 0),
        ("visual.blocks.0.attn.qkv.bias", "column", 0),
        ("visual.blocks.31.attn.proj.weight", "row", 1),
        ("visual.blocks.31.attn.proj.bias", "row", None),
        ("model.visual.blocks.0.mlp.down_proj.weight", "row", 1),
        ("visual.blocks.0.mlp.gate_proj.bias", "column", 0),
        ("visual.blocks.0.norm2.weight", "replicated", None),
        ("visual.merger.ln_q.weight", "replicated", None),
        ("visual.merger.mlp.0.weight", "column", 0),
        ("model.visual.merger.mlp.2.weight", "row", 1),
        ("visual.patch_embed.proj.weight", "replicated", None),
    ],
)
def test_a_tensor_is_cut_where_its_layer_says(
    name: str, parallel: Parallel, cut_axis: int | None
) -> None:
    where = found(name)
    assert (where.parallel, where.cut_axis) == (parallel, cut_axis)
    assert f"{where.module}.{where.part}" == name


DOWN, GATE = "model.layers.0.mlp.down_proj", "model.layers.0.mlp.gate_proj"


@pytest.mark.parametrize(
    ("quant", "part", "down", "gate"),
    [
        # (axis, features an index covers), of down_proj's inputs and of gate_proj's outputs
        ("awq", "qweight", (0, 1), (1, 8)),
        ("awq", "qzeros", (0, 128), (1, 8)),
        ("awq", "scales", (0, 128), (1, 1)),
        ("gptq", "qweight", (0, 8), (1, 1)),
        ("gptq-v2", "qzeros", (0, 128), (1, 8)),
        ("gptq-asym", "scales", (0, 128), (1, 1)),
        ("gptq", "g_idx", (0, 1), (None, 1)),
        ("compressed-tensors", "weight_packed", (1, 8), (0, 1)),
        ("compressed-tensors", "weight_scale", (1, 128), (0, 1)),
        ("compressed-tensors", "weight_shape", (None, 1), (None, 1)),
        ("compressed-tensors-asym", "weight_zero_point", (1, 128), (0, 8)),
        ("compressed-tensors-int8", "weight_packed", (1, 4), (0, 1)),
        ("fp8", "weight", (1, 1), (0, 1)),
        ("fp8", "weight_scale_inv", (1, 128), (0, 128)),
        ("none", "weight", (1, 1), (0, 1)),
    ],
)
def test_each_format_is_cut_along_its_own_axes(
    quant: Quantization, part: str, down: tuple[int | None, int], gate: tuple[int | None, int]
) -> None:
    model = miniature(quant)
    for module, expected in ((DOWN, down), (GATE, gate)):
        where = found(f"{module}.{part}", model)
        assert (where.cut_axis, where.cut_step) == expected


def test_one_scale_for_all_inputs_is_everyone_s() -> None:
    model = miniature("compressed-tensors-channel")
    assert found(f"{DOWN}.weight_scale", model).cut_axis is None
    assert found(f"{GATE}.weight_scale", model).cut_axis == 0


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.mlp.experts.0.down_proj.weight",
        "model.layers.0.mlp.down_proj.weight_packed",
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.x.mlp.down_proj.qweight",
        "model.layers.80.mlp.down_proj.qweight",
        "visual.blocks.0.mlp.down_proj.qweight.extra",
        "model.norm.bias",
        "weight",
        "",
    ],
)
def test_an_unknown_tensor_has_no_place_and_is_not_passed_over(name: str) -> None:
    assert locate(name, AWQ) is None
    assert not unread(name, AWQ)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.layers.0.mlp.down_proj.g_idx",
        "mtp.layers.0.mlp.down_proj.weight",
    ],
)
def test_what_every_engine_drops_is_passed_over(name: str) -> None:
    assert unread(name, AWQ)


def test_only_gptq_s_quantizers_write_biases_that_no_layer_has() -> None:
    bias = f"{DOWN}.bias"
    assert unread(bias, miniature("gptq"))
    assert not unread(bias, miniature("compressed-tensors"))
    assert not unread(bias, miniature("awq"))
    assert not unread("model.layers.0.input_layernorm.bias", miniature("gptq"))


def test_layers_of_multi_token_prediction_are_passed_over() -> None:
    model = replace(AWQ, extra_layers=1)
    assert unread("model.layers.80.mlp.down_proj.qweight", model)
    assert not unread("model.layers.81.mlp.down_proj.qweight", model)
    names = [f"model.layers.{i}.enorm.weight" for i in (79, 80, 81)]
    assert [is_multi_token(name, model) for name in names] == [False, True, False]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.mlp.down_proj.qweight", (29568, 1024)),
        ("model.layers.0.mlp.down_proj.qzeros", (231, 1024)),
        ("model.layers.0.mlp.gate_proj.qweight", (8192, 3696)),
        ("model.layers.0.self_attn.k_proj.bias", (1024,)),
        ("lm_head.weight", (152064, 8192)),
        ("visual.blocks.0.attn.qkv.weight", (3840, 1280)),
        ("visual.merger.mlp.0.weight", (5120, 5120)),
    ],
)
def test_shapes_are_those_of_the_published_72b(name: str, shape: tuple[int, ...]) -> None:
    assert found(name).stored.shape == shape


def test_an_mlp_is_one_unit_and_attention_is_not() -> None:
    units = {
        "model.layers.0.mlp.gate_proj.qweight": "model.layers.0.mlp",
        "model.layers.0.mlp.down_proj.scales": "model.layers.0.mlp",
        "visual.blocks.0.mlp.down_proj.weight": "visual.blocks.0.mlp",
        "model.layers.0.self_attn.o_proj.qweight": "model.layers.0.self_attn.o_proj",
        "model.norm.weight": "model.norm",
    }
    assert {name: found(name).unit for name in units} == units
    fused = "model.layers.0.mlp.gate_up_proj"
    assert found(f"{fused}.weight", parse_config(config("phi3"), source="c")).unit == fused


def test_vectors_of_linear_attention_are_divided_and_its_norm_is_not() -> None:
    model = parse_config(config("qwen3_next"), source="c")
    axes = {"A_log": 0, "dt_bias": 0, "conv1d.weight": 0, "norm.weight": None}
    for name, axis in axes.items():
        assert found(f"model.layers.0.linear_attn.{name}", model).cut_axis == axis


def test_a_pattern_names_all_layers_at_once() -> None:
    where = found("model.language_model.layers.17.mlp.down_proj.qweight")
    assert (where.layer, where.pattern) == (17, "model.layers.*.mlp.down_proj")
    assert found("lm_head.weight").layer is None
    assert found("visual.merger.mlp.2.weight").layer is None


def test_fused_heads_are_shared_where_they_are_too_few() -> None:
    model = parse_config(config("phi3"), source="c")
    where = found("model.layers.0.self_attn.qkv_proj.weight", model)
    queries, keys = model.heads * model.head_dim, model.kv_heads * model.head_dim
    spans = [
        ((0, queries), 1),
        ((queries, queries + keys), 2),
        ((queries + keys, queries + 2 * keys), 2),
    ]
    assert where.shares(model, 2 * model.kv_heads) == spans


def test_experts_have_a_place_one_by_one_and_in_one_tensor() -> None:
    model = parse_config(config("qwen3_vl_moe"), source="c")
    layer = "model.language_model.layers.1.mlp.experts"
    assert found(f"{layer}.3.down_proj.weight", model).cut_axis == 1
    # [experts, inputs, outputs]
    assert found(f"{layer}.down_proj", model).cut_axis == 1
    assert found(f"{layer}.gate_up_proj", model).cut_axis == 2
    assert locate(f"{layer}.8.down_proj.weight", model) is None


@pytest.mark.parametrize(("tp", "ranks"), [(2, 1), (4, 1), (8, 8)])
def test_four_heads_that_do_not_bind_are_everyone_s_at_eight(tp: int, ranks: int) -> None:
    model = parse_config(config("internvl"), source="c")
    assert model.vision is not None
    assert model.vision.heads == 4
    qkv = found("vision_model.encoder.layers.0.attn.qkv.weight", model)
    fc1 = found("vision_model.encoder.layers.0.mlp.fc1.weight", model)
    assert [held for _, held in qkv.shares(model, tp)] == [ranks]
    assert [held for _, held in fc1.shares(model, tp)] == [1]


@pytest.mark.parametrize(("group", "counted"), [(128, True), (-1, False)])
def test_the_order_of_one_group_is_no_order(group: int, counted: bool) -> None:
    raw = config("qwen2", "gptq")
    raw["quantization_config"] |= {"desc_act": True, "group_size": group}
    assert found(f"{DOWN}.g_idx", parse_config(raw, source="c")).counted is counted


def test_what_a_config_leaves_unsaid_is_read_in_the_headers(tmp_path: Path) -> None:
    """Queries of the second layer are stored as they are, and no list says so."""
    tiny = Tiny()
    raw, arrays = tiny.config(), tiny.arrays()
    quant = raw["quantization_config"]
    assert isinstance(quant, dict)
    quant["modules_to_not_convert"] = None
    name = "model.layers.1.self_attn.q_proj"
    for part in ("qweight", "qzeros", "scales"):
        del arrays[f"{name}.{part}"]
    arrays[f"{name}.weight"] = np.zeros((64, 64), np.float16)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    save_file(arrays, tmp_path / "model.safetensors")
    model = read_checkpoint(tmp_path).config
    assert found(f"{name}.weight", model).cut_axis == 0
    assert found("model.layers.0.self_attn.q_proj.qweight", model).cut_axis == 1
    assert locate(f"{name}.qweight", model) is None
