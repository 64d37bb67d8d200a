"""Checkpoints of real shapes and made-up weights, of any size, at the speed of the disk.

Names, dtypes and shapes are a published checkpoint's of the config (`fixtures.checkpoint.stored`);
tensors stand layer by layer and are cut into shards where transformers cuts them. The data are one
drawn block per kind of number, repeated, or a hole: a file with its headers and its length, of
which the filesystem stores next to nothing.
"""

from __future__ import annotations

import json
import math
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.stored import headers
from fixtures.checkpoint.tensors import DTYPES, INDEX
from suites.selftest.configs import Config

Data: TypeAlias = Literal["drawn", "holes"]
Say: TypeAlias = Callable[[str], None]
BLOCK_BYTES: Final = 1 << 26
SAY_EVERY_BYTES: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


def entries(config: Config) -> tuple[Entry, ...]:
    """Every tensor of the config, in the order of a model's state dict."""
    promised = headers(parse_config(config, source="generated"))
    found = [Entry(name, dtype, shape) for name, (dtype, shape) in promised.items()]
    return tuple(sorted(found, key=_position))


def _position(entry: Entry) -> tuple[int, int]:
    """Embeddings, layers, norm, head, tower; tensors of a layer stay as they come."""
    layer = re.search(r"\.(?:layers|blocks)\.(\d+)\.", entry.name)
    if "visual." in entry.name:
        return 4, int(layer[1]) if layer else -1
    if layer:
        return 1, int(layer[1])
    return (0 if "embed" in entry.name else 3 if "lm_head" in entry.name else 2), 0


def shards(tensors: tuple[Entry, ...], limit_bytes: int) -> dict[str, tuple[Entry, ...]]:
    """File name → tensors: a shard ends where the next tensor would take it past the limit."""
    lots: list[list[Entry]] = [[]]
    held = 0
    for tensor in tensors:
        if lots[-1] and held + tensor.nbytes > limit_bytes:
            lots.append([])
            held = 0
        lots[-1].append(tensor)
        held += tensor.nbytes
    count = len(lots)
    return {
        f"model-{number:05}-of-{count:05}.safetensors": tuple(lot)
        for number, lot in enumerate(lots, 1)
    }


def write_checkpoint(
    directory: Path, config: Config, *, limit_bytes: int, data: Data, say: Say
) -> None:
    """Fill a new directory: config, shards of at most `limit_bytes` of data, index."""
    directory.mkdir()
    lots = shards(entries(config), limit_bytes)
    total = sum(entry.nbytes for lot in lots.values() for entry in lot)
    say(f"generating {directory.name}: {total / 1e9:.1f} GB in {len(lots)} shards")
    fill = _Drawn() if data == "drawn" else None
    said = done = 0
    for name, lot in lots.items():
        _write_shard(directory / name, lot, fill)
        done += sum(entry.nbytes for entry in lot)
        if fill is not None and done - said >= SAY_EVERY_BYTES:
            said = done
            say(f"generating {directory.name}: {done / 1e9:.1f} of {total / 1e9:.1f} GB")
    weight_map = {entry.name: name for name, lot in lots.items() for entry in lot}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    for name, document in (("config.json", config), (INDEX, index)):
        (directory / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


class _Drawn:
    """Blocks of numbers that a checkpoint might hold: finite, small, of no pattern."""

    def __init__(self) -> None:
        random = np.random.default_rng(4)
        floats = random.standard_normal(BLOCK_BYTES // 4, np.float32) * np.float32(0.02)
        self._blocks: Mapping[str, memoryview] = {
            "I32": memoryview(random.bytes(BLOCK_BYTES)),
            "F16": _bytes(np.tile(floats.astype("<f2"), 2)),
            "BF16": _bytes(np.tile((floats.view("<u4") >> 16).astype("<u2"), 2)),
        }

    def chunks(self, entry: Entry) -> Iterator[memoryview]:
        block = self._blocks[entry.dtype]
        for begin in range(0, entry.nbytes, len(block)):
            yield block[: min(len(block), entry.nbytes - begin)]


def _bytes(array: np.ndarray[Any, Any]) -> memoryview:
    return array.view(np.uint8).data


def _write_shard(path: Path, lot: tuple[Entry, ...], fill: _Drawn | None) -> None:
    # Wider numbers first, as the safetensors library orders them: every tensor stays aligned.
    ordered = sorted(lot, key=lambda entry: -DTYPES[entry.dtype].itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in ordered:
        begin, end = end, end + entry.nbytes
        header[entry.name] = {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [begin, end],
        }
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(encoded)))
        file.write(encoded)
        for entry in ordered if fill is not None else ():
            for chunk in fill.chunks(entry) if fill is not None else ():
                file.write(chunk)
        file.truncate(8 + len(encoded) + end)
        file.flush()
        os.fsync(file.fileno())
