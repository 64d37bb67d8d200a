import copy
import json
from typing import Any

import pytest

from fixtures.checkpoint.config import parse_config, with_intermediate
from fixtures.checkpoint.schemes import QuantConfig
from fixtures.errors import InputError

FLAT: dict[str, Any] = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "hidden_size": 8192,
    "intermediate_size": 29568,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 152064,
    "max_position_embeddings": 128000,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vision_config": {"hidden_size": 1280, "intermediate_size": 3456},
    "quantization_config": {
        "bits": 4,
        "group_size": 128,
        "modules_to_not_convert": ["visual"],
        "quant_method": "awq",
        "version": "gemm",
        "zero_point": True,
    },
}
TEXT_DIMENSIONS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)


def nested() -> dict[str, Any]:
    """FLAT as transformers 5 writes it."""
    data = copy.deepcopy(FLAT)
    data["text_config"] = {key: data.pop(key) for key in TEXT_DIMENSIONS}
    data["dtype"] = data.pop("torch_dtype")
    return data


def changed(**fields: object) -> dict[str, Any]:
    return {**copy.deepcopy(FLAT), **fields}


def quantized(**fields: object) -> dict[str, Any]:
    return changed(quantization_config={**FLAT["quantization_config"], **fields})


def test_the_published_flat_config_is_read() -> None:
    config = parse_config(FLAT, source="c")
    assert (config.intermediate_size, config.heads, config.kv_heads) == (29568, 64, 8)
    assert (config.head_dim, config.dtype, config.text_key) == (128, "float16", None)
    vision = config.vision
    assert vision is not None
    assert (vision.heads, vision.hidden_size, vision.intermediate_size) == (16, 1280, 3456)
    assert (vision.depth, vision.merge) == (32, 2)
    assert config.quant == QuantConfig("awq", 4, 128, True, ("visual",))


def test_the_nested_config_of_transformers_5_means_the_same() -> None:
    flat, deep = parse_config(FLAT, source="c"), parse_config(nested(), source="c")
    assert deep.text_key == "text_config"
    assert [
        getattr(deep, field) for field in ("intermediate_size", "layers", "dtype", "quant")
    ] == [getattr(flat, field) for field in ("intermediate_size", "layers", "dtype", "quant")]


def test_a_text_model_without_quantization_is_read_with_its_defaults() -> None:
    data = changed(architectures=["LlamaForCausalLM"], num_key_value_heads=None)
    del data["quantization_config"], data["vision_config"]
    config = parse_config(data, source="c")
    assert (config.quant.method, config.quant.bits, config.quant.group_size) == ("none", 16, 1)
    assert (config.vision, config.kv_heads) == (None, 64)


def test_quantization_inside_the_text_config_is_found() -> None:
    data = nested()
    data["text_config"]["quantization_config"] = data.pop("quantization_config")
    assert parse_config(data, source="c").quant.group_size == 128


def test_autoawq_names_of_the_quantization_fields_are_read() -> None:
    quant = {"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": True}
    data = changed(quantization_config={**quant, "version": "GEMM"})
    assert parse_config(data, source="c").quant == QuantConfig("awq", 4, 64, True, ())


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (quantized(quant_method="hqq"), ["quant_method", "'hqq'", "'awq'", "'gptq'"]),
        (quantized(quant_method="compressed-tensors"), ["config_groups"]),
        (quantized(quant_method=None), ["quant_method", "None"]),
        (quantized(bits=8), ["bits", "8", "4"]),
        (quantized(version="gemv"), ["version", "'gemv'", "'gemm'"]),
        (quantized(group_size=-1), ["group_size", "-1"]),
        (quantized(group_size=12), ["group_size", "12", "multiple of 8"]),
        (quantized(zero_point="yes"), ["zero_point", "'yes'"]),
        (quantized(modules_to_not_convert="visual"), ["modules_to_not_convert"]),
        (changed(quantization_config=[]), ["quantization_config", "[]"]),
        (changed(architectures=["Qwen2MoeForCausalLm"]), ["Did you mean Qwen2MoeForCausalLM"]),
        (changed(architectures=None), ["architectures", "None"]),
        (changed(model_type=7), ["model_type", "7"]),
        (changed(intermediate_size=None), ["intermediate_size", "missing"]),
        (changed(intermediate_size="29568"), ["intermediate_size", "'29568'"]),
        (changed(intermediate_size=896.0), ["intermediate_size", "896.0"]),
        (changed(num_hidden_layers=True), ["num_hidden_layers", "True"]),
        (changed(hidden_size=2**31 + 1), ["hidden_size", "32 bits", "at most 2147483648"]),
        (changed(num_attention_heads=0), ["num_attention_heads", "0"]),
        (changed(num_key_value_heads=7), ["num_key_value_heads", "7", "64"]),
        (changed(num_attention_heads=60), ["num_attention_heads", "60", "8192"]),
        (changed(torch_dtype="int8"), ["dtype", "'int8'", "bfloat16"]),
        (changed(vision_config=None), ["vision_config", "None"]),
        (changed(vision_config={"hidden_size": 8}), ["vision_config.intermediate_size", "missing"]),
        (changed(text_config=3), ["text_config", "3"]),
        ({**nested(), "intermediate_size": 1024}, ["1024", "29568", "text_config"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_is_not_understood_is_refused_by_name(data: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(InputError) as refusal:
        parse_config(data, source="some/config.json")
    assert all(name in str(refusal.value) for name in ["some/config.json", *names])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("data", [FLAT, nested()], ids=["flat", "nested"])
def test_a_new_width_reaches_the_text_model_and_nothing_else(data: dict[str, Any]) -> None:
    before = json.dumps(data)
    wider = with_intermediate(data, 29696)
    assert json.dumps(data) == before
    assert json.dumps(wider) == before.replace("29568", "29696")
    assert parse_config(wider, source="c").intermediate_size == 29696


def test_a_width_kept_at_both_levels_changes_at_both() -> None:
    wider = with_intermediate({**nested(), "intermediate_size": 29568}, 29696)
    assert (wider["intermediate_size"], parse_config(wider, source="c").intermediate_size) == (
        29696,
        29696,
    )
