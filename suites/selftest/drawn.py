"""Whole checkpoints of random bits for any config, in the names and shapes its table promises."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.places import place
from fixtures.checkpoint.stored import StoredPattern, headers
from fixtures.checkpoint.tensors import DTYPES
from fixtures.checkpoint.writing import PendingTensor, write_safetensors


def write_drawn(
    directory: Path,
    config: dict[str, Any],
    seed: int = 0,
    *,
    more: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """A checkpoint of this config, and `more` (float16) that it does not promise; integers take
    every value, FP8 every number."""
    model = parse_config(config, source="config.json")
    random = np.random.default_rng(seed)
    pending = []
    for name, (dtype, shape) in headers(model, stacked=False).items():
        promised = place(name, model)
        assert promised is not None, name
        array = _draw(random, promised, dtype, shape)
        pending.append(PendingTensor(name, dtype, shape, lambda array=array: array))  # type: ignore[misc]
    for name, array in (more or {}).items():
        pending.append(PendingTensor(name, "F16", array.shape, lambda array=array: array))  # type: ignore[misc]
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    write_safetensors(directory / "model.safetensors", pending, metadata={"format": "pt"})
    return directory


def _draw(
    random: np.random.Generator, promised: StoredPattern, dtype: str, shape: tuple[int, ...]
) -> np.ndarray:
    kind, part = DTYPES[dtype], promised.pattern.rpartition(".")[2]
    if part == "weight_shape" and promised.part and promised.layer:
        return np.array([sum(promised.part.sizes), promised.layer.inputs], kind)
    if "g_idx" in part:
        groups = np.arange(shape[0]) // (promised.scheme.group or shape[0])
        return (random.permutation(groups) if promised.scheme.desc_act else groups).astype(kind)
    if dtype == "BF16":
        return (random.normal(size=shape).astype(np.float32).view(np.uint32) >> 16).astype(kind)
    if kind.kind == "f":
        return random.normal(size=shape).astype(kind)
    if dtype == "F8_E4M3":
        return random.choice(np.r_[0:0x7F, 0x80:0xFF], shape).astype(kind)
    limits = np.iinfo(kind)
    return random.integers(limits.min, limits.max, shape, kind, endpoint=True)
