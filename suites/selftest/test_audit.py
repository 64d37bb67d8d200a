"""The recorder's arithmetic: which box of a tensor a view is, held against plain indexing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fixtures.serving.audit import box_of


def as_view(base: np.ndarray, view: np.ndarray) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Offset, shape and strides in elements, as the tensor library reports them."""
    start = view.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    item = base.itemsize
    return start // item, view.shape, tuple(stride // item for stride in view.strides)


def touched(base: np.ndarray, box: tuple[list[int], list[int]]) -> set[int]:
    begin, size = box
    slices = tuple(slice(b, b + s) for b, s in zip(begin, size, strict=True))
    return {int(element) for element in base[slices].ravel()}


@st.composite
def boxes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    slices = []
    for size in shape:
        begin = draw(st.integers(0, size - 1))
        slices.append(slice(begin, draw(st.integers(begin + 1, size))))
    return shape, tuple(slices)


@given(boxes())
def test_a_slice_is_the_box_it_covers(drawn: tuple[tuple[int, ...], tuple[slice, ...]]) -> None:
    shape, slices = drawn
    base = np.arange(int(np.prod(shape))).reshape(shape)
    box = box_of(*as_view(base, base[slices]), shape)
    assert box is not None
    assert touched(base, box) == {int(element) for element in base[slices].ravel()}


@pytest.mark.parametrize(
    ("shape", "take"),
    [
        ((6, 4), lambda a: a.T),
        ((6, 4), lambda a: a[2:4].T),
        ((8, 3, 2, 2), lambda a: a.reshape(8, 12)),
        ((8, 3, 2, 2), lambda a: a.reshape(-1)),
        ((8, 4), lambda a: a[3]),
        ((8, 4), lambda a: a.reshape(-1)[8:16]),
        ((8, 4), lambda a: a.reshape(2, 4, 4)[1]),
        ((5,), lambda a: a[1:4]),
    ],
)
def test_transposed_and_reshaped_views_are_resolved(shape: tuple[int, ...], take: object) -> None:
    assert callable(take)
    base = np.arange(int(np.prod(shape))).reshape(shape)
    view = take(base)
    box = box_of(*as_view(base, view), shape)
    assert box is not None
    assert touched(base, box) == {int(element) for element in view.ravel()}


@pytest.mark.parametrize(
    "take", [lambda a: a.reshape(-1)[3:9], lambda a: a[:, ::2], lambda a: a.reshape(4, 6)[:, :3]]
)
def test_a_view_that_is_no_box_is_said_to_be_none(take: object) -> None:
    assert callable(take)
    base = np.arange(24).reshape(6, 4)
    assert box_of(*as_view(base, take(base)), (6, 4)) is None
