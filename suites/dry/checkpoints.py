"""Configs and headers to ask a dry engine about, made from the miniature's recipe."""

from __future__ import annotations

from fixtures.dry import DryVerdict, Headers
from fixtures.miniature import Recipe, config_json, tensors


def headers(recipe: Recipe) -> Headers:
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors(recipe)}


def vision_config(recipe: Recipe) -> dict[str, object]:
    config = config_json(recipe)
    text = config["text_config"]
    assert isinstance(text, dict)
    # Half a head's dimensions, divided between time, height and width.
    half = recipe.hidden_size // recipe.heads // 2
    section = [half // 4, half * 3 // 8, half * 3 // 8]
    rope = text["rope_parameters"] | {"mrope_section": section}
    return config | {"text_config": text | {"rope_parameters": rope}}


def text_config(recipe: Recipe) -> dict[str, object]:
    """The same decoder without eyes, as Qwen2."""
    config = config_json(recipe)
    text = config["text_config"]
    assert isinstance(text, dict)
    rope = {"rope_theta": 1000000.0, "rope_type": "default"}
    own = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_parameters": rope}
    shared = ("dtype", "quantization_config", "tie_word_embeddings")
    return text | {key: config[key] for key in shared} | own


def text_headers(recipe: Recipe) -> Headers:
    return {name: of for name, of in headers(recipe).items() if not name.startswith("visual.")}


def gptq(recipe: Recipe) -> tuple[dict[str, object], Headers]:
    """The same decoder with GPTQ's layout: input rows are packed, not output columns."""
    packed: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, (dtype, shape) in text_headers(recipe).items():
        if name.endswith(".qweight"):
            rows, words = shape
            packed[name] = (dtype, (rows // 8, words * 8))
            packed[name.replace(".qweight", ".g_idx")] = ("I32", (rows,))
        else:
            packed[name] = (dtype, tuple(shape))
    method = {"quant_method": "gptq", "bits": 4, "sym": True, "desc_act": False}
    quant = method | {"group_size": recipe.group_size}
    return text_config(recipe) | {"quantization_config": quant}, packed


def outcome(verdict: DryVerdict) -> str:
    if verdict.raised is not None:
        return verdict.raised.stage
    return ",".join(sorted({finding.kind for finding in verdict.dropped})) or "whole"
