"""Layers read off configs, held against what the published checkpoints hold."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.model import ModelConfig
from fixtures.checkpoint.modules import Linear, canonical, linears
from fixtures.prediction import plan
from suites.selftest.configs import (
    DEEPSEEK_V3,
    GEMMA_4B,
    GLM_41V,
    GLM_45,
    GPT2,
    INTERNVL_26B,
    LLAMA_8B,
    MIXTRAL,
    PHI_4,
    PUBLISHED,
    QWEN2_VL_72B,
    QWEN3_30B,
    QWEN3_NEXT,
    QWEN_7B_V1,
    Config,
    quantized,
    text,
)


def read(config: Config) -> ModelConfig:
    return parse_config(config, source="config.json")


def stored(config: Config) -> dict[str, tuple[int, int, int]]:
    """Stored module → (in_features, out_features, how many)."""
    return {
        part.pattern: (layer.inputs, sum(part.sizes), layer.count)
        for layer in linears(read(config))
        for part in layer.parts
    }


def layer(config: Config, pattern: str) -> Linear:
    return next(found for found in linears(read(config)) if found.pattern == pattern)


# (in_features, out_features, count) as the published files have them.
SHAPES: list[tuple[Config, str, tuple[int, int, int]]] = [
    (QWEN2_VL_72B, "model.layers.*.mlp.down_proj", (29568, 8192, 80)),
    (QWEN2_VL_72B, "model.layers.*.self_attn.k_proj", (8192, 1024, 80)),
    (QWEN2_VL_72B, "visual.blocks.*.attn.qkv", (1280, 3840, 32)),
    (QWEN2_VL_72B, "visual.merger.mlp.0", (5120, 5120, 1)),
    (LLAMA_8B, "model.layers.*.self_attn.v_proj", (4096, 1024, 32)),
    (LLAMA_8B, "lm_head", (4096, 128256, 1)),
    (MIXTRAL, "model.layers.*.block_sparse_moe.experts.*.w2", (14336, 4096, 256)),
    (MIXTRAL, "model.layers.*.block_sparse_moe.gate", (4096, 8, 32)),
    (QWEN3_30B, "model.layers.*.mlp.experts.*.gate_proj", (2048, 768, 6144)),
    (QWEN3_30B, "model.layers.*.self_attn.o_proj", (4096, 2048, 48)),
    (DEEPSEEK_V3, "model.layers.*.self_attn.q_a_proj", (7168, 1536, 61)),
    (DEEPSEEK_V3, "model.layers.*.self_attn.q_b_proj", (1536, 24576, 61)),
    (DEEPSEEK_V3, "model.layers.*.self_attn.kv_a_proj_with_mqa", (7168, 576, 61)),
    (DEEPSEEK_V3, "model.layers.*.self_attn.kv_b_proj", (512, 32768, 61)),
    (DEEPSEEK_V3, "model.layers.*.self_attn.o_proj", (16384, 7168, 61)),
    (DEEPSEEK_V3, "model.layers.*.mlp.down_proj", (18432, 7168, 3)),
    (DEEPSEEK_V3, "model.layers.*.mlp.shared_experts.up_proj", (7168, 2048, 58)),
    (DEEPSEEK_V3, "model.layers.*.mlp.experts.*.down_proj", (2048, 7168, 58 * 256)),
    (PHI_4, "model.layers.*.self_attn.qkv_proj", (5120, 7680, 40)),
    (PHI_4, "model.layers.*.mlp.gate_up_proj", (5120, 35840, 40)),
    (GLM_45, "model.layers.*.self_attn.q_proj", (5120, 12288, 92)),
    (GLM_41V, "model.layers.*.mlp.gate_up_proj", (4096, 27392, 32)),
    (GLM_41V, "visual.blocks.*.mlp.down_proj", (4096, 1536, 24)),
    (QWEN3_NEXT, "model.layers.*.self_attn.q_proj", (2048, 8192, 12)),
    (QWEN3_NEXT, "model.layers.*.linear_attn.in_proj_qkvz", (2048, 12288, 36)),
    (QWEN3_NEXT, "model.layers.*.linear_attn.in_proj_ba", (2048, 64, 36)),
    (INTERNVL_26B, "vision_model.encoder.layers.*.attn.qkv", (3200, 9600, 45)),
    (INTERNVL_26B, "model.layers.*.attention.wqkv", (6144, 8192, 32)),
    (GEMMA_4B, "model.layers.*.self_attn.q_proj", (2560, 2048, 34)),
    (GEMMA_4B, "vision_tower.vision_model.encoder.layers.*.mlp.fc1", (1152, 4304, 27)),
    (GPT2, "h.*.attn.c_attn", (768, 2304, 12)),
    (GPT2, "h.*.mlp.c_fc", (768, 3072, 12)),
    (QWEN_7B_V1, "h.*.mlp.w1", (4096, 11008, 32)),
    (QWEN_7B_V1, "h.*.attn.c_attn", (4096, 12288, 32)),
]


@pytest.mark.parametrize(("config", "pattern", "shape"), SHAPES)
def test_a_module_has_its_published_shape(
    config: Config, pattern: str, shape: tuple[int, int, int]
) -> None:
    assert stored(config)[pattern] == shape


# Weights of the published models, in billions, as their makers count them.
PARAMETERS = {
    "llama-8b": 8.03,
    "mixtral": 46.7,
    "qwen3-30b-a3b": 30.5,
    "deepseek-v3": 671.0,
    "phi-4": 14.7,
    "glm-4.5": 355,
    "qwen3-next": 80.0,
    "gpt2": 0.124,
    "qwen-7b-v1": 7.72,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_all_modules_together_are_the_size_the_makers_give(name: str) -> None:
    layers = linears(read(PUBLISHED[name]))
    billions = sum(found.inputs * found.outputs * found.count for found in layers) / 1e9
    assert math.isclose(billions, PARAMETERS[name], rel_tol=0.015)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("method", ["none", "awq", "gptq", "compressed-tensors", "fp8"])
@pytest.mark.parametrize("tp", [1, 2, 4, 8])
def test_every_family_is_planned_in_every_format(name: str, method: str, tp: int) -> None:
    cell = plan(read(quantized(PUBLISHED[name], method)), tp=tp, platform="cuda")
    assert cell.serves == (not cell.obstacles)
    for obstacle in cell.obstacles:
        assert obstacle.message
        assert obstacle.granule >= 1


# What is known of models in the field: the sizes at which they serve unquantized.
SERVES: list[tuple[str, set[int]]] = [
    ("qwen2.5-vl-72b", {1, 2, 4, 8}),
    ("phi-4", {1, 2}),  # ten KV heads
    ("internvl2-26b", {1, 2, 4, 8}),  # 25 vision heads: every rank holds all of them
    ("glm-4.1v", {1, 2, 4}),  # 12 vision heads
    ("gpt2", {1, 2, 4}),
    ("qwen-7b-v1", set()),  # this engine no longer has it
    ("qwen3-next", {1, 2, 4, 8}),
]


@pytest.mark.parametrize(("name", "sizes"), SERVES)
def test_the_sizes_at_which_it_serves_are_those_of_the_field(name: str, sizes: set[int]) -> None:
    model = read(PUBLISHED[name])
    assert {tp for tp in (1, 2, 4, 8) if plan(model, tp=tp, platform="cuda").serves} == sizes


def test_an_encoder_that_binds_is_repaired_by_a_flag() -> None:
    cell = plan(read(GLM_41V), tp=8, platform="cuda")
    assert [obstacle.rule for obstacle in cell.obstacles] == ["vision_heads_divide"]
    assert cell.repairs[0].kind == "encoder_data_parallel"
    assert cell.repairs[0].flags == ("--mm-encoder-tp-mode data",)


def test_an_encoder_that_cannot_be_data_parallel_is_not_said_to_be() -> None:
    gemma = {**GEMMA_4B, "vision_config": {**GEMMA_4B["vision_config"], "num_attention_heads": 12}}
    kinds = {repair.kind for repair in plan(read(gemma), tp=8, platform="cuda").repairs}
    assert "encoder_data_parallel" not in kinds


def test_experts_kept_whole_are_an_exact_repair() -> None:
    model = read(quantized(QWEN3_30B, "compressed-tensors"))
    cell = plan(model, tp=4, platform="cuda")
    assert {obstacle.rule for obstacle in cell.obstacles} == {"expert_group_straddles_rank"}
    assert cell.repairs[0].kind == "expert_parallel"
    pad = next(repair for repair in cell.repairs if repair.kind == "pad")
    assert (pad.key, pad.to) == ("moe_intermediate_size", 1024)


def test_a_layer_left_out_by_its_index_is_counted_apart() -> None:
    config = quantized(LLAMA_8B, "fp8", modules_to_not_convert=["model.layers.3.mlp.down_proj"])
    found = [x for x in linears(read(config)) if x.pattern == "model.layers.*.mlp.down_proj"]
    assert {(x.scheme.format, x.count) for x in found} == {("fp8", 31), ("dense", 1)}


def test_parts_of_one_layer_stored_differently_are_an_obstacle() -> None:
    config = quantized(LLAMA_8B, "fp8", modules_to_not_convert=["model.layers.3.mlp.up_proj"])
    rules = [obstacle.rule for obstacle in plan(read(config), tp=1, platform="cuda").obstacles]
    assert rules == ["fused_parts_differ"]


def test_the_engine_looks_for_awq_names_anywhere_in_its_own() -> None:
    """Only up_proj is listed, and that is part of gate_up_proj's name: both are skipped."""
    config = quantized(LLAMA_8B, "awq", modules_to_not_convert=["up_proj"])
    assert not layer(config, "model.layers.*.mlp.gate_up_proj").scheme.quantized


