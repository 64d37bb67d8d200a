"""A small valid config of every family and every quantization: 4 layers, widths of two groups."""

from __future__ import annotations

import copy
from typing import Any

Config = dict[str, Any]
TEXT: Config = {
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 640,
    "max_position_embeddings": 256,
}
_SPARSE: Config = {"moe_intermediate_size": 256, "num_experts_per_tok": 2, "norm_topk_prob": True}
_LATENT: Config = {
    "num_key_value_heads": 8,
    "q_lora_rank": 128,
    "kv_lora_rank": 128,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 64,
    "v_head_dim": 64,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "n_group": 2,
    "topk_group": 1,
    "routed_scaling_factor": 1.0,
    "scoring_func": "sigmoid",
    "first_k_dense_replace": 1,
}
_SHARED: Config = {"num_experts": 8, "shared_expert_intermediate_size": 512}
_QWEN_TOWER: Config = {"hidden_size": 64, "intermediate_size": 128, "depth": 2, "num_heads": 4}
_QWEN_3_TOWER: Config = {
    **_QWEN_TOWER,
    "out_hidden_size": 512,
    "deepstack_visual_indexes": [0, 1],
    "num_position_embeddings": 64,
}
_GLM_TOWER: Config = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "out_hidden_size": 512,
    "depth": 2,
    "num_heads": 4,
    "image_size": 56,
}
_VIT: Config = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
    "model_type": "vit",
}
_LINEAR: Config = {
    "head_dim": 64,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_key_head_dim": 64,
    "linear_value_head_dim": 64,
    "linear_conv_kernel_dim": 4,
}


def _flat(architecture: str, model_type: str, **keys: Any) -> Config:
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "torch_dtype": "bfloat16",
        **TEXT,
        **keys,
    }


def _nested(
    architecture: str, kind: str, vision: Config, *, key: str = "text_config", **keys: Any
) -> Config:
    return {
        "architectures": [architecture],
        "model_type": kind,
        "torch_dtype": "bfloat16",
        key: {**TEXT, **keys},
        "vision_config": dict(vision),
    }


MODELS: dict[str, Config] = {
    "llama": _flat("LlamaForCausalLM", "llama"),
    "mistral": _flat("MistralForCausalLM", "mistral", sliding_window=None),
    "qwen2": _flat("Qwen2ForCausalLM", "qwen2"),
    "qwen3": _flat("Qwen3ForCausalLM", "qwen3", head_dim=128),
    "qwen2_moe": _flat("Qwen2MoeForCausalLM", "qwen2_moe", **_SPARSE, **_SHARED),
    "qwen3_moe": _flat("Qwen3MoeForCausalLM", "qwen3_moe", **_SPARSE, num_experts=8, head_dim=64),
    "qwen3_next": _flat("Qwen3NextForCausalLM", "qwen3_next", **_SPARSE, **_SHARED, **_LINEAR),
    "mixtral": _flat("MixtralForCausalLM", "mixtral", num_local_experts=8),
    "phi3": _flat("Phi3ForCausalLM", "phi3", pad_token_id=0),
    "deepseek_v2": _flat(
        "DeepseekV2ForCausalLM", "deepseek_v2", **{**_SPARSE, **_LATENT, "q_lora_rank": None}
    ),
    "deepseek_v3": _flat(
        "DeepseekV3ForCausalLM", "deepseek_v3", **_SPARSE, **_LATENT, topk_method="noaux_tc"
    ),
    "glm4": _flat("Glm4ForCausalLM", "glm4", head_dim=64, attention_bias=True),
    "glm4_moe": _flat(
        "Glm4MoeForCausalLM",
        "glm4_moe",
        **{**_SPARSE, "n_routed_experts": 8, "n_shared_experts": 1, "first_k_dense_replace": 1},
        head_dim=64,
        use_qk_norm=True,
        attention_bias=True,
        n_group=1,
        topk_group=1,
    ),
    "gemma3": _flat("Gemma3ForCausalLM", "gemma3_text", head_dim=64, sliding_window=64),
    "gpt2": {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "torch_dtype": "bfloat16",
        "n_embd": 512,
        "n_layer": 4,
        "n_head": 8,
        "n_positions": 256,
        "vocab_size": 640,
    },
    "baichuan": _flat("BaichuanForCausalLM", "baichuan", num_key_value_heads=8),
    "qwen": _flat("QWenLMHeadModel", "qwen", num_key_value_heads=8, seq_length=256),
    "internlm2": _flat("InternLM2ForCausalLM", "internlm2", auto_map={}),
    "qwen2_vl": _nested(
        "Qwen2VLForConditionalGeneration",
        "qwen2_vl",
        {"embed_dim": 64, "hidden_size": 512, "depth": 2, "num_heads": 4, "mlp_ratio": 4},
    ),
    "qwen2_5_vl": _nested(
        "Qwen2_5_VLForConditionalGeneration",
        "qwen2_5_vl",
        {**_QWEN_TOWER, "out_hidden_size": 512, "fullatt_block_indexes": [1]},
    ),
    "qwen3_vl": _nested("Qwen3VLForConditionalGeneration", "qwen3_vl", _QWEN_3_TOWER, head_dim=64),
    "qwen3_vl_moe": _nested(
        "Qwen3VLMoeForConditionalGeneration",
        "qwen3_vl_moe",
        _QWEN_3_TOWER,
        **_SPARSE,
        num_experts=8,
        head_dim=64,
    ),
    "glm4v": _nested(
        "Glm4vForConditionalGeneration", "glm4v", _GLM_TOWER, head_dim=64, attention_bias=True
    ),
    "glm4v_moe": _nested(
        "Glm4vMoeForConditionalGeneration",
        "glm4v_moe",
        _GLM_TOWER,
        **_SPARSE,
        n_routed_experts=8,
        n_shared_experts=1,
        first_k_dense_replace=1,
        head_dim=64,
        use_qk_norm=False,
        attention_bias=True,
    ),
    "internvl": _nested(
        "InternVLChatModel",
        "internvl_chat",
        {**_VIT, "qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm"},
        key="llm_config",
        architectures=["Qwen2ForCausalLM"],
        model_type="qwen2",
    )
    | {"downsample_ratio": 0.5, "force_image_size": 56, "select_layer": -1, "auto_map": {}},
    "gemma3_vl": _nested(
        "Gemma3ForConditionalGeneration", "gemma3", _VIT, head_dim=64, sliding_window=64
    ),
}


