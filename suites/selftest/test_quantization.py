"""Schemes read off quantization configs, each format's own way of matching names included."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.schemes import DENSE, QuantConfig, Scheme
from fixtures.errors import InputError
from fixtures.platforms import Platform
from fixtures.prediction import plan
from suites.selftest.configs import GPTQ, LLAMA_8B, PACKED, quantized

DOWN = ("model.layers.0.mlp.down_proj",)


def quant(method: str, **keys: Any) -> QuantConfig:
    return parse_config(quantized(LLAMA_8B, method, **keys), source="config.json").quant


def packed(**weights: Any) -> dict[str, Any]:
    group = PACKED["config_groups"]["group_0"]
    return {"group_0": {**group, "weights": {**group["weights"], **weights}}}


@pytest.mark.parametrize(
    ("method", "keys", "scheme"),
    [
        ("none", {}, DENSE),
        ("awq", {}, Scheme("awq", 4, 128, symmetric=False)),
        ("awq", {"zero_point": False}, Scheme("awq", 4, 128)),
        ("gptq", {}, Scheme("gptq", 4, 128)),
        ("gptq", {"bits": 8, "group_size": -1}, Scheme("gptq", 8, 0)),
        ("gptq", {"checkpoint_format": "gptq_v2"}, Scheme("gptq", 4, 128, version=2)),
        ("gptq", {"sym": False, "desc_act": True}, Scheme("gptq", 4, 128, False, True)),
        ("fp8", {}, Scheme("fp8", 8, block=(128, 128), symmetric=True)),
        ("fp8", {"weight_block_size": None}, Scheme("fp8", 8)),
        ("compressed-tensors", {}, Scheme("packed", 4, 128)),
        ("compressed-tensors", {"config_groups": packed(num_bits=8)}, Scheme("packed", 8, 128)),
        (
            "compressed-tensors",
            {"config_groups": packed(strategy="channel", group_size=None)},
            Scheme("packed", 4, 0),
        ),
        (
            "compressed-tensors",
            {"config_groups": packed(actorder="group", symmetric=False)},
            Scheme("packed", 4, 128, symmetric=False, desc_act=True),
        ),
        (
            "compressed-tensors",
            {
                "config_groups": packed(
                    num_bits=8, type="float", strategy="block", block_structure=[128, 128]
                )
            },
            Scheme("fp8", 8, block=(128, 128)),
        ),
    ],
)
def test_a_layers_scheme_is_what_its_config_says(
    method: str, keys: dict[str, Any], scheme: Scheme
) -> None:
    assert quant(method, **keys).scheme(DOWN) == scheme


@pytest.mark.parametrize(
    ("method", "keys", "name", "left_out"),
    [
        ("awq", {"modules_to_not_convert": ["down"]}, DOWN[0], True),
        ("awq", {"modules_to_not_convert": ["layers.1"]}, "model.layers.12.mlp.up_proj", True),
        ("fp8", {"modules_to_not_convert": ["down_proj"]}, DOWN[0], False),
        ("fp8", {"ignored_layers": [DOWN[0]]}, DOWN[0], True),
        ("gptq", {"modules_to_not_convert": [DOWN[0]]}, DOWN[0], False),
        ("gptq", {"dynamic": {r"-:.*\.down_proj": {}}}, DOWN[0], True),
        ("compressed-tensors", {"ignore": ["down_proj"]}, DOWN[0], False),
        ("compressed-tensors", {"ignore": [DOWN[0]]}, DOWN[0], True),
        ("compressed-tensors", {"ignore": ["re:.*down_proj$"]}, DOWN[0], True),
        ("compressed-tensors", {"ignore": ["re:down_proj"]}, DOWN[0], False),  # anchored
    ],
)
def test_each_method_matches_names_its_own_way(
    method: str, keys: dict[str, Any], name: str, left_out: bool
) -> None:
    assert (quant(method, **keys).scheme((name,)) == DENSE) is left_out


def test_an_override_changes_what_it_matches() -> None:
    found = quant("gptq", dynamic={r"+:.*\.down_proj": {"bits": 8, "group_size": 32}})
    assert found.scheme(DOWN) == Scheme("gptq", 8, 32)
    assert found.scheme(("model.layers.0.mlp.up_proj",)) == Scheme("gptq", 4, 128)


def test_an_override_keeps_the_channels_of_its_base() -> None:
    found = quant("gptq", group_size=-1, dynamic={r".*\.down_proj": {"bits": 8}})
    assert found.scheme(DOWN) == Scheme("gptq", 8, 0)


def test_a_group_of_its_own_is_for_the_layers_it_targets() -> None:
    groups = {
        **packed(),
        "group_1": {
            "targets": ["re:.*down_proj"],
            "weights": {"num_bits": 8, "type": "int", "strategy": "channel"},
        },
    }
    found = quant("compressed-tensors", config_groups=groups)
    assert found.scheme(DOWN) == Scheme("packed", 8, 0)
    assert found.scheme(("model.layers.0.mlp.up_proj",)) == Scheme("packed", 4, 128)


REFUSED: list[tuple[str, dict[str, Any], list[str]]] = [
    ("gptq", {"bits": 5}, ["bits is 5", "2, 3, 4, 8"]),
    ("gptq", {"group_size": 0}, ["group_size", "0"]),
    ("gptq", {"group_size": 100}, ["group_size is 100", "multiple of 8"]),
    ("gptq", {"checkpoint_format": "marlin"}, ["checkpoint_format", "'marlin'"]),
    ("gptq", {"sym": "yes"}, ["sym", "'yes'"]),
    ("gptq", {"dynamic": {"(": {}}}, ["pattern '('"]),
    ("gptq", {"dynamic": {"((a{999}){999}){999}": {}}}, ["repetitions when written out"]),
    ("gptq", {"dynamic": {"a": 3}}, ["dynamic.a", "3"]),
    ("fp8", {"weight_block_size": [128]}, ["weight_block_size", "[128]"]),
    ("fp8", {"weight_block_size": [0, 128]}, ["weight_block_size"]),
    ("fp8", {"ignored_layers": "all"}, ["ignored_layers", "'all'"]),
    ("compressed-tensors", {"config_groups": {}}, ["config_groups is empty"]),
    ("compressed-tensors", {"config_groups": packed(num_bits=5)}, ["num_bits is 5"]),
    ("compressed-tensors", {"config_groups": packed(group_size=None)}, ["group_size"]),
    ("compressed-tensors", {"config_groups": packed(strategy="token")}, ["'token'"]),
    ("compressed-tensors", {"config_groups": packed(type="float", num_bits=4)}, ["'float'"]),
    ("compressed-tensors", {"format": "marlin-24"}, ["'marlin-24'", "pack-quantized"]),
    ("compressed-tensors", {"ignore": ["re:["]}, ["pattern '['"]),
]


@pytest.mark.parametrize(("method", "keys", "says"), REFUSED)
def test_what_is_not_understood_is_refused_by_name(
    method: str, keys: dict[str, Any], says: list[str]
) -> None:
    with pytest.raises(InputError) as refusal:
        quant(method, **keys)
    assert all(text in str(refusal.value) for text in ["config.json", *says])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("keys", "platform", "rule"),
    [
        ({"sym": False}, "cuda", "gptq_type"),
        ({"bits": 3}, "cuda", "gptq_type"),
        ({"desc_act": True}, "cpu", "activation_order"),
        ({"group_size": 16}, "cuda", "group_size_unknown"),
        ({"bits": 8}, "cpu", "kernel_tile"),
    ],
)
def test_what_the_engine_does_not_take_at_any_size_is_an_obstacle_at_one(
    keys: dict[str, Any], platform: Platform, rule: str
) -> None:
    config = {**LLAMA_8B, "quantization_config": {**GPTQ, **keys}}
    cell = plan(parse_config(config, source="c"), tp=1, platform=platform)
    assert rule in {obstacle.rule for obstacle in cell.obstacles}


def test_activation_order_without_groups_is_accepted() -> None:
    config = {**LLAMA_8B, "quantization_config": {**GPTQ, "desc_act": True, "group_size": -1}}
    assert plan(parse_config(config, source="c"), tp=4, platform="cuda").serves
