"""The model this project exists for, planned from its config alone."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.model import ModelConfig
from fixtures.platforms import Capability, Platform
from fixtures.prediction import plan
from suites.selftest.configs import QWEN2_VL_72B, quantized

TPS = (1, 2, 4, 8)
SILENT, LOAD, WARMUP, FIRST = "silent", "load", "warmup", "first_request"


def model(width: int, method: str, group: int = 128) -> ModelConfig:
    config = quantized({**QWEN2_VL_72B, "intermediate_size": width}, method)
    if method == "compressed-tensors":
        config["quantization_config"]["config_groups"]["group_0"]["weights"]["group_size"] = group
    elif "quantization_config" in config:
        config["quantization_config"]["group_size"] = group
    return parse_config(config, source="72b")


def classes(
    planned: ModelConfig, platform: Platform, capability: Capability = (9, 0)
) -> dict[int, str | None]:
    return {
        tp: plan(planned, tp=tp, platform=platform, capability=capability).failure_class
        for tp in TPS
    }


# tp → class, for the width the makers published. AWQ on the CPU was seen on the real engine; CUDA
# classes follow from the kernels that take the shapes.
ORIGINAL: list[tuple[str, Platform, Capability, Mapping[int, str]]] = [
    ("awq", "cuda", (9, 0), {2: LOAD, 4: LOAD, 8: LOAD}),
    ("awq", "cuda", (8, 0), {2: LOAD, 4: LOAD, 8: LOAD}),
    ("awq", "cpu", (9, 0), {2: SILENT, 4: FIRST, 8: LOAD}),
    ("gptq", "cuda", (9, 0), {2: WARMUP, 4: SILENT, 8: SILENT}),  # Machete, then Humming
    ("gptq", "cuda", (8, 0), {2: SILENT, 4: SILENT, 8: SILENT}),  # Exllama
    ("gptq", "cpu", (9, 0), {2: SILENT, 4: FIRST, 8: LOAD}),
    ("compressed-tensors", "cuda", (9, 0), {2: LOAD, 4: LOAD, 8: LOAD}),
    ("compressed-tensors", "cpu", (9, 0), {2: LOAD, 4: LOAD, 8: LOAD}),
]


@pytest.mark.parametrize(("method", "platform", "capability", "fails"), ORIGINAL)
def test_the_original_width_fails_at_every_size_above_one(
    method: str, platform: Platform, capability: Capability, fails: Mapping[int, str]
) -> None:
    assert classes(model(29568, method), platform, capability) == {1: None, **fails}


@pytest.mark.parametrize("method", ["none", "awq", "gptq", "compressed-tensors"])
@pytest.mark.parametrize("platform", ["cuda", "cpu"])
def test_the_padded_width_serves_everywhere(method: str, platform: Platform) -> None:
    assert set(classes(model(29696, method), platform).values()) == {None}


@pytest.mark.parametrize("method", ["awq", "gptq", "compressed-tensors"])
@pytest.mark.parametrize("platform", ["cuda", "cpu"])
@pytest.mark.parametrize(
    ("width", "group", "serves"),
    [(29440, 128, {1, 2}), (29568, 64, {1, 2}), (29568, 32, {1, 2, 4})],
)
def test_trimming_and_regrouping_serve_where_the_groups_can_be_shared(
    method: str, platform: Platform, width: int, group: int, serves: set[int]
) -> None:
    found = classes(model(width, method, group), platform)
    assert {tp for tp, failure in found.items() if failure is None} == serves


def test_the_repairs_say_what_they_cost() -> None:
    found = {r.kind: r for r in plan(model(29568, "awq"), tp=8, platform="cuda").repairs}
    # 128 channels of gate, up and down in 80 layers: 4 bits each, and 4 + 16 bits per group of 128.
    weights = 80 * 3 * 128 * 8192
    assert found["pad"].extra_bytes == weights * 4.15625 / 8
    assert found["pad"].idle_share == pytest.approx(128 / 3712)
    assert found["smaller_tp"].idle_share == 7 / 8
    assert found["trim"].extra_bytes < 0
