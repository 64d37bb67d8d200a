"""The audits a stub leaves: what ranks would take if a loader narrowed each tensor, rounding down.

Written from the names alone, without the suite's own tables, so that a mistake in those shows.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

ROW = ("o_proj", "down_proj", "attn.proj", "merger.mlp.2")
COLUMN = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "merger.mlp.0", "attn.qkv")
VOCABULARY = ("embed_tokens", "lm_head")
WHOLE = ("weight_shape",)
UNREAD = (".g_idx",)
LOST = "layers.0.mlp.down_proj.scales"


def _headers(model: Path) -> dict[str, tuple[str, list[int]]]:
    found: dict[str, tuple[str, list[int]]] = {}
    for file in sorted(model.glob("*.safetensors")):
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        found |= {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}
    return found


def cut_axis(name: str) -> int | None:
    """The axis ranks divide: AWQ and GPTQ store inputs before outputs, all others after."""
    module, _, part = name.rpartition(".")
    quantized = part in ("qweight", "qzeros", "scales")
    if part in WHOLE:
        return None
    if module.endswith(ROW):
        return None if part == "bias" else 0 if quantized else 1
    if module.endswith(COLUMN):
        return 1 if quantized else 0
    return 0 if module.endswith(VOCABULARY) else None


def layers_of(model: Path) -> int:
    config = json.loads((model / "config.json").read_text())
    layers: int = (config | config.get("text_config", {})).get("num_hidden_layers", 1)
    return layers


def owners(layers: int, pp: int) -> list[int]:
    """The stage of each layer, dealt out one by one: what is left over goes before the last."""
    sizes = [layers // pp] * pp
    for place in range(layers % pp):
        sizes[-2 - place] += 1
    return [stage for stage, size in enumerate(sizes) for _ in range(size)]


def _on_stage(name: str, stage: int, pp: int, owner: list[int]) -> bool:
    if "visual" in name:
        return True
    if layer := re.search(r"layers\.(\d+)\.", name):
        return owner[int(layer[1])] == stage
    return stage == (0 if "embed_tokens" in name else pp - 1)


def write_audits(
    directory: Path, model: Path, tp: int, pp: int = 1, *, lost_row: bool = False
) -> None:
    """One JSON per rank, in the recorder's format; the last may lack the last row of LOST."""
    directory.mkdir(parents=True, exist_ok=True)
    headers = _headers(model)
    owner = owners(layers_of(model), pp)
    for rank in range(tp * pp):
        stage, part = divmod(rank, tp)
        copies, parameters = [], {}
        for name, (dtype, shape) in headers.items():
            if not _on_stage(name, stage, pp, owner) or name.endswith(UNREAD):
                continue
            begin, size = [0] * len(shape), list(shape)
            axis = cut_axis(name)
            if axis is not None and shape[axis] > 1:  # one scale for all inputs is everyone's
                size[axis] = shape[axis] // tp
                begin[axis] = part * size[axis]
            parameters[name] = {"shape": list(size), "dtype": dtype, "nbytes": 2}
            if lost_row and part == tp - 1 and name.endswith(LOST):
                size[0] -= 1
            copies.append(
                {
                    "tensor": name,
                    "begin": begin,
                    "size": size,
                    "parameter": name,
                    "to_begin": [0] * len(shape),
                    "to_size": size,
                    "digest": "",
                    "intact": True,
                }
            )
        record = {
            "format": 1,
            "rank": rank,
            "stage": stage,
            "tp": tp,
            "pid": 0,
            "tensors": {name: {"shape": shape} for name, (_, shape) in headers.items()},
            "parameters": parameters,
            "copies": copies,
            "faults": [],
        }
        (directory / f"rank-{rank}.json").write_text(json.dumps(record))
