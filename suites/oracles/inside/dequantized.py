"""What others make of each quantized linear layer of a checkpoint.

A script of the engine's interpreter: `dequantized.py WHO CHECKPOINT OUT.npz [CHECKPOINT OUT.npz …]`
with a float32 array `[outputs, inputs]` for each module. Half-precision scales are widened to
float32 first, so that nothing is rounded on the way. It imports nothing of ours.

    library  the format's own: compressed-tensors' decompression; for FP8 what transformers does
             when it loads with `dequantize=True`
    engine   vLLM's unpacking, as its loaders prepare weights for the kernels, and its FP8 scaling
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

Reader = Callable[[dict[str, Any], dict[str, Any]], Any]


def library_packed(parts: dict[str, Any], config: dict[str, Any]) -> Any:
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationScheme

    group = dict(config["config_groups"]["group_0"])
    del group["format"]  # the class itself
    wide = parts | {"weight_scale": parts["weight_scale"].to(torch.float32)}
    scheme = QuantizationScheme(**group)
    return PackedQuantizationCompressor.decompress(wide, scheme)["weight"]


def library_fp8(parts: dict[str, Any], _: dict[str, Any]) -> Any:
    from transformers.integrations.finegrained_fp8 import Fp8Dequantize

    stored = {name: [parts[name.rstrip("$")]] for name in ("weight$", "weight_scale_inv")}
    return Fp8Dequantize(None).convert(stored)["weight"]


def engine_gptq(parts: dict[str, Any], config: dict[str, Any]) -> Any:
    from vllm.model_executor.layers.quantization.utils.quant_utils import unpack_cols

    zeros = unpack_cols(parts["qzeros"], 4, *parts["scales"].shape)
    zeros = zeros + {"gptq": 1, "gptq_v2": 0}[config["checkpoint_format"]]
    group = parts["g_idx"].to(torch.int64)
    scales = parts["scales"].to(torch.float32)
    return ((_unpacked(parts["qweight"], 4, 0) - zeros[group]) * scales[group]).T


def engine_awq(parts: dict[str, Any], _: dict[str, Any]) -> Any:
    from vllm.model_executor.layers.quantization import auto_awq

    # Its parameters want a process group; the conversion itself wants their data only.
    auto_awq.PackedvLLMParameter = lambda data, **_: data
    layer = SimpleNamespace(qweight=parts["qweight"], qzeros=parts["qzeros"])
    auto_awq._convert_awq_to_standard_format(layer, "qweight", "qzeros", 4)
    values, zeros = _unpacked(layer.qweight, 4, 0), _unpacked(layer.qzeros, 4, 0)
    return (values.T - _spread(zeros, len(values))) * _spread(parts["scales"].T, len(values))


def engine_packed(parts: dict[str, Any], config: dict[str, Any]) -> Any:
    bits = config["config_groups"]["group_0"]["weights"]["num_bits"]
    values = _unpacked(parts["weight_packed"], bits, 1)
    zeros: Any = 1 << (bits - 1)
    if "weight_zero_point" in parts:
        zeros = _spread(_unpacked(parts["weight_zero_point"], bits, 0), values.shape[1])
    return (values - zeros) * _spread(parts["weight_scale"], values.shape[1])


def engine_fp8(parts: dict[str, Any], config: dict[str, Any]) -> Any:
    from vllm.model_executor.layers.quantization.utils import quant_utils

    shape = quant_utils.GroupShape(*config["weight_block_size"])
    return quant_utils.scaled_dequantize(parts["weight"], parts["weight_scale_inv"], shape)


def _unpacked(words: Any, bits: int, axis: int) -> Any:
    from vllm.model_executor.layers.quantization.utils import quant_utils
    from vllm.scalar_type import scalar_types

    kind = {4: scalar_types.uint4, 8: scalar_types.uint8}[bits]
    return quant_utils.unpack_quantized_values_into_int32(words, kind, axis)


def _spread(values: Any, inputs: int) -> Any:
    """A column a group → a column an input."""
    return values.to(torch.float32).repeat_interleave(inputs // values.shape[1], dim=1)


READERS: dict[tuple[str, str], Reader] = {
    ("library", "compressed-tensors"): library_packed,
    ("library", "fp8"): library_fp8,
    ("engine", "awq"): engine_awq,
    ("engine", "gptq"): engine_gptq,
    ("engine", "compressed-tensors"): engine_packed,
    ("engine", "fp8"): engine_fp8,
}
MARKS = ("qweight", "weight_packed", "weight_scale_inv")


def main(who: str, checkpoint: Path, out: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())["quantization_config"]
    modules: dict[str, dict[str, Any]] = {}
    for name, tensor in load_file(checkpoint / "model.safetensors").items():
        module, _, part = name.rpartition(".")
        modules.setdefault(module, {})[part] = tensor
    read = READERS[who, config["quant_method"]]
    found = {
        module: read(parts, config).to(torch.float32).contiguous().numpy()
        for module, parts in modules.items()
        if any(mark in parts for mark in MARKS)
    }
    np.savez(out, **found)


if __name__ == "__main__":
    who, *paths = sys.argv[1:]
    for checkpoint, out in zip(paths[::2], paths[1::2], strict=True):
        main(who, Path(checkpoint), Path(out))
