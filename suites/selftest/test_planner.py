"""The oracle, held against what was seen on real engines and in the field."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import planner
from fixtures.checkpoint.config import ModelConfig, parse_config
from fixtures.miniature import Recipe, config_json
from fixtures.planner import Platform, plan, resized

MINIATURE = parse_config(config_json(Recipe()), source="miniature")
UNQUANTIZED = parse_config(config_json(Recipe(quant="none")), source="miniature")
# Qwen2.5-VL-72B's decoder and vision tower.
LARGE = replace(
    resized(MINIATURE, 29568),
    hidden_size=8192,
    layers=80,
    heads=64,
    kv_heads=8,
    head_dim=128,
)

SERVES = None
# Observed on vLLM's CPU build: width 896 in groups of 128 and its repairs; then the 72B width.
SEEN_ON_CPU = [
    (896, 1, SERVES),
    (896, 2, "first_request"),
    (896, 4, "silent"),
    (896, 8, "load"),
    (768, 1, SERVES),
    (768, 2, SERVES),
    (768, 4, "silent"),
    (768, 8, "first_request"),
    (1024, 2, SERVES),
    (1024, 4, SERVES),
    (1024, 8, SERVES),
    (29568, 2, "silent"),
    (29568, 4, "first_request"),
    (29568, 8, "load"),
]


@pytest.mark.parametrize(("width", "tp", "seen"), SEEN_ON_CPU)
def test_the_failure_class_is_the_one_seen_on_the_cpu_build(
    width: int, tp: int, seen: str | None
) -> None:
    assert plan(resized(MINIATURE, width), tp=tp, platform="cpu").failure_class == seen


@pytest.mark.parametrize(
    ("width", "fails"),
    [(29568, {2, 4, 8}), (29696, set()), (29440, {4, 8}), (29184, {8}), (28672, set())],
)
def test_the_72b_widths_fail_on_cuda_where_the_field_says_so(width: int, fails: set[int]) -> None:
    plans = {tp: plan(resized(LARGE, width), tp=tp, platform="cuda") for tp in (1, 2, 4, 8)}
    assert {tp for tp, cell in plans.items() if not cell.serves} == fails
    assert {plans[tp].failure_class for tp in fails} <= {"load"}


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_an_unquantized_model_has_no_group_to_straddle(platform: Platform) -> None:
    assert all(plan(UNQUANTIZED, tp=tp, platform=platform).serves for tp in (1, 2, 4, 8))


def test_the_binding_layer_and_its_numbers_are_named() -> None:
    obstacle = plan(LARGE, tp=8, platform="cuda").binding
    assert obstacle is not None
    assert (obstacle.layer, obstacle.size, obstacle.per_rank, obstacle.granule) == (
        "model.layers.*.mlp.down_proj",
        29568,
        3696.0,
        128,
    )
    assert "cuts 29568 features into 3696 per rank, not a multiple of group size 128" in (
        obstacle.message
    )


def test_heads_that_do_not_divide_are_refused_by_the_configuration_check() -> None:
    model = replace(MINIATURE, heads=28, kv_heads=4, hidden_size=28 * 64)
    cell = plan(model, tp=8, platform="cuda")
    assert cell.failure_class == "config"
    assert cell.binding is not None
    assert cell.binding.rule == "heads_divide"


@pytest.mark.parametrize(("kv_heads", "tp", "serves"), [(2, 8, True), (6, 4, False), (3, 2, False)])
def test_kv_heads_are_divided_or_replicated(kv_heads: int, tp: int, serves: bool) -> None:
    model = replace(MINIATURE, heads=24, kv_heads=kv_heads, head_dim=128, hidden_size=3072)
    rules = {obstacle.rule for obstacle in plan(model, tp=tp, platform="cuda").obstacles}
    assert ("kv_heads_divide" not in rules) is serves


def test_the_vision_tower_binds_too() -> None:
    assert MINIATURE.vision is not None
    model = replace(
        resized(MINIATURE, 1024), vision=replace(MINIATURE.vision, intermediate_size=3420)
    )
    cell = plan(model, tp=8, platform="cuda")
    assert [obstacle.layer for obstacle in cell.obstacles] == ["visual.blocks.*.mlp.down_proj"]


@pytest.mark.parametrize("tp", [2, 4, 8])
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_every_repair_offered_serves(tp: int, platform: Platform) -> None:
    for repair in plan(LARGE, tp=tp, platform=platform).repairs:
        model: ModelConfig = {
            "pad": resized(LARGE, repair.to),
            "trim": resized(LARGE, repair.to),
            "regroup": planner.regrouped(LARGE, repair.to),
            "smaller_tp": LARGE,
        }[repair.kind]
        at = repair.to if repair.kind == "smaller_tp" else tp
        assert plan(model, tp=at, platform=platform).serves, repair


def test_the_smallest_padding_of_the_72b_width_is_the_makers() -> None:
    repairs = {repair.kind: repair.to for repair in plan(LARGE, tp=8, platform="cuda").repairs}
    assert repairs == {"pad": 29696, "trim": 28672, "smaller_tp": 1}


def test_a_rule_names_its_place_in_the_engine() -> None:
    assert all(rule.source for rule in planner.RULES)


def test_the_command_line_prints_a_verdict_per_tp(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(config_json(Recipe())))
    assert planner.main([str(config), "--tp", "1,2", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert [cell["failure_class"] for cell in document["cells"]] == [None, "load"]
    assert document["cells"][1]["obstacles"][0]["rule"] == "group_straddles_rank"


def test_all_sizes_serving_is_exit_code_0(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(config_json(Recipe(intermediate_size=1024))))
    assert planner.main([str(config)]) == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no config.json there"),
        ("{", "not readable as JSON"),
        ("[]", "expected a JSON object"),
        (
            json.dumps({**config_json(Recipe()), "quantization_config": {"quant_method": "hqq"}}),
            "hqq",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    content: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    assert planner.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
