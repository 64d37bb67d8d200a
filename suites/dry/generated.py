"""Small configs of every family and format, drawn so that some share out and some do not.

Sizes are drawn as a quantizer would accept them: whole groups everywhere in the layer, so that what
goes wrong goes wrong by dividing it among ranks. Heads, groups and widths are odd as often as not.
"""

from __future__ import annotations

from typing import Any, Final

from hypothesis import strategies as st

Config = dict[str, Any]
LAYERS: Final = 2
VOCABULARY: Final = 512
EXPERTS: Final = 8

# architecture → model_type, and the keys its config has beside the common ones.
DENSE: Final[dict[str, Config]] = {
    "Qwen2ForCausalLM": {"model_type": "qwen2"},
    "Qwen3ForCausalLM": {"model_type": "qwen3"},
    "LlamaForCausalLM": {"model_type": "llama"},
    "MistralForCausalLM": {"model_type": "mistral", "sliding_window": None},
    "Phi3ForCausalLM": {
        "model_type": "phi3",
        "original_max_position_embeddings": 2048,
        "sliding_window": None,
        "pad_token_id": 0,
    },
    "Glm4ForCausalLM": {
        "model_type": "glm4",
        "attention_bias": True,
        "partial_rotary_factor": 0.5,
    },
    "Gemma3ForCausalLM": {
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
    },
}
SPARSE: Final[dict[str, Config]] = {
    "Qwen2MoeForCausalLM": {
        "model_type": "qwen2_moe",
        "num_experts": EXPERTS,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    "Qwen3MoeForCausalLM": {
        "model_type": "qwen3_moe",
        "num_experts": EXPERTS,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    "MixtralForCausalLM": {
        "model_type": "mixtral",
        "num_local_experts": EXPERTS,
        "sliding_window": None,
    },
    "DeepseekV3ForCausalLM": {
        "model_type": "deepseek_v3",
        "q_lora_rank": 128,
        "kv_lora_rank": 128,
        "qk_rope_head_dim": 32,
        "qk_nope_head_dim": 32,
        "v_head_dim": 32,
        "n_routed_experts": EXPERTS,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "moe_layer_freq": 1,
        "n_group": 2,
        "topk_group": 1,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "num_nextn_predict_layers": 0,
    },
    "Glm4MoeForCausalLM": {
        "model_type": "glm4_moe",
        "n_routed_experts": EXPERTS,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "use_qk_norm": True,
        "attention_bias": True,
        "partial_rotary_factor": 0.5,
        "num_nextn_predict_layers": 0,
    },
    "Qwen3NextForCausalLM": {
        "model_type": "qwen3_next",
        "num_hidden_layers": 4,
        "num_experts": EXPERTS,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "full_attention_interval": 4,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
        "linear_conv_kernel_dim": 4,
        "partial_rotary_factor": 0.25,
    },
}
# Families that say how large a head is; of the others it is the hidden size's share.
OWN_HEADS: Final = frozenset(
    {"Qwen3ForCausalLM", "MistralForCausalLM", "LlamaForCausalLM", "Glm4ForCausalLM"}
    | {"Gemma3ForCausalLM", "Qwen3MoeForCausalLM", "Glm4MoeForCausalLM", "Qwen3NextForCausalLM"}
)
METHODS: Final = ("none", "awq", "gptq", "compressed-tensors")
GROUPS: Final = (32, 64, 128)


@st.composite
def configs(draw: st.DrawFn, methods: tuple[str, ...] = METHODS) -> Config:
    """One text model's config.json."""
    method = draw(st.sampled_from(methods))
    # The CPU build has no kernel for packed experts: mostly, draw what can tell more.
    seldom = method in ("awq", "gptq", "compressed-tensors") and "fp8" not in methods
    dense = seldom and draw(st.integers(0, 4)) > 0
    family = draw(st.sampled_from([*DENSE] if dense else [*DENSE, *SPARSE]))
    granule = 128 if method == "fp8" else draw(st.sampled_from(GROUPS))
    grouped = method in ("awq", "gptq", "compressed-tensors")
    head = draw(st.sampled_from((32, 64, 128)))
    heads = draw(st.sampled_from((4, 6, 8, 8, 8, 12, 16, 16)))
    if (grouped or method == "fp8") and (heads * head) % granule:
        head = granule
    shared = draw(st.sampled_from([n for n in (1, 2, 3, 4, 6, 8, 16) if heads % n == 0]))
    hidden = 128 * draw(st.integers(2, 5)) if family in OWN_HEADS else heads * head
    width = draw(widths(granule, grouped))
    config: Config = {
        "architectures": [family],
        "hidden_size": hidden,
        "intermediate_size": width,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "torch_dtype": draw(st.sampled_from(("float16", "bfloat16"))),
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **(DENSE | SPARSE)[family],
    }
    if family in OWN_HEADS:
        config["head_dim"] = head
    if family == "Gemma3ForCausalLM":
        config["query_pre_attn_scalar"] = head
    if family in SPARSE:
        experts = draw(widths(granule, grouped))
        own = {} if family == "MixtralForCausalLM" else {"moe_intermediate_size": experts}
        config |= {"num_experts_per_tok": 2, **own}
        if family in ("Qwen2MoeForCausalLM", "Qwen3NextForCausalLM"):
            config["shared_expert_intermediate_size"] = draw(widths(granule, grouped))
    if family == "Qwen3NextForCausalLM":
        keys = draw(st.sampled_from((4, 8, 16)))
        config |= {"linear_num_key_heads": keys, "linear_num_value_heads": 2 * keys}
    if method != "none":
        config["quantization_config"] = draw(quantizations(method, granule, config))
    return config


@st.composite
def widths(draw: st.DrawFn, granule: int, grouped: bool) -> int:
    """An MLP's width: whole groups where there are groups, any even number elsewhere."""
    if not grouped:
        return draw(st.one_of(st.integers(2, 12).map(lambda n: 64 * n), st.integers(60, 300)))
    return granule * draw(st.integers(2, 12))


@st.composite
def quantizations(draw: st.DrawFn, method: str, group: int, config: Config) -> Config:
    """A quantization_config as its quantizer writes it; gates of experts are always left out."""
    symmetric = draw(st.booleans())
    if method == "awq":
        # Names are looked for anywhere: where layers are dense, mlp.gate would be in gate_up_proj.
        gates = ["mlp.gate"] if config["model_type"] == "qwen3_moe" else []
        return {
            "quant_method": "awq",
            "bits": 4,
            "group_size": group,
            "zero_point": True,
            "version": "gemm",
            "modules_to_not_convert": ["lm_head", "shared_expert_gate", *gates],
        }
    if method == "gptq":
        return {
            "quant_method": "gptq",
            "bits": 4,
            "group_size": draw(st.sampled_from((group, group, group, -1))),
            # Seldom what the engine refuses whatever the shapes.
            "sym": draw(st.integers(0, 9)) > 0,
            "desc_act": draw(st.integers(0, 9)) == 0,
            "dynamic": {"-:.*gate$": {}},
        }
    if method == "fp8":
        gates = [
            f"model.layers.{layer}.{name}"
            for layer in range(config["num_hidden_layers"])
            for name in ("mlp.gate", "mlp.shared_expert_gate", "block_sparse_moe.gate")
        ]
        return {
            "quant_method": "fp8",
            "activation_scheme": "dynamic",
            "weight_block_size": [128, 128],
            "fmt": "e4m3",
            "modules_to_not_convert": ["lm_head", *gates],
        }
    channel = draw(st.integers(0, 4)) == 0
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head", "re:.*gate$"],
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "input_activations": None,
                "output_activations": None,
                "weights": {
                    "num_bits": 4,
                    "type": "int",
                    "symmetric": symmetric,
                    "strategy": "channel" if channel else "group",
                    "group_size": None if channel else group,
                    "dynamic": False,
                    "actorder": None,
                },
            }
        },
    }
