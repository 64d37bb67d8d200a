"""What a config promises, held against checkpoints written by others and published shapes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.model import ModelConfig
from fixtures.checkpoint.stored import headers, stored
from suites.selftest.test_config import FLAT
from suites.selftest.tiny import Tiny

NAMES = {"float16": "F16", "float32": "F32", "int32": "I32"}


def model(**fields: Any) -> ModelConfig:
    defaults = {"model_type": "m", "torch_dtype": "bfloat16", "max_position_embeddings": 4096}
    return parse_config({**defaults, **fields}, source="c")


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}
MIXTRAL = {
    **LLAMA,
    "architectures": ["MixtralForCausalLM"],
    "num_local_experts": 8,
    "vocab_size": 32000,
}
QWEN3_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
}
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "topk_method": "noaux_tc",
    "quantization_config": {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
    },
}
GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": True}
ASYMMETRIC = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 4,
                "type": "int",
                "strategy": "group",
                "group_size": 128,
                "symmetric": False,
            },
        }
    },
}

# As the model cards' own files list them.
PUBLISHED = [
    (
        FLAT,  # Qwen2.5-VL-72B-Instruct-AWQ
        {
            "model.layers.79.mlp.down_proj.qweight": ("I32", (29568, 1024)),
            "model.layers.79.mlp.down_proj.qzeros": ("I32", (231, 1024)),
            "model.layers.79.mlp.down_proj.scales": ("F16", (231, 8192)),
            "model.layers.0.self_attn.k_proj.bias": ("F16", (1024,)),
            "visual.blocks.31.attn.qkv.weight": ("F16", (3840, 1280)),
            "visual.merger.mlp.2.weight": ("F16", (8192, 5120)),
            "visual.patch_embed.proj.weight": ("F16", (1280, 3, 2, 14, 14)),
            "lm_head.weight": ("F16", (152064, 8192)),
        },
    ),
    (
        {**LLAMA, "quantization_config": GPTQ},
        {
            "model.layers.31.mlp.down_proj.qweight": ("I32", (1792, 4096)),
            "model.layers.31.mlp.down_proj.qzeros": ("I32", (112, 512)),
            "model.layers.31.mlp.down_proj.scales": ("BF16", (112, 4096)),
            "model.layers.31.mlp.down_proj.g_idx": ("I32", (14336,)),
            "model.layers.0.self_attn.k_proj.qweight": ("I32", (512, 1024)),
        },
    ),
    (
        {**LLAMA, "quantization_config": ASYMMETRIC},
        {
            "model.layers.0.mlp.down_proj.weight_packed": ("I32", (4096, 1792)),
            "model.layers.0.mlp.down_proj.weight_scale": ("BF16", (4096, 112)),
            "model.layers.0.mlp.down_proj.weight_zero_point": ("I32", (512, 112)),
            "model.layers.0.mlp.down_proj.weight_shape": ("I64", (2,)),
            "lm_head.weight": ("BF16", (128256, 4096)),
        },
    ),
    (
        MIXTRAL,
        {
            "model.layers.31.block_sparse_moe.gate.weight": ("BF16", (8, 4096)),
            "model.layers.31.block_sparse_moe.experts.7.w2.weight": ("BF16", (4096, 14336)),
            "model.layers.31.block_sparse_moe.experts.7.w3.weight": ("BF16", (14336, 4096)),
        },
    ),
    (
        QWEN3_MOE,  # Qwen3-30B-A3B
        {
            "model.layers.47.mlp.experts.127.down_proj.weight": ("BF16", (2048, 768)),
            "model.layers.47.mlp.gate.weight": ("BF16", (128, 2048)),
            "model.layers.0.self_attn.q_proj.weight": ("BF16", (4096, 2048)),
            "model.layers.0.self_attn.q_norm.weight": ("BF16", (128,)),
        },
    ),
    (
        DEEPSEEK_V3,
        {
            "model.layers.0.mlp.down_proj.weight": ("F8_E4M3", (7168, 18432)),
            "model.layers.0.mlp.down_proj.weight_scale_inv": ("F32", (56, 144)),
            "model.layers.60.mlp.experts.255.down_proj.weight_scale_inv": ("F32", (56, 16)),
            "model.layers.3.mlp.shared_experts.gate_proj.weight": ("F8_E4M3", (2048, 7168)),
            "model.layers.3.self_attn.kv_a_proj_with_mqa.weight_scale_inv": ("F32", (5, 56)),
            "model.layers.3.self_attn.q_b_proj.weight": ("F8_E4M3", (24576, 1536)),
            "model.layers.3.self_attn.kv_b_proj.weight": ("F8_E4M3", (32768, 512)),
            "model.layers.3.mlp.gate.weight": ("BF16", (256, 7168)),
            "model.layers.3.mlp.gate.e_score_correction_bias": ("F32", (256,)),
            "model.embed_tokens.weight": ("BF16", (129280, 7168)),
        },
    ),
    (
        GPT2,
        {
            "h.11.attn.c_attn.weight": ("BF16", (768, 2304)),
            "h.11.mlp.c_fc.weight": ("BF16", (768, 3072)),
            "h.11.mlp.c_proj.bias": ("BF16", (768,)),
            "wpe.weight": ("BF16", (1024, 768)),
            "ln_f.bias": ("BF16", (768,)),
        },
    ),
]


@pytest.mark.parametrize(("config", "expected"), PUBLISHED, ids=lambda v: str(v)[:60])
def test_published_tensors_are_promised(
    config: dict[str, Any], expected: dict[str, tuple[str, tuple[int, ...]]]
) -> None:
    promised = headers(model(**config))
    assert {name: promised.get(name) for name in expected} == expected


def test_no_more_is_promised_than_a_published_checkpoint_holds() -> None:
    # safetensors counts of the published repositories' indices.
    counts = {
        "Meta-Llama-3.1-8B": (LLAMA, 291),
        "Mixtral-8x7B": (MIXTRAL, 995),
        "Qwen3-30B-A3B": (QWEN3_MOE, 18867),
    }
    assert {name: len(headers(model(**config))) for name, (config, _) in counts.items()} == {
        name: count for name, (_, count) in counts.items()
    }


@pytest.mark.parametrize("quant", ["awq", "none"])
def test_what_another_package_wrote_is_what_is_promised(quant: str) -> None:
    tiny = Tiny(quant=quant, bias=False)
    written = {
        name: (NAMES[array.dtype.name], array.shape) for name, array in tiny.arrays().items()
    }
    promised = headers(parse_config(tiny.config(), source="tiny"))
    assert promised == written


def test_a_layer_left_out_is_promised_dense_and_others_are_not() -> None:
    config = copy.deepcopy(FLAT)
    config["quantization_config"]["modules_to_not_convert"].append("model.layers.7.mlp.down_proj")
    promised = headers(model(**config))
    assert promised["model.layers.7.mlp.down_proj.weight"] == ("F16", (8192, 29568))
    assert "model.layers.7.mlp.down_proj.qweight" not in promised
    assert "model.layers.8.mlp.down_proj.qweight" in promised


def test_every_pattern_counts_as_many_as_it_names() -> None:
    for config in (FLAT, DEEPSEEK_V3, QWEN3_MOE):
        for pattern in stored(model(**config)):
            assert len(list(pattern.names())) == pattern.count, pattern.pattern
