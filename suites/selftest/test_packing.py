import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fixtures.checkpoint.packing import as_float32, dequantize_awq, pack_awq, unpack_awq
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
    assert dequantize_awq(qweight, qzeros, scales, group).astype(float).tolist() == expected


def test_raw_bfloat16_words_widen_to_their_values() -> None:
    assert as_float32(np.array([0x3F80, 0xC000], np.uint16)).tolist() == [1.0, -2.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.zeros((1, 7), np.uint8), "7 columns"), (np.full((1, 8), 16, np.uint8), "value 16")],
)
def test_what_does_not_fit_a_word_is_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pack_awq(values)
