"""What goes into each `down_proj` of a whole model of transformers', with all its weights at once.

A script of the engine's interpreter; it imports nothing of ours.

    activations.py run TEXTS.json {CHECKPOINT WEIGHTS.npz OUT.npz}…
    activations.py write {FAMILY CHECKPOINT}…      random weights, saved by transformers

OUT has E[x²] for each MLP; and E[x xᵀ], as `… held out` of the fourth of each four texts, and as
`… fitted` of the others. WEIGHTS are those of the linear layers that
CHECKPOINT has quantized, `[outputs, inputs]` by module: they are loaded into a dense model.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2048,
    "max_position_embeddings": 64,
}
OWN: dict[str, dict[str, object]] = {
    "Llama": {"attention_bias": True, "mlp_bias": True},
    "Mistral": {"sliding_window": 8, "head_dim": 32},
    "Qwen2": {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
    "Qwen3": {"head_dim": 32},
}


def write(family: str, out: Path) -> None:
    torch.manual_seed(4)
    config = getattr(transformers, f"{family}Config")(**SMALL, **OWN[family])
    model = getattr(transformers, f"{family}ForCausalLM")(config).to(torch.float16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            vector = "norm" in name or name.endswith("bias")
            deviation = 0.2 if vector else parameter.shape[-1] ** -0.5
            parameter.add_(torch.randn_like(parameter) * deviation)
    model.save_pretrained(out)


def whole_model(checkpoint: Path, dequantized: dict[str, Any]) -> Any:
    """In float32, all of it in memory."""
    config = transformers.AutoConfig.from_pretrained(checkpoint)
    kind = getattr(transformers, config.architectures[0])
    if not dequantized:
        return kind.from_pretrained(checkpoint, dtype=torch.float32)
    del config.quantization_config
    weights = {
        name: tensor
        for name, tensor in load_file(checkpoint / "model.safetensors").items()
        if name.rpartition(".")[0] not in dequantized or name.endswith(".bias")
    }
    weights |= {f"{name}.weight": torch.from_numpy(array) for name, array in dequantized.items()}
    return kind.from_pretrained(None, config=config, state_dict=weights, dtype=torch.float32)


def run(texts: list[str], checkpoint: Path, dequantized: dict[str, Any], out: Path) -> None:
    model = whole_model(checkpoint, dequantized).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    seen: dict[str, list[Any]] = {}
    for name, module in model.named_modules():
        if name.endswith("mlp.down_proj") and "visual" not in name:
            rows = seen.setdefault(name.removesuffix(".down_proj"), [])
            module.register_forward_pre_hook(lambda _, inputs, rows=rows: rows.append(inputs[0][0]))
    with torch.inference_mode():
        for text in texts:
            model(input_ids=torch.tensor([tokenizer(text)["input_ids"]]), use_cache=False)
    found = {}
    for folder, rows in seen.items():
        found[folder] = np.square(torch.cat(rows).double().numpy()).mean(axis=0)
        held_out = rows[3::4]
        fitted = [row for place, row in enumerate(rows) if place % 4 < 3]
        for name, some in (("fitted", fitted), ("held out", held_out)):
            activations = torch.cat(some).double().numpy()
            found[f"{folder} {name}"] = activations.T @ activations / len(activations)
    np.savez(out, **found)


if __name__ == "__main__":
    what, *paths = sys.argv[1:]
    if what == "write":
        for family, directory in zip(paths[::2], paths[1::2], strict=True):
            write(family, Path(directory))
    else:
        texts = json.loads(Path(paths.pop(0)).read_text())
        for directory, weights, out in zip(paths[::3], paths[1::3], paths[2::3], strict=True):
            with np.load(weights) as dequantized:
                run(texts, Path(directory), dict(dequantized), Path(out))
