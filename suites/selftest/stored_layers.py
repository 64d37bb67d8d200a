"""Single linear layers with random bits, in any scheme, written where asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fixtures.checkpoint.schemes import QuantMethod, Scheme
from fixtures.checkpoint.stored import Tensor, tensors
from fixtures.checkpoint.tensors import DTYPES, read_header
from fixtures.checkpoint.weights import Linear
from fixtures.checkpoint.writing import PendingTensor, write_safetensors


def arrays(
    scheme: Scheme, inputs: int, outputs: int, *, method: QuantMethod, seed: int = 0
) -> dict[str, tuple[str, np.ndarray]]:
    """(safetensors dtype, data) of each tensor; integers take every value their type has."""
    random = np.random.default_rng(seed)
    found = {}
    for tensor in tensors(scheme, inputs, outputs, method=method, dtype="F16"):
        found[tensor.name] = tensor.dtypes[0], _draw(random, tensor, scheme, inputs)
    return found


def _draw(random: np.random.Generator, tensor: Tensor, scheme: Scheme, inputs: int) -> np.ndarray:
    dtype = DTYPES[tensor.dtypes[0]]
    if "g_idx" in tensor.name:
        groups = np.arange(inputs) // (scheme.group or inputs)
        return (random.permutation(groups) if scheme.desc_act else groups).astype(dtype)
    if dtype.kind == "f":
        return random.normal(size=tensor.shape).astype(dtype)
    limits = np.iinfo(dtype)
    return random.integers(limits.min, limits.max, tensor.shape, dtype, endpoint=True)


def write_linear(
    folder: Path,
    scheme: Scheme,
    inputs: int,
    outputs: int,
    data: dict[str, tuple[str, np.ndarray]],
    *,
    transposed: bool = False,
) -> Linear:
    """The layer `m`, stored in a new file of the folder."""
    path = folder / f"{len(list(folder.iterdir()))}.safetensors"
    pending = [
        PendingTensor(f"m.{name}", dtype, array.shape, lambda array=array: array)  # type: ignore[misc]
        for name, (dtype, array) in data.items()
    ]
    write_safetensors(path, pending, metadata={})
    parts = {info.name.removeprefix("m."): info for info in read_header(path)}
    return Linear("m", scheme, inputs, outputs, parts, transposed)
