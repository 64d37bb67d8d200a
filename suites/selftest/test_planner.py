"""The oracle, held against what was seen on real engines and in the field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures import planner, rules
from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.model import ModelConfig
from fixtures.layer_rules import LAYER_RULES
from fixtures.miniature import Recipe, config_json
from fixtures.platforms import FailureClass, Platform
from fixtures.prediction import plan
from fixtures.repairs import regrouped, resized
from fixtures.rules import MODEL_RULES, Obstacle, Setup

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
    assert {obstacle.layer for obstacle in cell.obstacles} == {
        f"visual.blocks.*.mlp.{name}_proj" for name in ("gate", "up", "down")
    }
    assert cell.repairs[0].kind == "encoder_data_parallel"


@pytest.mark.parametrize("tp", [2, 4, 8])
@pytest.mark.parametrize("platform", ["cpu", "cuda"])
def test_every_repair_offered_serves(tp: int, platform: Platform) -> None:
    for repair in plan(LARGE, tp=tp, platform=platform).repairs:
        model: ModelConfig = {
            "pad": resized(LARGE, repair.to),
            "trim": resized(LARGE, repair.to),
            "regroup": regrouped(LARGE, repair.to),
        }.get(repair.kind, LARGE)
        sizes = {"smaller_tp": (repair.to, 1), "pipeline_parallel": (1, repair.to)}
        size, stages = sizes.get(repair.kind, (tp, 1))
        assert plan(model, tp=size, pp=stages, platform=platform).serves, repair


def test_the_smallest_padding_of_the_72b_width_is_the_makers() -> None:
    repairs = {repair.kind: repair.to for repair in plan(LARGE, tp=8, platform="cuda").repairs}
    assert repairs == {"pad": 29696, "pipeline_parallel": 8, "smaller_tp": 1, "trim": 28672}


def test_a_rule_names_its_place_in_the_engine() -> None:
    assert all(rule.source for rule in MODEL_RULES)
    assert all(rule.source for rule in LAYER_RULES)


# What `fixtures.serving.log.reason` found: the first four in logs of real servers, the rest are the
# engine's texts in its source.
REASONS: list[tuple[ModelConfig, int, Platform, FailureClass, str]] = [
    (
        *(MINIATURE, 2, "cpu", "first_request"),
        "cpu_wna16.cpp:296 Check failed: group_size % 2 == 0 (1 vs. 0).",
    ),
    (
        *(MINIATURE, 8, "cpu", "load"),
        "ValueError: Failed to find a kernel that can implement the WNA16 linear layer. Reasons: "
        "Dynamic4bitLinearKernel cannot implement due to: Unsupported quant type uint4",
    ),
    (
        *(resized(MINIATURE, 768), 8, "cpu", "first_request"),
        "Fatal Python error: Fatal Python error: Floating point exceptionFloating point exception",
    ),
    (
        *(resized(MINIATURE, 768), 8, "cpu", "first_request"),
        "Worker proc VllmWorker-1 died unexpectedly (exit code: -8): ended by SIGFPE",
    ),
    (
        *(LARGE, 8, "cuda", "load"),
        "ValueError: The input size is not aligned with the quantized weight shape. This can be "
        "caused by too large tensor parallel size.",
    ),
    (
        *(LARGE, 3, "cuda", "config"),
        "ValidationError: Total number of attention heads (64) must be divisible by tensor "
        "parallel size (3).",
    ),
    (
        *(replace(MINIATURE, heads=24, kv_heads=3, head_dim=128), 2, "cuda", "load"),
        "AssertionError: assert self.total_num_kv_heads % tp_size == 0",
    ),
    (
        *(resized(UNQUANTIZED, 900), 8, "cuda", "load"),
        "AssertionError: assert all(output_size % self.tp_size == 0 for output_size in "
        "output_sizes)",
    ),
    (*(resized(UNQUANTIZED, 900), 8, "cuda", "load"), "AssertionError: 900 is not divisible by 8"),
]


@pytest.mark.parametrize(("model", "tp", "platform", "stage", "reason"), REASONS)
def test_the_engines_own_reason_confirms_the_obstacle_and_another_does_not(
    model: ModelConfig, tp: int, platform: Platform, stage: str, reason: str
) -> None:
    cell = plan(model, tp=tp, platform=platform)
    assert cell.failure_class == stage
    found = [obstacle for obstacle in cell.obstacles if obstacle.failure_class == stage]
    assert any(re.search(obstacle.says, reason) for obstacle in found)
    unrelated = ("torch.OutOfMemoryError: CUDA out of memory.", "", "ended by SIGKILL")
    assert not any(re.search(obstacle.says, text) for obstacle in found for text in unrelated)


@pytest.mark.parametrize(
    ("skipped", "bound"),
    [
        ("visual", {"down_proj"}),
        ("mlp.down_proj", set()),
        ("mlp", set()),
        ("model.layers.0.mlp.down_proj", {"down_proj"}),
    ],
)
def test_a_layer_left_out_by_the_quantizer_has_no_groups(skipped: str, bound: set[str]) -> None:
    model = replace(MINIATURE, quant=replace(MINIATURE.quant, not_converted=("visual", skipped)))
    found = plan(model, tp=8, platform="cpu").obstacles
    assert {obstacle.layer.rpartition(".")[2] for obstacle in found} == bound


def test_the_command_line_prints_a_verdict_per_tp(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(config_json(Recipe())))
    assert planner.main([str(config), "--tp", "1,2", "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    assert [cell["failure_class"] for cell in document["cells"]] == [None, "load"]
    obstacle = document["cells"][1]["obstacles"][0]
    assert obstacle["rule"] == "group_straddles_rank"
    assert sorted(obstacle) == [
        *("failure_class", "granule", "layer", "message", "per_rank", "rule", "size", "source")
    ]


def test_a_path_that_cannot_be_looked_at_is_exit_code_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert planner.main(["x" * 5000]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("tp", ["0", "1025", "9" * 5000, "two", ""])
def test_sizes_no_deployment_has_are_refused(tp: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        planner.main(["DIR", "--tp", tp])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert "from 1 to 1024" in error
    assert len(error) < 600


def test_every_size_there_is_takes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def counted(model: ModelConfig, setup: Setup) -> Iterator[Obstacle]:
        asked.append(setup)
        yield from rules.obstacles(model, setup)

    monkeypatch.setattr("fixtures.prediction.obstacles", counted)
    monkeypatch.setattr("fixtures.repairs.obstacles", counted)
    for tp in planner.tp_list(",".join(map(str, range(1, 1025)))):
        plan(LARGE, tp=tp, platform="cpu")
    assert len(asked) < 1024 * 20


@pytest.mark.parametrize(
    ("platform", "command"),
    [
        ("cuda", "vllm serve '{}' --tensor-parallel-size 1"),
        (
            "cpu",
            "python -m vllm.entrypoints.openai.api_server --model '{}' --tensor-parallel-size 1",
        ),
    ],
)
def test_the_serve_line_is_one_the_platform_has(
    platform: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "my model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config_json(Recipe())))
    assert planner.main([str(directory), "--tp", "1", "--platform", platform]) == 0
    assert capsys.readouterr().out.rstrip().endswith("  " + command.format(directory))


def test_all_sizes_serving_is_exit_code_0(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(config_json(Recipe(intermediate_size=1024))))
    assert planner.main([str(config)]) == 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no config.json there"),
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ("[" * 100_000, "not valid JSON"),
        ('{"architectures": ' + "[" * 900 + "]" * 900 + "}", "config.json"),
        ('{"hidden_size": 1' + "0" * 5000 + "}", "not valid JSON"),
        (json.dumps({**config_json(Recipe(heads=10**4000))}), "num_attention_heads"),
        ("\xff", "not valid JSON"),
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
        (tmp_path / "config.json").write_text(content, encoding="latin-1")
    assert planner.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
