"""Variants as a wrong builder may have made them: changed bytes under a manifest that agrees.

Digests never give such a variant away; only the claims of a proof do.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from fixtures.checkpoint.tensors import (
    DTYPES,
    INDEX,
    MANIFEST,
    digest_of,
    read_checkpoint,
    read_header,
)
from fixtures.checkpoint.writing import MovedTensor, Pending, write_safetensors


class Variant:
    """A variant that a wrong builder may have made."""

    def __init__(self, directory: Path, quant: str, operation: str) -> None:
        self.directory, self.quant, self.operation = directory, quant, operation
        self.names = sorted(read_checkpoint(directory).tensors)

    def tensor(self, name: str) -> np.ndarray:
        """A tensor's own bytes in its file, to be changed."""
        info = read_checkpoint(self.directory).tensors[name]
        assert info.file.stat().st_nlink == 1, "linked to the source"
        kind = f"u{DTYPES[info.dtype].itemsize}"
        return np.memmap(info.file, kind, mode="r+", offset=info.begin, shape=info.shape)

    def drawn(self, random: np.random.Generator, parts: tuple[str, ...], within: str = "") -> str:
        """The name of a linear layer's tensor that is one of these parts."""
        found = [n for n in self.names if "_proj." in n and n.rpartition(".")[2] in parts]
        return str(random.choice([name for name in found if within in name]))

    def rewrite(
        self,
        file: str,
        change: Callable[[list[Pending]], list[Pending]],
        metadata: Mapping[str, str] = MappingProxyType({"format": "pt"}),
    ) -> None:
        """One shard with other tensors, or another header."""
        path = self.directory / file
        tensors: list[Pending] = [MovedTensor(info, None) for info in read_header(path)]
        write_safetensors(path.with_suffix(".new"), change(tensors), metadata=metadata)
        path.with_suffix(".new").replace(path)

    def edit(self, file: str, change: Callable[[dict[str, Any]], object]) -> None:
        data = json.loads((self.directory / file).read_text())
        change(data)
        (self.directory / file).unlink()
        (self.directory / file).write_text(json.dumps(data))

    def forge(self) -> None:
        """Make the manifest agree with what is there."""
        files = sorted(path for path in self.directory.iterdir() if path.name != MANIFEST)
        codes: dict[str, int] = {}
        for path in files:
            if path.suffix == ".safetensors":
                data = path.read_bytes()
                codes |= {i.name: zlib.crc32(data[i.begin : i.end]) for i in read_header(path)}
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        tensors = {name: f"{code:08x}" for name, code in codes.items()}
        said = {"files": digests, "tensors": tensors, "digest": digest_of(digests)}
        self.edit(MANIFEST, lambda manifest: manifest.update(said))

    @contextmanager
    def spoilt(self) -> Iterator[None]:
        """Whatever is done inside is undone behind it."""
        linked = {p for p in self.directory.glob("*.safetensors") if p.stat().st_nlink > 1}
        before = {p: p.read_bytes() for p in self.directory.iterdir() if p not in linked}
        try:
            yield
        finally:
            # Unlinked first: some are the source's own as well.
            for path in set(self.directory.iterdir()) - linked:
                path.unlink()
            for path, data in before.items():
                path.write_bytes(data)


def sharded(directory: Path) -> Path:
    """A checkpoint in a shard for each layer, and a first for what is in none."""
    checkpoint = read_checkpoint(directory)
    shards: dict[str, list[MovedTensor]] = {}
    for name, info in checkpoint.tensors.items():
        number = 2 + int(name.split(".")[2]) if ".layers." in name else 1
        file = f"model-{number:05}-of-00003.safetensors"
        shards.setdefault(file, []).append(MovedTensor(info, None))
    for file, tensors in shards.items():
        write_safetensors(directory / file, tensors, metadata={"format": "pt"})
    (directory / "model.safetensors").unlink()
    places = {tensor.name: file for file, tensors in shards.items() for tensor in tensors}
    total = sum(info.nbytes for info in checkpoint.tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": places}
    (directory / INDEX).write_text(json.dumps(index))
    (directory / "tokenizer.json").write_text("{}")
    return directory
