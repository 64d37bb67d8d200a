"""The sizes that make a model serve, and the reasons where none does."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.model import ModelConfig
from fixtures.checkpoint.widths import EXPERTS, MAIN, TOWER
from fixtures.errors import InputError
from fixtures.manifest import edited
from fixtures.prediction import CellPlan, plan
from fixtures.targets import padded_sizes, require_served, trimmed_sizes
from suites.selftest import configs, small_configs

LARGE: dict[str, Any] = {**configs.QWEN2_VL_72B, "quantization_config": configs.AWQ}


def cuda(model: ModelConfig, tp: int) -> CellPlan:
    return plan(model, tp=tp, platform="cuda")


def with_tower(**keys: int) -> dict[str, Any]:
    raw = copy.deepcopy(LARGE)
    raw["vision_config"] |= keys
    return raw


@pytest.mark.parametrize(
    ("raw", "tps", "sizes"),
    [
        (LARGE, (1, 2, 4, 8), {MAIN: 29696}),
        (LARGE, (1,), {}),
        (with_tower(intermediate_size=3420), (8,), {MAIN: 29696, TOWER: 3456}),
        (with_tower(intermediate_size=3420), (2, 4), {MAIN: 29696}),
        (with_tower(intermediate_size=3420, num_heads=20), (8,), {MAIN: 29696}),
    ],
)
def test_every_width_that_binds_is_padded_and_no_other(
    raw: dict[str, Any], tps: tuple[int, ...], sizes: dict[str, int]
) -> None:
    found, left = padded_sizes(raw, tps, cuda)
    assert found == sizes
    assert all(one.layer.startswith("visual") for one in left)
    model = parse_config(edited(raw, found), source="config.json")
    assert [one for tp in tps for one in cuda(model, tp).obstacles] == list(left)


def test_experts_are_padded_by_their_own_key() -> None:
    raw = {**small_configs.config("qwen3_moe", "packed"), "moe_intermediate_size": 384}
    assert padded_sizes(raw, (2,), cuda)[0] == {EXPERTS: 512}
    assert trimmed_sizes(raw, (2,), cuda) == ({EXPERTS: 256}, ())


def test_what_a_width_leaves_in_the_way_is_the_reason_of_the_refusal() -> None:
    raw = small_configs.config("llama", "awq")
    sizes, left = padded_sizes(raw, (8,), cuda)
    assert left
    with pytest.raises(InputError, match=r"self_attn.*planner m` lists other repairs"):
        require_served("m", sizes, left, (8,))


def test_a_model_that_serves_needs_no_size() -> None:
    with pytest.raises(InputError, match="Serve it as it is"):
        require_served("m", {}, (), (1,))


@pytest.mark.parametrize("model", small_configs.MODELS)
def test_what_the_planner_offers_is_what_is_built(model: str) -> None:
    for quant in ("none", "awq", "gptq", "packed", "packed_channel", "fp8_block"):
        raw = small_configs.config(model, quant)
        level = raw.get("text_config", raw)
        for key in (MAIN, EXPERTS):
            if key in level:
                level[key] = 896
        repairs = cuda(parse_config(raw, source="c"), 4).repairs
        offered = [{one.key: one.to} for one in repairs if one.kind == "pad" and not one.flags]
        found, left = padded_sizes(raw, (4,), cuda)
        assert offered in ([], [found]), quant
        assert not (offered and left), quant


@pytest.mark.parametrize(("model", "width"), [("phi3", 448), ("glm4", 320)])
def test_blocks_in_both_halves_of_a_fused_layer_are_no_width_s_repair(
    model: str, width: int
) -> None:
    raw = {**small_configs.config(model, "fp8_block"), "intermediate_size": width}
    offered = {one.kind for one in cuda(parse_config(raw, source="c"), 2).repairs}
    assert not offered & {"pad", "trim"}
    raw["intermediate_size"] = 384
    assert "pad" in {one.kind for one in cuda(parse_config(raw, source="c"), 2).repairs}


def test_a_trim_that_does_not_serve_is_refused_with_its_reason() -> None:
    raw = small_configs.config("qwen2", "awq")
    heads = {"hidden_size": 384, "num_attention_heads": 6, "num_key_value_heads": 2}
    raw |= {**heads, "intermediate_size": 384}
    sizes, left = trimmed_sizes(raw, (2,), cuda)
    assert sizes == {MAIN: 256}
    with pytest.raises(InputError, match=r"no trimming .*tp 2: with .* 256 still .*o_proj"):
        require_served("m", sizes, left, (2,), kind="trimmed")


def test_nothing_is_trimmed_where_nothing_binds() -> None:
    assert trimmed_sizes(small_configs.config("llama", "awq"), (1,), cuda) == ({}, ())


@pytest.mark.parametrize("model", ["llama", "qwen3_moe", "phi3", "qwen2_5_vl"])
def test_a_trimmed_model_serves(model: str) -> None:
    for quant in ("none", "awq", "gptq", "packed", "packed_channel", "fp8_block"):
        raw = small_configs.config(model, quant)
        level = raw.get("text_config", raw)
        level[EXPERTS if EXPERTS in level else MAIN] = 896
        sizes, left = trimmed_sizes(raw, (2,), cuda)
        if not left:
            changed = parse_config(edited(raw, sizes), source="c")
            assert cuda(changed, 2).serves


def test_new_inputs_under_old_zero_points_are_no_repair() -> None:
    raw = {**small_configs.config("llama", "packed_channel"), "intermediate_size": 388}
    weights = raw["quantization_config"]["config_groups"]["group_0"]["weights"]
    for symmetric in (True, False):
        weights["symmetric"] = symmetric
        repairs = cuda(parse_config(raw, source="c"), 2).repairs
        assert ("pad" in {one.kind for one in repairs}) == symmetric
