"""What AutoAWQ's own layer makes of each quantized linear layer of a checkpoint.

A script of AutoAWQ's interpreter: `autoawq_unpacked.py CHECKPOINT OUT.npz`, with a float32 array
`[outputs, inputs]` for each module. `WQLinear_GEMM` takes the tensors as its own state, so names
and shapes are those it declares; its scales are then widened to float32, so that its unpacking
rounds nothing. It imports nothing of ours.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

PACKED = 8


def unpacked(parts: dict[str, Any], config: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from awq.modules.linear.gemm import WQLinear_GEMM
        from awq.utils.packing_utils import dequantize_gemm

    inputs, words = parts["qweight"].shape
    bits, group = config["bits"], config["group_size"]
    layer = WQLinear_GEMM(bits, group, inputs, words * PACKED, "bias" in parts, "cpu")
    layer.load_state_dict(parts, strict=True)
    scales = layer.scales.to(torch.float32)
    return dequantize_gemm(layer.qweight, layer.qzeros, scales, layer.w_bit, layer.group_size)


def main(checkpoint: Path, out: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    modules: dict[str, dict[str, Any]] = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            module, _, part = name.rpartition(".")
            modules.setdefault(module, {})[part] = tensor
    found = {
        module: unpacked(parts, config).numpy().T
        for module, parts in modules.items()
        if "qweight" in parts
    }
    np.savez(out, **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
