"""Widths a checkpoint can be brought to."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.checkpoint.widths import EXPERTS, MAIN, SHARED, TOWER, Width
from fixtures.errors import InputError
from fixtures.targets import widths
from suites.selftest import small_configs
from suites.selftest.test_config import FLAT


def config_of(width: int, group: int = 128) -> dict[str, Any]:
    quant = {**FLAT["quantization_config"], "group_size": group}
    return {**FLAT, "intermediate_size": width, "quantization_config": quant}


@pytest.mark.parametrize(
    ("width", "tps", "padded"),
    [
        (896, (1, 2, 4, 8), 1024),
        (29568, (1, 2, 4, 8), 29696),
        (29568, (2,), 29696),
        (1024, (8,), 1024),
        (896, (3,), 1152),
    ],
)
def test_the_padded_width_is_whole_groups_on_every_rank(
    width: int, tps: tuple[int, ...], padded: int
) -> None:
    assert Width(config_of(width)).padded(tps) == padded


@pytest.mark.parametrize(("width", "trimmed"), [(896, 768), (29568, 29440), (1024, 768)])
def test_the_trimmed_width_is_the_next_that_two_ranks_can_share(width: int, trimmed: int) -> None:
    assert Width(config_of(width)).trimmed() == trimmed


def test_unquantized_widths_go_by_eight_channels_a_rank() -> None:
    data = {key: value for key, value in FLAT.items() if key != "quantization_config"}
    width = Width(data)
    assert width.padded((1, 2, 4, 8)) == 29568
    assert width.padded((16,)) == 29568
    assert width.padded((64,)) == 29696
    assert width.trimmed() == 29440


def test_a_single_group_cannot_be_trimmed() -> None:
    with pytest.raises(InputError, match="Pad it instead"):
        Width(config_of(256)).trimmed()


@pytest.mark.parametrize(
    ("kind", "to", "nearest"),
    [
        ("padded", 1000, "Nearest: 1024."),
        ("padded", 1100, "Nearest: 1024 or 1152."),
        ("padded", 896, "Nearest: 1024."),
        ("padded", -5, "Nearest: 1024."),
        ("trimmed", 700, "Nearest: 640 or 768."),
        ("trimmed", 896, "Nearest: 768."),
        ("trimmed", 0, "Nearest: 128."),
    ],
)
def test_an_impossible_width_is_refused_with_the_nearest_ones(
    kind: str, to: int, nearest: str
) -> None:
    with pytest.raises(InputError) as refusal:
        Width(config_of(896)).check(kind, to)  # type: ignore[arg-type]
    assert str(refusal.value).endswith(nearest)
    assert f"896 cannot be {kind} to {to}" in str(refusal.value)


def test_a_width_that_is_no_whole_groups_to_begin_with_is_refused() -> None:
    with pytest.raises(InputError, match="900 is not a multiple of group size 128"):
        Width(config_of(900)).check("padded", 1024)


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("llama", {MAIN}),
        ("mixtral", {MAIN}),
        ("qwen3_moe", {EXPERTS}),
        ("qwen2_moe", {EXPERTS, SHARED}),
        ("deepseek_v2", {MAIN, EXPERTS}),
        ("qwen2_5_vl", {MAIN, TOWER}),
        ("qwen2_vl", {MAIN}),
    ],
)
def test_a_model_has_the_widths_its_config_says(model: str, keys: set[str]) -> None:
    assert {width.key for width in widths(small_configs.config(model, "awq"))} == keys


@pytest.mark.parametrize(
    ("quant", "step"),
    [("none", 1), ("awq", 128), ("gptq", 128), ("packed", 128), ("packed_channel", 4),
     ("fp8_block", 128)],
)  # fmt: skip
def test_a_format_gains_whole_groups_words_and_blocks(quant: str, step: int) -> None:
    assert Width(small_configs.config("llama", quant)).step == step


def test_halves_of_a_width_take_twice_the_channels() -> None:
    assert Width(small_configs.config("qwen", "gptq")).step == 256
