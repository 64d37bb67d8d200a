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
# Of one layer, and seldom: what the engine takes for it, and what it refuses.
OVERRIDES: Final[tuple[Config, ...]] = (
    *({},) * 12,
    {"+:.*down_proj": {"bits": 3}},
    {"+:.*down_proj": {"sym": False}},
    {"+:.*down_proj": {"bits": 8}},
)


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
        "torch_dtype": draw(st.sampled_from(("float16", "bfloat16", "float32"))),
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


# Vision-language families: architecture → its decoder's architecture, and keys beside the tower's.
SEEING: Final[dict[str, tuple[str, Config]]] = {
    "Qwen2VLForConditionalGeneration": ("Qwen2ForCausalLM", {"model_type": "qwen2_vl"}),
    "Qwen2_5_VLForConditionalGeneration": ("Qwen2ForCausalLM", {"model_type": "qwen2_5_vl"}),
    "Qwen3VLForConditionalGeneration": ("Qwen3ForCausalLM", {"model_type": "qwen3_vl"}),
    "Glm4vForConditionalGeneration": ("Glm4ForCausalLM", {"model_type": "glm4v"}),
    "Gemma3ForConditionalGeneration": ("Gemma3ForCausalLM", {"model_type": "gemma3"}),
    "InternVLChatModel": ("Qwen2ForCausalLM", {"model_type": "internvl_chat"}),
}
# The decoder's model_type where it stands inside another config.
INNER: Final = {
    "qwen2_vl": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "glm4v": "glm4v_text",
    "gemma3": "gemma3_text",
    "internvl_chat": "qwen2",
}
IMAGE: Final = 112
PATCH: Final = 14


@st.composite
def seeing(draw: st.DrawFn) -> Config:
    """One vision-language model's config.json: a tower that shares out or not, over a plain text
    model that mostly does."""
    family = draw(st.sampled_from([*SEEING]))
    decoder, own = SEEING[family]
    heads = draw(st.sampled_from((8, 8, 16, 12)))
    text: Config = {
        "architectures": [decoder],
        "hidden_size": 64 * heads,
        "intermediate_size": 64 * draw(st.integers(4, 12)),
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": draw(st.sampled_from((1, 2, 4))),
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "rope_theta": 10000.0,
        **DENSE[decoder],
        "model_type": INNER[own["model_type"]],
    }
    if decoder in OWN_HEADS:
        text["head_dim"] = 64
    if decoder == "Gemma3ForCausalLM":
        text["query_pre_attn_scalar"] = 64
    if own["model_type"] in ("qwen2_vl", "qwen2_5_vl"):
        text["rope_scaling"] = {"mrope_section": [8, 12, 12], "rope_type": "default"}
    if own["model_type"] == "qwen3_vl":
        text["rope_scaling"] = {
            "mrope_section": [12, 10, 10], "rope_type": "default", "mrope_interleaved": True,
        }  # fmt: skip
    if own["model_type"] == "glm4v":
        text["rope_scaling"] = {"mrope_section": [4, 6, 6], "rope_type": "default"}
    tower_heads = draw(st.sampled_from((4, 5, 8, 8, 12, 16)))
    width = draw(st.one_of(st.integers(4, 12).map(lambda n: 32 * n), st.integers(130, 400)))
    config: Config = {
        "architectures": [family],
        **own,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": family == "Gemma3ForConditionalGeneration",
        "llm_config" if family == "InternVLChatModel" else "text_config": text,
        "vision_config": tower(family, tower_heads, 16 * tower_heads, width, text["hidden_size"]),
        "image_token_id": 10,
        "video_token_id": 11,
        "vision_start_token_id": 12,
        "vision_end_token_id": 13,
    }
    if family == "Gemma3ForConditionalGeneration":
        config |= {"mm_tokens_per_image": 16, "boi_token_index": 5, "eoi_token_index": 6,
                   "image_token_index": 7}  # fmt: skip
    if family == "InternVLChatModel":
        config |= {
            "downsample_ratio": 0.5, "dynamic_image_size": True, "force_image_size": IMAGE,
            "max_dynamic_patch": 12, "min_dynamic_patch": 1, "ps_version": "v2",
            "select_layer": -1, "template": "internvl2_5", "use_thumbnail": True,
            "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"},
        }  # fmt: skip
    return config


def tower(family: str, heads: int, hidden: int, width: int, out: int) -> Config:
    """The vision_config of one family."""
    common = {"hidden_act": "gelu_pytorch_tanh", "in_channels": 3, "patch_size": PATCH}
    qwen = {"depth": LAYERS, "num_heads": heads, "spatial_merge_size": 2, "temporal_patch_size": 2}
    if family == "Qwen2VLForConditionalGeneration":
        return {**common, **qwen, "model_type": "qwen2_vl", "embed_dim": hidden, "mlp_ratio": 4,
                "hidden_size": out}  # fmt: skip
    if family == "Qwen2_5_VLForConditionalGeneration":
        return {**common, **qwen, "model_type": "qwen2_5_vl", "hidden_size": hidden,
                "intermediate_size": width, "out_hidden_size": out, "tokens_per_second": 4,
                "window_size": IMAGE, "fullatt_block_indexes": [1], "hidden_act": "silu",
                }  # fmt: skip
    if family == "Qwen3VLForConditionalGeneration":
        return {**common, **qwen, "model_type": "qwen3_vl", "hidden_size": hidden,
                "intermediate_size": width, "out_hidden_size": out, "patch_size": 16,
                "num_position_embeddings": 64, "deepstack_visual_indexes": [0]}  # fmt: skip
    if family == "Glm4vForConditionalGeneration":
        return {**common, **qwen, "model_type": "glm4v", "hidden_size": hidden,
                "intermediate_size": width, "out_hidden_size": out, "image_size": IMAGE,
                "hidden_act": "silu", "rms_norm_eps": 1e-5, "attention_bias": False}  # fmt: skip
    siglip = {**common, "hidden_size": hidden, "intermediate_size": width, "image_size": IMAGE,
              "num_hidden_layers": LAYERS, "num_attention_heads": heads}  # fmt: skip
    if family == "Gemma3ForConditionalGeneration":
        return {**siglip, "model_type": "siglip_vision_model", "vision_use_head": False}
    return {
        **siglip, "model_type": "intern_vit_6b", "architectures": ["InternVisionModel"],
        "qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm",
        "hidden_act": "gelu", "layer_norm_eps": 1e-6, "initializer_factor": 0.1,
        "num_channels": 3, "attention_dropout": 0.0, "dropout": 0.0, "drop_path_rate": 0.0,
        "use_flash_attn": True, "initializer_range": 0.02,
    }  # fmt: skip


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
            "dynamic": {"-:.*gate$": {}} | draw(st.sampled_from(OVERRIDES)),
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
