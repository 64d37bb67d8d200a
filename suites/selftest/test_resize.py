import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.layout import Place, place
from fixtures.checkpoint.resize import resize_tensor, resized_shape
from fixtures.checkpoint.schemes import UNQUANTIZED, QuantConfig
from fixtures.checkpoint.widths import check_width, padded_width, trimmed_width
from fixtures.errors import InputError
from suites.selftest import oracles
from suites.selftest.test_config import FLAT
from suites.selftest.tiny import Tiny

AWQ = QuantConfig("awq", 4, 8, True, ())
MLP = ("gate_proj", "up_proj", "down_proj")
SMALL = Tiny(hidden=16, intermediate=24, group=8, layers=1)


def placed(name: str, quant: QuantConfig) -> Place:
    where = place(name, quant)
    assert where is not None
    return where


def weights(arrays: dict[str, np.ndarray], role: str) -> oracles.Matrix:
    return oracles.weights(arrays, f"model.layers.0.mlp.{role}", SMALL.group)


def resized_mlp(
    arrays: dict[str, np.ndarray], quant: QuantConfig, **change: object
) -> dict[str, np.ndarray]:
    return {
        name: resize_tensor(array, placed(name, quant), **change)  # type: ignore[arg-type]
        for name, array in arrays.items()
        if ".mlp." in name
    }


def tiny(quant: str, seed: int) -> tuple[dict[str, np.ndarray], QuantConfig]:
    made = Tiny(
        quant=quant, hidden=16, intermediate=24, group=8, layers=1, bias=True, seed=seed
    ).arrays()
    return made, AWQ if quant == "awq" else UNQUANTIZED


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["awq", "none"]), st.integers(0, 99), st.sampled_from([32, 40]))
def test_a_padded_mlp_computes_exactly_the_same(quant: str, seed: int, width: int) -> None:
    arrays, config = tiny(quant, seed)
    padded = resized_mlp(arrays, config, pad_to=width)
    x = np.random.default_rng(seed).normal(size=16).tolist()
    before = oracles.mlp(x, *(weights(arrays, role) for role in MLP))
    assert oracles.mlp(x, *(weights(padded, role) for role in MLP)) == before


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["awq", "none"]), st.integers(0, 99))
def test_padding_is_zero_on_both_sides_and_keeps_the_rest(quant: str, seed: int) -> None:
    arrays, config = tiny(quant, seed)
    padded = resized_mlp(arrays, config, pad_to=40)
    for role in MLP:
        old, new = np.array(weights(arrays, role)), np.array(weights(padded, role))
        if role == "down_proj":
            old, new = old.T, new.T
        assert np.array_equal(new[:, :24], old)
        assert not new[:, 24:].any()


@settings(max_examples=8, deadline=None)
@given(
    st.sampled_from(["awq", "none"]),
    st.integers(0, 99),
    st.sets(st.integers(0, 2), min_size=1).map(sorted),
)
def test_trimming_keeps_the_channels_of_the_kept_groups(
    quant: str, seed: int, keep: list[int]
) -> None:
    arrays, config = tiny(quant, seed)
    trimmed = resized_mlp(arrays, config, keep=keep, granule=8)
    channels = [8 * group + channel for group in keep for channel in range(8)]
    for role in MLP:
        old, new = np.array(weights(arrays, role)), np.array(weights(trimmed, role))
        axis = 0 if role == "down_proj" else 1
        assert np.array_equal(new, old.take(channels, axis=axis))


@pytest.mark.parametrize("quant", ["awq", "none"])
def test_shapes_are_foretold_and_biases_follow(quant: str) -> None:
    arrays, config = tiny(quant, 0)
    for name, array in resized_mlp(arrays, config, pad_to=40).items():
        assert array.shape == resized_shape(arrays[name].shape, placed(name, config), width=40)
        assert array.dtype == arrays[name].dtype
    assert not resized_mlp(arrays, config, pad_to=40)["model.layers.0.mlp.up_proj.bias"][24:].any()


@pytest.mark.parametrize(
    ("dtype", "one"), [(np.float16, 1.0), (np.float32, 1.0), (np.uint16, 0x3F80)]
)
def test_added_scales_are_one_in_every_dtype(dtype: npt.DTypeLike, one: float) -> None:
    scales: np.ndarray = np.zeros((3, 16), dtype)
    where = placed("model.layers.0.mlp.down_proj.scales", AWQ)
    assert (resize_tensor(scales, where, pad_to=32)[3] == one).all()


def test_tensors_off_the_intermediate_axis_come_back_themselves() -> None:
    array = np.zeros(16, np.float16)
    for name in ("model.layers.0.mlp.down_proj.bias", "visual.blocks.0.mlp.up_proj.bias"):
        assert resize_tensor(array, placed(name, AWQ), pad_to=64) is array


def test_a_width_that_tears_a_word_or_a_group_is_refused() -> None:
    where = placed("model.layers.0.mlp.gate_proj.qweight", AWQ)
    with pytest.raises(ValueError, match="8 features per step, 28 do not fit"):
        resize_tensor(np.zeros((16, 3), np.int32), where, pad_to=28)
    with pytest.raises(ValueError, match="already wider"):
        resize_tensor(np.zeros((16, 3), np.int32), where, pad_to=16)


def config_of(width: int, group: int = 128) -> dict[str, object]:
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
    assert padded_width(parse_config(config_of(width), source="c"), tps) == padded


@pytest.mark.parametrize(("width", "trimmed"), [(896, 768), (29568, 29440), (1024, 768)])
def test_the_trimmed_width_is_the_next_that_two_ranks_can_share(width: int, trimmed: int) -> None:
    assert trimmed_width(parse_config(config_of(width), source="c")) == trimmed


def test_unquantized_widths_go_by_eight_channels_a_rank() -> None:
    data = {key: value for key, value in FLAT.items() if key != "quantization_config"}
    config = parse_config(data, source="c")
    assert padded_width(config, (1, 2, 4, 8)) == 29568
    assert padded_width(config, (16,)) == 29568
    assert padded_width(config, (64,)) == 29696
    assert trimmed_width(config) == 29440


def test_a_single_group_cannot_be_trimmed() -> None:
    with pytest.raises(InputError, match="Pad it instead"):
        trimmed_width(parse_config(config_of(256), source="c"))


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
        check_width(parse_config(config_of(896), source="c"), kind, to)  # type: ignore[arg-type]
    assert str(refusal.value).endswith(nearest)
    assert f"896 cannot be {kind} to {to}" in str(refusal.value)


def test_a_width_that_is_no_whole_groups_to_begin_with_is_refused() -> None:
    with pytest.raises(InputError, match="900 is not a multiple of group size 128"):
        check_width(parse_config(config_of(900), source="c"), "padded", 1024)
