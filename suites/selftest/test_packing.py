import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fixtures.checkpoint.packing import (
    FP8_VALUES,
    as_float32,
    dequantize_awq,
    pack_awq,
    pack_words,
    unpack_awq,
    unpack_words,
)
from suites.selftest import oracles

shapes = st.tuples(st.integers(1, 5), st.integers(1, 4))
words = shapes.flatmap(lambda shape: arrays.arrays(np.int32, shape))
nibbles = shapes.flatmap(
    lambda shape: arrays.arrays(np.uint8, (shape[0], 8 * shape[1]), elements=st.integers(0, 15))
)


@given(words)
def test_unpacking_agrees_with_reading_nibble_by_nibble(packed: np.ndarray) -> None:
    assert unpack_awq(packed).tolist() == oracles.unpack(packed.tolist())


@given(nibbles)
def test_packing_is_undone_by_the_oracle(values: np.ndarray) -> None:
    assert oracles.unpack(pack_awq(values).tolist()) == values.tolist()


@given(words)
def test_repacking_gives_the_same_words(packed: np.ndarray) -> None:
    assert np.array_equal(pack_awq(unpack_awq(packed)), packed)


def test_the_lowest_nibbles_hold_the_even_columns() -> None:
    assert unpack_awq(np.array([[0x75316420]], np.int32)).tolist() == [list(range(8))]


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 16]), st.integers(1, 3))
def test_dequantizing_agrees_with_the_definition_exactly(seed: int, group: int, n: int) -> None:
    random = np.random.default_rng(seed)
    qweight, qzeros = (
        random.integers(-(2**31), 2**31, (rows, 2), np.int32) for rows in (n * group, n)
    )
    scales = random.normal(size=(n, 16)).astype(np.float16)
    expected = oracles.dequantize(
        qweight.tolist(), qzeros.tolist(), scales.astype(float).tolist(), group
    )
    groups = np.arange(n * group) // group
    assert dequantize_awq(qweight, qzeros, scales, groups).astype(float).tolist() == expected


def test_raw_bfloat16_words_widen_to_their_values() -> None:
    assert as_float32(np.array([0x3F80, 0xC000], np.uint16)).tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.zeros((1, 7), np.uint8), "7 columns"), (np.full((1, 8), 16, np.uint8), "value 16")],
)
def test_what_does_not_fit_a_word_is_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack_awq(values)


@given(words, st.sampled_from([2, 4, 8]), st.sampled_from([0, 1]))
def test_words_hold_their_values_in_order(packed: np.ndarray, bits: int, axis: int) -> None:
    values, per = unpack_words(packed, bits, axis), 32 // bits
    for (i, j), value in np.ndenumerate(values):
        word = packed[i // per, j] if axis == 0 else packed[i, j // per]
        assert value == oracles.bits_of(int(word), (i, j)[axis] % per, bits)
    assert values.size == packed.size * per
    assert np.array_equal(pack_words(values, bits, axis), packed)


def test_words_of_a_view_are_those_of_its_copy() -> None:
    whole = np.arange(-24, 24, dtype=np.int32).reshape(6, 8)
    for view in (whole[1:5, 2:7], whole[::2], whole.T):
        assert np.array_equal(unpack_words(view, 4, 0), unpack_words(view.copy(), 4, 0))
        assert np.array_equal(unpack_words(view, 4, 1), unpack_words(view.copy(), 4, 1))


@pytest.mark.parametrize(
    ("values", "bits", "message"),
    [
        (np.zeros((8, 7), np.uint8), 4, "7 values do not fill words of 8"),
        (np.full((1, 16), 4, np.uint8), 2, "values 4 to 4 do not fit 2 bits"),
        (np.full((1, 8), -1, np.int8), 4, "values -1 to -1 do not fit 4 bits"),
        (np.zeros((1, 32), np.uint8), 3, "3 bits, expected 2, 4 or 8"),
    ],
)
def test_values_that_do_not_fit_words_are_refused(
    values: np.ndarray, bits: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pack_words(values, bits, 1)


@pytest.mark.parametrize(("dtype", "exponent_bits"), [("F8_E4M3", 4), ("F8_E5M2", 5)])
def test_every_fp8_code_has_the_value_its_bits_say(dtype: str, exponent_bits: int) -> None:
    expected = [oracles.fp8(code, exponent_bits) for code in range(256)]
    np.testing.assert_array_equal(FP8_VALUES[dtype], np.array(expected, np.float32))
    assert np.signbit(FP8_VALUES[dtype][0x80])
