"""What is recommended: it serves, its memory adds up, and it is what the practice asks for."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.model import ModelConfig
from fixtures.memory import kv_cache_bytes, kv_cache_bytes_per_token, weight_bytes
from fixtures.options import Option
from fixtures.recommendation import lines, to_json
from fixtures.repairs import ENCODER_FLAG, EXPERTS_FLAG, resized
from fixtures.rules import obstacles
from fixtures.sizing import GIB, Division, Resources, sequence_bytes
from fixtures.strategy import Strategy, strategy
from suites.selftest.configs import (
    DEEPSEEK_V3,
    GEMMA_4B,
    LLAMA_8B,
    MIXTRAL,
    PHI_4,
    PUBLISHED,
    QWEN2_VL_72B,
    QWEN3_30B,
    QWEN3_NEXT,
    QWEN_7B_V1,
    quantized,
)


def model(config: dict[str, Any]) -> ModelConfig:
    return parse_config(config, source="config.json")


LARGE = model(quantized(QWEN2_VL_72B, "awq"))
DEEPSEEK = model(quantized(DEEPSEEK_V3, "fp8"))
MODELS = {
    "72b-awq": LARGE,
    "72b-gptq": model(quantized(QWEN2_VL_72B, "gptq")),
    "deepseek-v3": DEEPSEEK,
    "qwen3-30b-awq": model(quantized(QWEN3_30B, "awq")),
    "llama-8b": model(LLAMA_8B),
    "mixtral-awq": model(quantized(MIXTRAL, "awq")),
    "phi-4": model(PHI_4),
    "qwen3-next": model(QWEN3_NEXT),
}


def on(
    of: ModelConfig, gpus: int, gib: float, *, length: int | None = None, at_once: int | None = None
) -> Strategy:
    return strategy(of, Resources(gpus, int(gib * GIB), length, at_once))


def recommended(found: Strategy) -> Option:
    assert found.recommended is not None, found.reason
    return found.recommended


# Bytes on a rank as vLLM's own code allocates them for Qwen2.5-VL-72B, AWQ, width 29696.
@pytest.mark.parametrize(("tp", "gib"), [(1, 40.05), (2, 20.03), (4, 10.02), (8, 5.01)])
def test_weights_are_what_the_engine_allocates(tp: int, gib: float) -> None:
    assert weight_bytes(resized(LARGE, 29696), tp=tp) / GIB == pytest.approx(gib, rel=0.005)


def test_a_token_of_the_72b_model_takes_320_kib() -> None:
    assert kv_cache_bytes_per_token(LARGE, tp=1) == 80 * 2 * 8 * 128 * 2


@pytest.mark.parametrize(
    ("name", "gpus", "gib", "length", "at_once", "expected"),
    [
        ("72b-awq", 2, 48, None, None, ("padded-29696", 2, 1, 1)),
        ("72b-awq", 4, 24, None, None, ("padded-29696", 4, 1, 1)),
        ("72b-awq", 8, 80, None, None, ("padded-29696", 8, 1, 1)),
        ("72b-awq", 8, 80, None, 64, ("original", 1, 1, 8)),
        ("72b-awq", 8, 80, 32768, 2, ("padded-29696", 4, 1, 2)),
        ("72b-awq", 3, 24, None, None, ("original", 1, 3, 1)),
        ("72b-awq", 1, 80, None, None, ("original", 1, 1, 1)),
        ("deepseek-v3", 8, 141, None, None, ("original", 8, 1, 1)),
        ("deepseek-v3", 16, 80, None, 1, ("original", 8, 1, 2)),
        ("qwen3-30b-awq", 2, 24, None, None, ("original", 2, 1, 1)),
        ("qwen3-30b-awq", 2, 24, None, 32, ("original", 1, 1, 2)),
        ("llama-8b", 8, 80, None, 256, ("original", 1, 1, 8)),
    ],
)
def test_the_practice(
    name: str,
    gpus: int,
    gib: int,
    length: int | None,
    at_once: int | None,
    expected: tuple[str, int, int, int],
) -> None:
    option = recommended(on(MODELS[name], gpus, gib, length=length, at_once=at_once))
    assert (option.variant.name, option.tp, option.pp, option.dp) == expected


def test_the_original_in_stages_is_the_alternative_to_padding() -> None:
    found = on(LARGE, 2, 48).alternatives
    assert ("original", 1, 2) in {(one.variant.kind, one.tp, one.pp) for one in found}


def test_a_short_memory_shortens_the_context_and_says_so() -> None:
    option = recommended(on(LARGE, 4, 24))
    assert 32768 <= option.max_model_len < LARGE.max_positions
    assert option.max_model_len % 1024 == 0
    assert f"{option.max_model_len} tokens instead of 128000" in option.why


def test_what_gives_way_last_is_the_memory_left_free() -> None:
    option = recommended(on(LARGE, 3, 24))
    assert option.gpu_memory_utilization == 0.95
    assert option.max_num_seqs <= 16


def test_no_context_beyond_the_models_own_is_asked_of_the_engine() -> None:
    option = recommended(on(LARGE, 8, 80, length=1_000_000))
    assert option.max_model_len == LARGE.max_positions
    assert "ends at 128000" in option.why


@pytest.mark.parametrize(("gpus", "gib"), [(1, 24), (2, 24)])
def test_what_is_missing_is_said_and_is_the_least_that_helps(gpus: int, gib: int) -> None:
    _the_smallest_change_helps(LARGE, gpus, gib)


def test_deepseek_v3_does_not_fit_eight_gpus_of_80_gib() -> None:
    _the_smallest_change_helps(DEEPSEEK, 8, 80)


def _the_smallest_change_helps(of: ModelConfig, gpus: int, gib: int) -> None:
    found = on(of, gpus, gib)
    assert found.recommended is None
    change = re.search(r"does: \d+ GPUs? of (\d+) GiB, or (\d+) of \d+ GiB", found.reason)
    assert change is not None, found.reason
    larger, more = map(int, change.groups())
    assert on(of, gpus, larger).recommended is not None
    assert on(of, gpus, larger - 1).recommended is None
    assert on(of, more, gib).recommended is not None


def test_a_checkpoint_that_serves_nowhere_is_not_a_question_of_memory() -> None:
    found = on(model(QWEN_7B_V1), 8, 80)
    assert found.recommended is None
    assert "at any size: vLLM 0.32.0 does not know QWenLMHeadModel" in found.reason


def test_a_tower_that_does_not_divide_is_held_whole() -> None:
    assert LARGE.vision is not None
    uneven = replace(resized(LARGE, 29696), vision=replace(LARGE.vision, intermediate_size=3420))
    option = recommended(on(uneven, 8, 80))
    assert (option.tp, option.flags) == (8, (ENCODER_FLAG,))
    assert f"Without {ENCODER_FLAG} it does not serve" in option.why


def test_replicas_share_whole_experts_out() -> None:
    option = recommended(on(DEEPSEEK, 8, 141, length=8192, at_once=256))
    assert (option.dp, option.flags) == (8, (EXPERTS_FLAG,))
    alone = weight_bytes(DEEPSEEK, experts_whole=True)
    shared = weight_bytes(DEEPSEEK, dp=8, experts_whole=True)
    experts = 58 * 256 * 3 * 7168 * 2048  # sparse layers, experts, matrices of FP8
    assert alone - shared == pytest.approx(experts * 7 / 8, rel=0.001)


def test_a_linear_layers_state_is_the_same_for_any_length() -> None:
    of = MODELS["qwen3-next"]
    state = 36 * 2 * (32 * 128 * 128 + (2 * 2048 + 4096) * 3)
    assert kv_cache_bytes(of, 16, tp=1) == 16 * kv_cache_bytes_per_token(of, tp=1) + state
    assert kv_cache_bytes(of, 16, tp=2, pp=2) < kv_cache_bytes(of, 16, tp=1) / 3


def test_a_class_says_how_long_a_context_is_where_its_config_does_not() -> None:
    assert model(GEMMA_4B).max_positions == 131072
    assert model({k: v for k, v in LLAMA_8B.items() if "position" not in k}).max_positions == 2048


def test_a_window_keeps_what_is_being_computed_as_well() -> None:
    gemma = model(GEMMA_4B)
    layer = 2 * 4 * 256 * 2
    kept = kv_cache_bytes(gemma, 8192, tp=1, in_flight=2048)
    assert kept == layer * (5 * 8192 + 29 * (1024 + 2048))


def test_an_a100_computes_smaller_steps_than_an_h100() -> None:
    h100 = Resources(1, 80 * GIB)
    assert h100.batched_tokens == 8192
    assert replace(h100, capability=(8, 0)).batched_tokens == 2048
    assert replace(h100, gpu_memory_bytes=24 * GIB).batched_tokens == 2048


NAMES = st.sampled_from(sorted(MODELS))
ASKED = st.builds(
    Resources,
    gpus=st.sampled_from([1, 2, 3, 4, 6, 7, 8, 16]),
    gpu_memory_bytes=st.integers(8, 200).map(lambda gib: gib * GIB),
    max_model_len=st.none() | st.integers(1, 200_000),
    concurrency=st.none() | st.integers(1, 1000),
    capability=st.sampled_from([(8, 0), (8, 9), (9, 0), (10, 0)]),
)


@settings(deadline=None)
@given(name=NAMES, resources=ASKED)
def test_every_option_serves_and_its_memory_adds_up(name: str, resources: Resources) -> None:
    of = MODELS[name]
    found = strategy(of, resources)
    assert (found.recommended is None) <= (not found.alternatives)
    for option in (found.recommended, *found.alternatives):
        if option is None:
            continue
        changed = option.variant.applied(of)
        assert not list(obstacles(changed, option.setup(resources)))
        assert option.fits
        assert option.gpus <= resources.gpus
        held = option.weight_bytes_per_rank + option.allowance_bytes + option.kv_room_bytes
        assert held <= resources.gpu_memory_bytes * option.gpu_memory_utilization
        how = Division(option.tp, option.pp, option.dp)
        assert sequence_bytes(changed, how, option.max_model_len, 0) <= option.kv_room_bytes
        together = option.max_num_seqs * sequence_bytes(changed, how, option.sequence_tokens, 0)
        assert together <= option.kv_room_bytes
        assert 1 <= option.max_model_len <= (resources.max_model_len or of.max_positions)
        assert option.max_num_seqs >= 1


@settings(deadline=None)
@given(name=NAMES, resources=ASKED, more=st.integers(0, 100))
def test_more_memory_never_makes_a_model_unfit(name: str, resources: Resources, more: int) -> None:
    larger = replace(resources, gpu_memory_bytes=resources.gpu_memory_bytes + more * GIB)
    fitted = strategy(MODELS[name], resources).recommended is not None
    assert fitted <= (strategy(MODELS[name], larger).recommended is not None)


@settings(deadline=None)
@given(name=st.sampled_from(sorted(PUBLISHED)), resources=ASKED)
def test_any_answer_is_words_and_data(name: str, resources: Resources) -> None:
    of = model(PUBLISHED[name])
    found = strategy(of, resources)
    assert json.loads(json.dumps(to_json(found, of, "/m"), allow_nan=False))["reason"]
    text = list(lines(found, of, "/m"))
    assert all(text)
    assert text[0].startswith("No deployment: " if found.recommended is None else "Recommended: ")


def test_the_commands_are_there_to_be_pasted() -> None:
    text = "\n".join(lines(on(LARGE, 2, 48, length=8192, at_once=8), LARGE, "/models/72B AWQ"))
    rest = (
        "--tensor-parallel-size 2 --gpu-memory-utilization 0.92 --max-model-len 8192 "
        "--max-num-seqs 8\n"
    )
    build = "--out '/models/72B AWQ-padded-29696' --to 29696\n"
    assert f"  python -m fixtures.variants pad '/models/72B AWQ' {build}" in text
    path = "'/models/72B AWQ-padded-29696'"
    assert f"  vllm serve {path} {rest}" in text
    assert f"  python -m vllm.entrypoints.openai.api_server --model {path} {rest}" in text


def test_replicas_and_smaller_steps_are_in_the_command() -> None:
    of = MODELS["qwen3-30b-awq"]
    commands = to_json(on(of, 2, 24, at_once=32), of, "/m")["recommended"]
    assert isinstance(commands, dict)
    assert commands["commands"][0] == (
        "vllm serve /m --tensor-parallel-size 1 --enable-expert-parallel --data-parallel-size 2 "
        "--gpu-memory-utilization 0.92 --max-model-len 32768 --max-num-seqs 16"
    )
