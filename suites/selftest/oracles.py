"""Slow answers from the definitions, sharing no code with what they judge."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fixtures.checkpoint.schemes import Scheme

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


def bits_of(word: int, place: int, bits: int) -> int:
    """The value at a place of an int32 word, the first lowest."""
    text = format(word & 0xFFFFFFFF, "032b")
    end = 32 - place * bits
    return int(text[end - bits : end], 2)


def fp8(code: int, exponent_bits: int = 4) -> float:
    """One FP8 number from its bits: E4M3 without infinities, or (5 exponent bits) E5M2."""
    text = format(code, "08b")
    exponent, mantissa = int(text[1 : 1 + exponent_bits], 2), text[1 + exponent_bits :]
    bias = 2 ** (exponent_bits - 1) - 1
    if exponent_bits == 5 and exponent == 31:
        value = math.nan if int(mantissa, 2) else math.inf
    elif text[1:] == "1111111":
        value = math.nan
    elif exponent == 0:
        value = int(mantissa, 2) / 2 ** len(mantissa) * 2.0 ** (1 - bias)
    else:
        value = (1 + int(mantissa, 2) / 2 ** len(mantissa)) * 2.0 ** (exponent - bias)
    return -value if text[0] == "1" else value


def element(parts: Mapping[str, np.ndarray], scheme: Scheme, i: int, o: int) -> float:
    """The weight from input i to output o of one stored layer, in double precision."""
    bits, size = scheme.bits, scheme.group or 10**9
    per, middle = 32 // bits, 2 ** (bits - 1)
    group = i // size
    if scheme.format == "awq":
        column = {c: n for n, c in enumerate(COLUMN_OF_NIBBLE)}[o % 8]
        value = bits_of(int(parts["qweight"][i, o // 8]), column, 4)
        zero = bits_of(int(parts["qzeros"][group, o // 8]), column, 4)
        return float((value - zero) * float(parts["scales"][group, o]))
    if scheme.format == "gptq":
        group = int(parts["g_idx"][i])
        value = bits_of(int(parts["qweight"][i // per, o]), i % per, bits)
        zero = bits_of(int(parts["qzeros"][group, o // per]), o % per, bits)
        zero = (zero + (1 if scheme.version == 1 else 0)) % 2**bits
        return float((value - zero) * float(parts["scales"][group, o]))
    if scheme.format == "packed":
        if scheme.desc_act:
            group = int(parts["weight_g_idx"][i])
        value = bits_of(int(parts["weight_packed"][o, i // per]), i % per, bits) - middle
        zero = 0
        if not scheme.symmetric:
            zero = bits_of(int(parts["weight_zero_point"][o // per, group]), o % per, bits) - middle
        return float((value - zero) * float(parts["weight_scale"][o, group]))
    weight = parts["weight"][o, i]
    if scheme.format == "dense":
        return float(weight)
    stored = fp8(int(weight)) if scheme.format == "fp8" else float(weight)
    scales = parts["weight_scale_inv" if "weight_scale_inv" in parts else "weight_scale"]
    if scheme.block:
        return stored * float(scales[o // scheme.block[0], i // scheme.block[1]])
    return stored * float(scales[o, 0] if scheme.channel else scales.reshape(-1)[0])