def test_an_override_of_gptqs_that_the_engine_does_not_see_is_an_obstacle() -> None:
    overrides = {"+:.*q_proj": {"bits": 8}}
    config = quantized(LLAMA_8B, "gptq", dynamic=overrides)
    rules = {obstacle.rule for obstacle in plan(read(config), tp=1, platform="cuda").obstacles}
    assert rules == {"fused_parts_differ"}


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("model.language_model.layers.3.mlp.gate", "model.layers.3.mlp.gate"),
        ("language_model.model.norm.weight", "model.norm.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("model.visual.blocks.0.attn.qkv", "visual.blocks.0.attn.qkv"),
        ("transformer.h.0.attn.c_attn", "h.0.attn.c_attn"),
        ("model.layers.0.mlp.down_proj", "model.layers.0.mlp.down_proj"),
    ],
)
def test_a_models_own_prefix_is_not_part_of_a_modules_name(name: str, plain: str) -> None:
    assert canonical(name) == plain


def test_what_a_config_leaves_out_is_assumed_aloud() -> None:
    model = read(GEMMA_4B)
    assert (model.heads, model.kv_heads, model.head_dim) == (8, 4, 256)
    assert "num_attention_heads = 8" in model.assumed
    assert read(LLAMA_8B).assumed == ()


