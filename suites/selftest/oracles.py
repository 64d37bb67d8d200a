"""Slow answers from the definitions, sharing no code with what they judge."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Nibble i of a word, lowest first, holds this column of the word's eight.
COLUMN_OF_NIBBLE = (0, 2, 4, 6, 1, 3, 5, 7)

Matrix = list[list[float]]


def unpack(words: Sequence[Sequence[int]]) -> list[list[int]]:
    """Rows of int32 words → rows of 4-bit values, nibble by nibble."""
    rows = []
    for row in words:
        values = [0] * (8 * len(row))
        for index, word in enumerate(row):
            bits = format(word & 0xFFFFFFFF, "032b")
            for nibble, column in enumerate(COLUMN_OF_NIBBLE):
                end = 32 - 4 * nibble
                values[8 * index + column] = int(bits[end - 4 : end], 2)
        rows.append(values)
    return rows


def dequantize(
    qweight: Sequence[Sequence[int]],
    qzeros: Sequence[Sequence[int]],
    scales: Sequence[Sequence[float]],
    group_size: int,
) -> Matrix:
    """Weights `[in, out]` of one packed layer."""
    values, zeros = unpack(qweight), unpack(qzeros)
    return [
        [
            (value - zeros[i // group_size][j]) * scales[i // group_size][j]
            for j, value in enumerate(row)
        ]
        for i, row in enumerate(values)
    ]


def mlp(x: Sequence[float], gate: Matrix, up: Matrix, down: Matrix) -> list[float]:
    """down(silu(gate x) · up x), weights `[in, out]`, summed strictly from left to right."""
    gated, raised = _times(x, gate), _times(x, up)
    hidden = [g / (1.0 + math.exp(-g)) * u for g, u in zip(gated, raised, strict=True)]
    return _times(hidden, down)


def _times(x: Sequence[float], weights: Matrix) -> list[float]:
    sums = [0.0] * len(weights[0])
    for value, row in zip(x, weights, strict=True):
        for j, weight in enumerate(row):
            sums[j] += value * weight
    return sums


def weights(arrays: Mapping[str, np.ndarray], module: str, group_size: int) -> Matrix:
    """The weights `[in, out]` of one module of a checkpoint, packed or not."""
    if f"{module}.weight" in arrays:
        return _rows(arrays[f"{module}.weight"].astype(float).T)
    qweight, qzeros = (_rows(arrays[f"{module}.{part}"]) for part in ("qweight", "qzeros"))
    return dequantize(qweight, qzeros, _rows(arrays[f"{module}.scales"].astype(float)), group_size)


def _rows(array: np.ndarray) -> list[list[Any]]:
    rows: list[list[Any]] = array.tolist()
    return rows
