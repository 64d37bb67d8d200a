"""Checkpoints small enough to be read bit by bit, with faults in them, and how they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fixtures.checkpoint.places import place
from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.faults import Fault, seed_fault
from fixtures.variants import build_padded
from suites.selftest import oracles, small_configs
from suites.selftest.drawn import write_drawn
from suites.selftest.tiny import arrays_in

FORMATS = ("awq", "gptq", "gptq_asymmetric", "packed", "packed_asymmetric", "none")
INPUTS_FIRST = ("awq", "gptq", "gptq_asymmetric")
GROUP, HEAD, WIDTH, PADDED = 32, 16, 96, 128
NO_BIAS = {"attention_bias": False, "mlp_bias": False}
Weights = dict[str, np.ndarray]


def config(quant: str, model: str = "llama", **more: Any) -> dict[str, Any]:
    """A model small enough for an oracle that reads bit by bit."""
    small = {
        "torch_dtype": "float16",
        "hidden_size": 64,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 64 // HEAD,
        "num_key_value_heads": 2,
        "vocab_size": 64,
    }
    known = quant.replace("gptq_asymmetric", "gptq")
    text = json.dumps(small_configs.config(model, known))
    text = text.replace('_size": 128', f'_size": {GROUP}')
    if known != quant:
        text = text.replace('"sym": true', '"sym": false')
    found = json.loads(text)
    bias = {"attention_bias": True, "mlp_bias": True} if model == "llama" else {}
    return {**found, **small, **bias, **more}


class Checkpoints:
    """(original, padded) of each format, made when first asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, quant: str) -> tuple[Path, Path]:
        source, padded = self.root / quant, self.root / f"{quant}-padded"
        if not source.exists():
            write_drawn(source, config(quant))
            (source / "tokenizer.json").write_text("{}")
            build_padded(source, padded, to=PADDED)
        return source, padded


def seeded(source: Path, out: Path, name: str, **chosen: Any) -> Fault:
    found = seed_fault(source, out, name, **chosen)
    assert isinstance(found, Fault), found
    return found


def weights(directory: Path, modules: set[str]) -> Weights:
    """Weights `[out, in]` of these modules, element by element from the definitions."""
    checkpoint, arrays, found = read_checkpoint(directory), arrays_in(directory), {}
    for module in modules:
        parts = {n.removeprefix(f"{module}."): a for n, a in arrays.items() if n.startswith(module)}
        weight = next(n for n in parts if n in ("weight", "qweight", "weight_packed"))
        promised = place(f"{module}.{weight}", checkpoint.config)
        assert promised is not None
        assert promised.layer is not None
        assert promised.part is not None
        found[module] = np.array(
            [
                [
                    oracles.element(parts, promised.scheme, i, o)
                    for i in range(promised.layer.inputs)
                ]
                for o in range(sum(promised.part.sizes))
            ]
        )
    return found


def with_biases(directory: Path, modules: set[str]) -> Weights:
    """The same, with the bias as one more input that is always 1."""
    arrays, found = arrays_in(directory), weights(directory, modules)
    for module, matrix in found.items():
        bias = arrays[f"{module}.bias"].astype(float)
        found[module] = np.column_stack((matrix, bias))
    return found


def changed(before: Path, after: Path) -> set[str]:
    """The tensors that differ, by their bytes."""
    old, new = arrays_in(before), arrays_in(after)
    assert old.keys() == new.keys()
    return {name for name in old if old[name].tobytes() != new[name].tobytes()}