@pytest.mark.parametrize(
    ("keys", "window"),
    [
        ({"sliding_window": 4096}, (4096, 32)),
        ({"sliding_window": None}, (0, 0)),
        ({}, (4096, 32)),
    ],
)
def test_mistrals_window_is_its_class_default(keys: Any, window: tuple[int, int]) -> None:
    model = read(text("MistralForCausalLM", **keys))
    assert (model.window, model.window_layers) == window


def test_awq_asks_for_all_experts_by_their_common_name() -> None:
    """The engine's own name for w1 and w3 holds "gate"; the one it asks by does not."""
    config = quantized(MIXTRAL, "awq", modules_to_not_convert=["gate"])
    experts = layer(config, "model.layers.*.block_sparse_moe.experts.*.gate_up_proj")
    assert experts.scheme.quantized
    assert not layer(config, "model.layers.*.block_sparse_moe.gate").scheme.quantized


def test_a_dtype_that_is_not_said_is_the_engines_choice() -> None:
    model = read({key: value for key, value in GPT2.items() if key != "torch_dtype"})
    assert model.dtype == "bfloat16"
    assert "dtype = bfloat16" in model.assumed


def test_a_float32_config_is_computed_in_16_bits() -> None:
    model = read(quantized({**LLAMA_8B, "torch_dtype": "float32"}, "gptq"))
    assert plan(model, tp=2, platform="cuda").serves


def test_a_flag_is_asked_for_only_where_it_is_needed() -> None:
    found = {repair.kind: repair for repair in plan(read(GLM_41V), tp=8, platform="cuda").repairs}
    assert found["encoder_data_parallel"].flags
    assert (found["smaller_tp"].to, found["smaller_tp"].flags) == (4, ())
    assert found["pipeline_parallel"].flags == ()
    assert "expert_parallel" not in found


@pytest.mark.parametrize(("most", "windowed"), [(28, 4), (32, 0), (21, 11), (40, 0)])
def test_qwens_window_begins_after_so_many_layers(most: int, windowed: int) -> None:
    model = read(
        text(
            "Qwen2ForCausalLM",
            sliding_window=4096,
            use_sliding_window=True,
            max_window_layers=most,
        )
    )
    assert model.window_layers == windowed


@pytest.mark.parametrize(
    ("method", "capability", "failure"),
    [
        ("gptq", (7, 0), "load"),
        ("compressed-tensors", (7, 0), "load"),
        ("awq", (7, 0), "config"),
        ("fp8", (7, 0), "config"),
        ("none", (7, 0), None),
        ("none", (6, 1), "config"),
    ],
)
def test_an_old_gpu_is_refused_where_the_engine_refuses_it(
    method: str, capability: tuple[int, int], failure: str | None
) -> None:
    cell = plan(read(quantized(LLAMA_8B, method)), tp=1, platform="cuda", capability=capability)
    assert cell.failure_class == failure


def test_an_override_to_what_the_engine_does_not_take_is_an_obstacle() -> None:
    config = quantized(LLAMA_8B, "gptq", dynamic={"+:.*down_proj": {"bits": 3}})
    rules = [obstacle.rule for obstacle in plan(read(config), tp=1, platform="cuda").obstacles]
    assert rules == ["gptq_type"]


def test_a_shared_expert_is_as_many_times_as_wide_when_the_experts_are_padded() -> None:
    config = {**DEEPSEEK_V3, "moe_intermediate_size": 1408}
    cell = plan(read(quantized(config, "compressed-tensors")), tp=8, platform="cuda")
    pad = next(repair for repair in cell.repairs if repair.kind == "pad")
    assert (pad.key, pad.to) == ("moe_intermediate_size", 2048)
