"""Any region of any stored layer dequantizes to what its bits say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.checkpoint import weights
from fixtures.checkpoint.schemes import QuantMethod, Scheme
from fixtures.errors import InputError
from suites.selftest import oracles
from suites.selftest.stored_layers import arrays, write_linear

# scheme, how its config calls it, inputs, outputs
LAYERS: dict[str, tuple[Scheme, QuantMethod, int, int]] = {
    "dense": (Scheme("dense"), "none", 21, 13),
    "awq": (Scheme("awq", 4, 8, False), "awq", 24, 40),
    "awq-channel": (Scheme("awq", 4, 0, False), "awq", 24, 40),
    "gptq": (Scheme("gptq", 4, 16), "gptq", 48, 24),
    "gptq-v2": (Scheme("gptq", 4, 16, False, version=2), "gptq", 48, 24),
    "gptq-int2": (Scheme("gptq", 2, 16, False), "gptq", 48, 32),
    "gptq-int8": (Scheme("gptq", 8, 16, False), "gptq", 40, 24),
    "gptq-act": (Scheme("gptq", 4, 16, desc_act=True), "gptq", 48, 24),
    "packed": (Scheme("packed", 4, 16), "compressed-tensors", 48, 11),
    "packed-part": (Scheme("packed", 4, 16), "compressed-tensors", 41, 11),
    "packed-asym": (Scheme("packed", 4, 16, False), "compressed-tensors", 48, 21),
    "packed-channel": (Scheme("packed", 4, 0, False), "compressed-tensors", 20, 9),
    "packed-int8": (Scheme("packed", 8, 16), "compressed-tensors", 40, 11),
    "packed-act": (Scheme("packed", 4, 16, desc_act=True), "compressed-tensors", 48, 11),
    "int8": (Scheme("int8", 8, channel=True), "compressed-tensors", 19, 11),
    "int8-tensor": (Scheme("int8", 8), "compressed-tensors", 19, 11),
    "fp8": (Scheme("fp8", 8, block=(8, 16)), "fp8", 41, 27),
    "fp8-wide": (Scheme("fp8", 8, block=(128, 128)), "compressed-tensors", 41, 27),
    "fp8-channel": (Scheme("fp8", 8, channel=True), "compressed-tensors", 19, 11),
    "fp8-tensor": (Scheme("fp8", 8), "fp8", 19, 11),
}
spans = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: tuple(sorted(pair)))


def expected(name: str, seed: int) -> np.ndarray:
    scheme, method, inputs, outputs = LAYERS[name]
    parts = {
        k: v for k, (_, v) in arrays(scheme, inputs, outputs, method=method, seed=seed).items()
    }
    return np.array(
        [[oracles.element(parts, scheme, i, o) for i in range(inputs)] for o in range(outputs)]
    ).astype(np.float32)


def layer(name: str, folder: Path, seed: int) -> weights.Linear:
    scheme, method, inputs, outputs = LAYERS[name]
    data = arrays(scheme, inputs, outputs, method=method, seed=seed)
    return write_linear(folder, scheme, inputs, outputs, data)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_dequantizes_to_what_its_bits_say(name: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(layer(name, tmp_path, 1).weights(), expected(name, 1))


@pytest.mark.parametrize("name", LAYERS)
def test_any_region_is_that_region_of_the_whole(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    linear, whole = layer(name, tmp_path_factory.mktemp("region"), 2), expected(name, 2)

    @settings(max_examples=20, deadline=None)
    @given(spans, spans)
    def check(inputs: tuple[int, int], outputs: tuple[int, int]) -> None:
        i = tuple(min(bound, linear.inputs) for bound in inputs)
        o = tuple(min(bound, linear.outputs) for bound in outputs)
        found = linear.weights(inputs=(i[0], i[1]), outputs=(o[0], o[1]))
        np.testing.assert_array_equal(found, whole[slice(*o), slice(*i)])

    check()


@pytest.mark.parametrize("room", [4, 256, 1024])
@pytest.mark.parametrize("name", LAYERS)
def test_blocks_of_any_size_cover_every_weight_once(
    name: str, room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "BLOCK_BYTES", room)
    linear, whole = layer(name, tmp_path, 3), expected(name, 3)
    seen = np.zeros(whole.shape, int)
    for i, o, block in linear.blocks():
        region = slice(o, o + block.shape[0]), slice(i, i + block.shape[1])
        np.testing.assert_array_equal(block, whole[region])
        seen[region] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize("name", ["dense", "awq", "gptq-act", "packed-asym", "fp8"])
def test_norms_are_those_of_the_whole_weight(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "BLOCK_BYTES", 512)
    linear, whole = layer(name, tmp_path, 4), expected(name, 4).astype(np.float64)
    np.testing.assert_allclose(linear.channel_norms("inputs"), np.sqrt((whole**2).sum(0)))
    np.testing.assert_allclose(linear.channel_norms("outputs"), np.sqrt((whole**2).sum(1)))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_whose_weight_is_transposed_reads_as_any_other(name: str, tmp_path: Path) -> None:
    scheme, method, inputs, outputs = LAYERS[name]
    data = arrays(scheme, inputs, outputs, method=method, seed=5)
    if "weight" in data:  # words and scales lie as their format has them
        dtype, weight = data["weight"]
        data["weight"] = dtype, weight.T
    linear = write_linear(tmp_path, scheme, inputs, outputs, data, transposed=True)
    found = linear.weights(inputs=(3, 9), outputs=(2, 5))
    np.testing.assert_array_equal(found, expected(name, 5)[2:5, 3:9])


@pytest.mark.parametrize("name", ["gptq", "gptq-v2", "gptq-act"])
def test_a_map_of_inputs_that_is_stored_empty_orders_nothing(name: str, tmp_path: Path) -> None:
    scheme, method, inputs, outputs = LAYERS[name]
    data = arrays(scheme, inputs, outputs, method=method, seed=6)
    data["g_idx"] = "I32", np.zeros(0, np.int32)
    if scheme.desc_act:
        with pytest.raises(InputError, match=r"g_idx has shape \[0\], expected \[48\]"):
            write_linear(tmp_path, scheme, inputs, outputs, data)
        return
    linear = write_linear(tmp_path, scheme, inputs, outputs, data)
    np.testing.assert_array_equal(linear.weights(), expected(name, 6))


def test_a_block_is_no_larger_than_it_says(tmp_path: Path) -> None:
    scheme = Scheme("gptq", 4, 128)
    data = arrays(scheme, 2048, 1024, method="gptq")
    sizes = [
        block.nbytes for _, _, block in write_linear(tmp_path, scheme, 2048, 1024, data).blocks()
    ]
    assert max(sizes) <= weights.BLOCK_BYTES
    assert len(sizes) == 2048 * 1024 * 4 // weights.BLOCK_BYTES


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    scheme, method, inputs, outputs = LAYERS["gptq-act"]
    data = arrays(scheme, inputs, outputs, method=method)
    del data["g_idx"]
    with pytest.raises(InputError, match=r"m has qweight, qzeros, scales, expected g_idx"):
        write_linear(tmp_path, scheme, inputs, outputs, data)


def test_without_activation_order_groups_need_no_index(tmp_path: Path) -> None:
    scheme, method, inputs, outputs = LAYERS["gptq"]
    data = arrays(scheme, inputs, outputs, method=method, seed=1)
    del data["g_idx"]
    found = write_linear(tmp_path, scheme, inputs, outputs, data).weights()
    np.testing.assert_array_equal(found, expected("gptq", 1))


def test_a_part_of_another_shape_or_type_is_named(tmp_path: Path) -> None:
    scheme, method, inputs, outputs = LAYERS["packed"]
    data = arrays(scheme, inputs, outputs, method=method)
    narrow = {**data, "weight_scale": ("F16", data["weight_scale"][1][:, :2])}
    with pytest.raises(
        InputError, match=r"m\.weight_scale has shape \[11, 2\], expected \[11, 3\]"
    ):
        write_linear(tmp_path, scheme, inputs, outputs, narrow)
    whole = {**data, "weight_scale": ("I64", data["weight_scale"][1].astype(np.int64))}
    with pytest.raises(InputError, match=r"m\.weight_scale is I64, expected F16 or BF16 or F32"):
        write_linear(tmp_path, scheme, inputs, outputs, whole)


def test_a_group_beyond_the_last_is_named(tmp_path: Path) -> None:
    scheme, method, inputs, outputs = LAYERS["gptq-act"]
    data = arrays(scheme, inputs, outputs, method=method)
    data["g_idx"][1][7] = 3
    linear = write_linear(tmp_path, scheme, inputs, outputs, data)
    with pytest.raises(InputError, match="m: g_idx names group 3, expected 0 to 2 for 48 inputs"):
        linear.weights()


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (Scheme("gptq", 3, 16), "3-bit weights, expected 2, 4 or 8"),
        (Scheme("int8", 8, symmetric=False), "int8 weights with zero points"),
        (Scheme("awq", 4, 16, False), "40 inputs, not a multiple of AWQ's group size 16"),
    ],
)
def test_what_is_not_read_is_refused_by_name(scheme: Scheme, message: str) -> None:
    with pytest.raises(InputError, match=message):
        weights.Linear("m", scheme, 40, 24, {})
