"""config.json of published models, cut down to what planning reads; written down by hand."""

from __future__ import annotations

import copy
from typing import Any

Config = dict[str, Any]

QWEN2_VL_72B: Config = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "max_position_embeddings": 128000,
    "torch_dtype": "float16",
    "tie_word_embeddings": False,
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 3456,
        "out_hidden_size": 8192,
        "depth": 32,
        "num_heads": 16,
    },
}

AWQ: Config = {
    "quant_method": "awq",
    "bits": 4,
    "group_size": 128,
    "zero_point": True,
    "version": "gemm",
    "modules_to_not_convert": ["visual"],
}
GPTQ: Config = {
    "quant_method": "gptq",
    "bits": 4,
    "group_size": 128,
    "sym": True,
    "desc_act": False,
}
FP8: Config = {
    "quant_method": "fp8",
    "activation_scheme": "dynamic",
    "weight_block_size": [128, 128],
}
PACKED: Config = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "ignore": ["lm_head", "re:visual.*", "re:.*mlp.gate$"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": {
                "num_bits": 4,
                "type": "int",
                "symmetric": True,
                "strategy": "group",
                "group_size": 128,
            },
        }
    },
}
QUANTIZATIONS: dict[str, Config | None] = {
    "none": None, "awq": AWQ, "gptq": GPTQ, "compressed-tensors": PACKED, "fp8": FP8,
}  # fmt: skip


def text(architecture: str, **keys: Any) -> Config:
    """A text model's config; 4096 wide with 32 heads unless said otherwise."""
    return {
        "architectures": [architecture],
        "model_type": "any",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
        "max_position_embeddings": 32768,
        "torch_dtype": "bfloat16",
        **keys,
    }


LLAMA_8B = text("LlamaForCausalLM", vocab_size=128256)
MIXTRAL = text("MixtralForCausalLM", num_local_experts=8)
QWEN3_30B = text(
    "Qwen3MoeForCausalLM",
    hidden_size=2048,
    intermediate_size=6144,
    moe_intermediate_size=768,
    num_experts=128,
    num_hidden_layers=48,
    num_key_value_heads=4,
    head_dim=128,
    vocab_size=151936,
)
DEEPSEEK_V3 = text(
    "DeepseekV3ForCausalLM",
    hidden_size=7168,
    intermediate_size=18432,
    moe_intermediate_size=2048,
    n_routed_experts=256,
    n_shared_experts=1,
    first_k_dense_replace=3,
    num_hidden_layers=61,
    num_attention_heads=128,
    num_key_value_heads=128,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_rope_head_dim=64,
    qk_nope_head_dim=128,
    v_head_dim=128,
    vocab_size=129280,
)
PHI_4 = text(
    "Phi3ForCausalLM",
    hidden_size=5120,
    intermediate_size=17920,
    num_hidden_layers=40,
    num_attention_heads=40,
    num_key_value_heads=10,
    vocab_size=100352,
)
GLM_45 = text(
    "Glm4MoeForCausalLM",
    hidden_size=5120,
    intermediate_size=12288,
    moe_intermediate_size=1536,
    n_routed_experts=160,
    n_shared_experts=1,
    first_k_dense_replace=3,
    num_hidden_layers=92,
    num_attention_heads=96,
    head_dim=128,
    vocab_size=151552,
)
QWEN3_NEXT = text(
    "Qwen3NextForCausalLM",
    hidden_size=2048,
    intermediate_size=5120,
    moe_intermediate_size=512,
    shared_expert_intermediate_size=512,
    num_experts=512,
    num_hidden_layers=48,
    num_attention_heads=16,
    num_key_value_heads=2,
    head_dim=256,
    linear_num_key_heads=16,
    linear_num_value_heads=32,
    linear_key_head_dim=128,
    linear_value_head_dim=128,
    vocab_size=151936,
)
INTERNVL_26B: Config = {
    "architectures": ["InternVLChatModel"],
    "model_type": "internvl_chat",
    "torch_dtype": "bfloat16",
    "llm_config": text("InternLM2ForCausalLM", hidden_size=6144, num_attention_heads=48),
    "vision_config": {
        "hidden_size": 3200,
        "intermediate_size": 12800,
        "num_attention_heads": 25,
        "num_hidden_layers": 45,
    },
}
GEMMA_4B: Config = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
    "vision_config": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "num_hidden_layers": 27,
    },
}
GPT2: Config = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "torch_dtype": "float32",
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
}
QWEN_7B_V1 = {
    **text("QWenLMHeadModel", intermediate_size=22016, vocab_size=151936),
    "num_key_value_heads": None,
    "seq_length": 8192,
    "kv_channels": 128,
}
GLM_41V: Config = {
    "architectures": ["Glm4vForConditionalGeneration"],
    "model_type": "glm4v",
    "torch_dtype": "bfloat16",
    "text_config": text("Glm4vTextModel", intermediate_size=13696, num_key_value_heads=2),
    "vision_config": {
        "hidden_size": 1536,
        "intermediate_size": 13696,
        "out_hidden_size": 4096,
        "num_heads": 12,
        "depth": 24,
    },
}

PUBLISHED: dict[str, Config] = {
    "qwen2.5-vl-72b": QWEN2_VL_72B,
    "llama-8b": LLAMA_8B,
    "mixtral": MIXTRAL,
    "qwen3-30b-a3b": QWEN3_30B,
    "deepseek-v3": DEEPSEEK_V3,
    "phi-4": PHI_4,
    "glm-4.5": GLM_45,
    "qwen3-next": QWEN3_NEXT,
    "internvl2-26b": INTERNVL_26B,
    "gemma-3-4b": GEMMA_4B,
    "gpt2": GPT2,
    "qwen-7b-v1": QWEN_7B_V1,
    "glm-4.1v": GLM_41V,
}


def quantized(config: Config, method: str, **keys: Any) -> Config:
    """The same, stored another way."""
    quantization = QUANTIZATIONS[method]
    if quantization is None:
        return config
    return {**config, "quantization_config": {**copy.deepcopy(quantization), **keys}}
