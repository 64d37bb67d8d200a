"""The engine's count of the tokens it has room for, beside the planner's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.capacity import Capacity, Unpredicted, asked_dtype, capacity, predicted_tokens
from fixtures.checkpoint.config import parse_config
from fixtures.deployment import PlatformSettings, read_deployments
from fixtures.memory import kv_cache_bytes_per_token
from fixtures.miniature import Recipe, config_json
from fixtures.platforms import Platform
from fixtures.prediction import plan
from fixtures.serving.log import capacity_tokens, kv_cache_gib, longest_request_tokens

SHIPPED = Path(__file__).parents[1] / "deployments.toml"
MODEL = parse_config(config_json(Recipe()), source="miniature")
# As vLLM 0.32.0 wrote them: the miniature on the CPU at tp1, and a GPU's.
CPU = (
    "(EngineCore pid=5) INFO 11-25 01:52:56 [kv_cache_utils.py:2327] CPU KV cache size: 262,144 "
    "tokens, Maximum concurrency for 1,024 tokens per request: 256.00x\n"
)
CUDA = (
    "(Worker_TP0 pid=5) INFO 11-25 01:52:56 [gpu_worker.py:759] Available KV cache memory: 6.25 "
    "GiB\n(EngineCore pid=5) INFO 11-25 01:52:56 [kv_cache_utils.py:2327] GPU KV cache size: "
    "1,638,400 tokens, Maximum concurrency for 4,096 tokens per request: 400.00x\n"
)


def settings(platform: Platform = "cpu") -> PlatformSettings:
    return read_deployments(SHIPPED).settings(platform)


def held(
    log: str, platform: Platform = "cpu", *, pp: int = 1, given: PlatformSettings | None = None
) -> Capacity | Unpredicted | None:
    cell = plan(MODEL, tp=1, platform=platform, pp=pp)
    return capacity(log, MODEL, cell, given or settings(platform))


def test_the_capacity_line_is_read() -> None:
    assert (capacity_tokens(CPU), longest_request_tokens(CPU)) == (262144, 1024)
    assert (capacity_tokens(CUDA), kv_cache_gib(CUDA)) == (1638400, 6.25)
    assert (capacity_tokens(""), longest_request_tokens(""), kv_cache_gib("")) == (None,) * 3


def test_the_last_start_in_a_log_counts() -> None:
    assert capacity_tokens(CPU.replace("262,144", "7") + CPU) == 262144


# tp, pp, tokens in 1 GiB: all seen on the CPU build
SEEN = ((1, 1, 262144), (2, 1, 524288), (4, 1, 1048576), (8, 1, 2097152), (1, 2, 524288))


@pytest.mark.parametrize(("tp", "pp", "tokens"), SEEN)
def test_the_arithmetic_is_the_engines(tp: int, pp: int, tokens: int) -> None:
    per_token = kv_cache_bytes_per_token(MODEL, tp=tp, pp=pp)
    found = predicted_tokens(2**30, per_token, block_tokens=128, request_tokens=1024)
    assert found == tokens


def test_a_replicated_head_is_held_whole_and_the_longest_stage_binds() -> None:
    model = replace(MODEL, kv_heads=4, layers=5)
    assert kv_cache_bytes_per_token(model, tp=8) == 5 * 2 * 1 * 64 * 2
    assert kv_cache_bytes_per_token(model, tp=1, pp=4) == 2 * 2 * 4 * 64 * 2


def test_blocks_and_requests_are_whole() -> None:
    # 7 blocks and a half; a request of 130 tokens takes 2 of them: 3.5 requests.
    assert predicted_tokens(7 * 128 + 64, 1, block_tokens=128, request_tokens=130) == 455


def test_memory_comes_from_the_environment_or_the_log() -> None:
    found = held(CPU)
    assert isinstance(found, Capacity)
    assert (found.ratio, found.tolerance) == (1.0, 0.01)
    found = held(CUDA, "cuda")
    assert isinstance(found, Capacity)
    assert found.ratio == 1.0
    assert 0.01 < found.tolerance < 0.011  # the engine prints 6.25, and may have 6.2549


def test_a_log_without_the_line_has_no_capacity() -> None:
    assert held("INFO: Application startup complete.\n") is None


def test_what_cannot_be_predicted_says_why() -> None:
    other = replace_arguments("--kv-cache-dtype=fp8")
    auto = settings().model_copy(update={"environment": {}})
    reasons = {
        "--kv-cache-dtype is set": held(CPU, given=other),
        "VLLM_CPU_KVCACHE_SPACE is not set": held(CPU, given=auto),
        "did not print": held(CPU, "cuda"),
        "its first stage's memory": held(CUDA, "cuda", pp=2),
    }
    for says, found in reasons.items():
        assert isinstance(found, Unpredicted), says
        assert says in found.reason


def replace_arguments(*more: str) -> PlatformSettings:
    given = settings()
    return given.model_copy(update={"arguments": (*given.arguments, *more)})


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        (("--enforce-eager",), None),
        (("--dtype", "float16", "--seed", "1"), "float16"),
        (("--dtype=float16", "--dtype", "float32"), "float32"),
        (("--dtype", "float16", "--dtype=float"), "float"),
    ],
)
def test_the_last_dtype_counts(arguments: tuple[str, ...], dtype: str | None) -> None:
    assert asked_dtype(arguments) == dtype


def test_a_cache_of_32_bits_has_room_for_half() -> None:
    shipped = settings()
    single = shipped.model_copy(update={"arguments": (*shipped.arguments, "--dtype", "float32")})
    found = held(CPU.replace("262,144", "131,072"), given=single)
    assert isinstance(found, Capacity)
    assert found.ratio == 1.0
