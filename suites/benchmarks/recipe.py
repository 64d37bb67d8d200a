"""The ways there were: the whole model in memory, edited, saved.

    recipe    the makers' published one, for unquantized weights: load with transformers, put a
              zero channel behind each of the first, save the state dict as one file
    by-hand   the same idea for packed weights, which transformers does not load without kernels:
              read every shard into one state dict, append zero channels, save by the index

The first is what Qwen tells users to do before they quantize; the second is what a user of a
packed checkpoint would write after it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from fixtures.serving.server import INSIDE

State: TypeAlias = dict[str, Any]  # of torch.Tensor
INDEX: Final = "model.safetensors.index.json"
_MLP: Final = re.compile(r"layers\.\d+\.mlp\.(gate|up|down)_proj\.(\w+)$")


def recipe(source: Path, out: Path, to: int) -> None:
    """Unquantized, interleaved, one file."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source, dtype="auto")
    state = model.state_dict()
    for name, tensor in state.items():
        if found := _MLP.search(name):
            axis = 1 if found[1] == "down" else 0
            state[name] = _interleaved(tensor, axis, to - tensor.shape[axis])
    torch.save(state, out / "pytorch_model.bin")


def by_hand(source: Path, out: Path, to: int) -> None:
    """AWQ, appended, in the shards it came in."""
    from safetensors.torch import load_file, save_file

    weight_map: dict[str, str] = json.loads((source / INDEX).read_text())["weight_map"]
    width = json.loads((source / "config.json").read_text())["intermediate_size"]
    files = sorted(set(weight_map.values()))
    state: State = {}
    for file in files:
        state |= load_file(source / file)
    for name in state:
        if found := _MLP.search(name):
            state[name] = _appended(state[name], found[2], found[1] == "down", to / width)
    for file in files:
        mine = {name: tensor for name, tensor in state.items() if weight_map[name] == file}
        save_file(mine, out / file, {"format": "pt"})
    total = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (out / INDEX).write_text(json.dumps(index, indent=2))


def _interleaved(tensor: Any, axis: int, added: int) -> Any:
    import torch

    head, tail = tensor.split([added, tensor.shape[axis] - added], dim=axis)
    pairs = torch.stack((head, torch.zeros_like(head)), dim=axis + 1).flatten(axis, axis + 1)
    return torch.cat((pairs, tail), dim=axis)


def _appended(tensor: Any, part: str, inputs: bool, growth: float) -> Any:
    """Zeros behind its integers, ones behind its scales: (0 - 0) x 1."""
    import torch

    axis = 0 if inputs else 1
    shape = list(tensor.shape)
    shape[axis] = round(shape[axis] * growth) - shape[axis]
    fill = 1 if part == "scales" else 0
    return torch.cat((tensor, torch.full(shape, fill, dtype=tensor.dtype)), dim=axis)


WAYS: Final[dict[str, Callable[[Path, Path, int], None]]] = {"recipe": recipe, "by-hand": by_hand}


def command(way: str, source: Path, out: Path, to: int) -> list[str | Path]:
    """The command line of one of the ways, to be run in the repository's root."""
    # transformers imports a torchvision that may need the repair our servers get.
    python = ["env", f"PYTHONPATH={INSIDE}", sys.executable, "-m", "suites.benchmarks.recipe"]
    return [*python, way, source, "--out", out, "--to", str(to)]


def main() -> int:
    """Write the padded checkpoint and its config."""
    parser = argparse.ArgumentParser(prog="python -m suites.benchmarks.recipe")
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--to", type=int, required=True)
    options = parser.parse_args()
    options.out.mkdir()
    WAYS[options.way](options.source, options.out, options.to)
    for path in options.source.iterdir():
        if path.suffix == ".json" and path.name not in ("config.json", INDEX):
            shutil.copyfile(path, options.out / path.name)
    config = json.loads((options.source / "config.json").read_text())
    config["intermediate_size"] = options.to
    (options.out / "config.json").write_text(json.dumps(config, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