def _groups(weights: Config, form: str, **group: Any) -> Config:
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "ignore": ["lm_head", "re:.*visual.*", "re:.*vision.*", "re:.*mlp1.*", "re:.*gate$"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, **group}},
    }


_INT4 = {"type": "int", "num_bits": 4, "strategy": "group", "group_size": 128}
_FLOAT8 = {"type": "float", "num_bits": 8, "symmetric": True, "dynamic": False}
_UNQUANTIZED = ["visual", "vision_model", "vision_tower", "mlp1", "multi_modal_projector"]
QUANTS: dict[str, Config | None] = {
    "none": None,
    "awq": {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 128,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": [*_UNQUANTIZED],
    },
    "gptq": {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 128,
        "desc_act": False,
        "sym": True,
        "dynamic": {r"-:.*mlp\.gate$": {}, r"-:.*\.shared_expert_gate$": {}},
    },
    "packed": _groups({**_INT4, "symmetric": True}, "pack-quantized"),
    "packed_asymmetric": _groups({**_INT4, "symmetric": False}, "pack-quantized"),
    "packed_channel": _groups(
        {"type": "int", "num_bits": 8, "strategy": "channel", "symmetric": True}, "pack-quantized"
    ),
    "int8": _groups(
        {"type": "int", "num_bits": 8, "strategy": "channel", "symmetric": True},
        "int-quantized",
        input_activations={"type": "int", "num_bits": 8, "strategy": "token", "dynamic": True},
    ),
    "fp8_block": {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
        "modules_to_not_convert": [*_UNQUANTIZED],
    },
    "fp8_tensor": {"quant_method": "fp8", "activation_scheme": "static"},
    "fp8_channel": _groups(
        {**_FLOAT8, "strategy": "channel"},
        "float-quantized",
        input_activations={**_FLOAT8, "strategy": "token", "dynamic": True},
    ),
}


def config(model: str, quant: str = "none") -> Config:
    """A copy, free to be changed."""
    made = copy.deepcopy(MODELS[model])
    quantization = QUANTS[quant]
    if quantization is not None:
        made["quantization_config"] = copy.deepcopy(quantization)
    return made
