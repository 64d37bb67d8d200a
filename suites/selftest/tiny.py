"""Checkpoints of a few kilobytes, written with the safetensors package, not with ours."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file

Arrays = dict[str, npt.NDArray[Any]]
_MLP = ("gate_proj", "up_proj", "down_proj")


def _tower(hidden: int) -> dict[str, tuple[int, ...]]:
    """Every tensor of a vision tower of one block, 16 wide, that merges four patches into one."""
    sizes = {
        "blocks.0.attn.qkv": (48, 16), "blocks.0.attn.proj": (16, 16),
        "blocks.0.mlp.gate_proj": (24, 16), "blocks.0.mlp.up_proj": (24, 16),
        "blocks.0.mlp.down_proj": (16, 24),
        "merger.mlp.0": (64, 64), "merger.mlp.2": (hidden, 64),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        f"{module}.{part}": shape
        for module, (outputs, inputs) in sizes.items()
        for part, shape in (("weight", (outputs, inputs)), ("bias", (outputs,)))
    }
    norms = ("blocks.0.norm1", "blocks.0.norm2", "merger.ln_q")
    shapes |= {f"{norm}.weight": (16,) for norm in norms}
    shapes["patch_embed.proj.weight"] = (16, 3, 2, 14, 14)
    return {f"model.visual.{name}": shape for name, shape in shapes.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiny:
    """A decoder whose MLP is three groups wide: no tensor parallel size above 1 fits."""

    quant: str = "awq"
    hidden: int = 64
    intermediate: int = 96
    group: int = 32
    layers: int = 2
    vocab: int = 32
    nested: bool = False
    bias: bool = False
    shards: int = 1
    seed: int = 0

    def config(self) -> dict[str, object]:
        text: dict[str, object] = {
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": self.vocab,
            "max_position_embeddings": 128,
        }
        vision = {"hidden_size": 16, "intermediate_size": 24, "depth": 1, "num_heads": 2}
        kind = "Qwen2_5_VLForConditionalGeneration" if self.nested else "Qwen2ForCausalLM"
        if self.bias and not self.nested:
            kind, text = "LlamaForCausalLM", {**text, "attention_bias": True, "mlp_bias": True}
        config: dict[str, object] = {
            "architectures": [kind],
            "model_type": "qwen2_5_vl" if self.nested else "qwen2",
            "torch_dtype": "float16",
            **({"text_config": text, "vision_config": vision} if self.nested else text),
        }
        if self.quant == "awq":
            config["quantization_config"] = {
                "quant_method": "awq",
                "bits": 4,
                "group_size": self.group,
                "zero_point": True,
                "version": "gemm",
                "modules_to_not_convert": ["visual"],
            }
        return config

    def arrays(self) -> Arrays:
        random = np.random.default_rng(self.seed)
        text = "model.language_model." if self.nested else "model."

        def half(*shape: int) -> npt.NDArray[np.float16]:
            return random.normal(size=shape).astype(np.float16)

        arrays: Arrays = {f"{text}embed_tokens.weight": half(self.vocab, self.hidden)}
        for layer in range(self.layers):
            prefix = f"{text}layers.{layer}."
            for norm in ("input_layernorm", "post_attention_layernorm"):
                arrays[f"{prefix}{norm}.weight"] = half(self.hidden)
            sizes = {
                "self_attn.q_proj": (self.hidden, self.hidden),
                "self_attn.k_proj": (self.hidden, self.hidden // 2),
                "self_attn.v_proj": (self.hidden, self.hidden // 2),
                "self_attn.o_proj": (self.hidden, self.hidden),
                "mlp.gate_proj": (self.hidden, self.intermediate),
                "mlp.up_proj": (self.hidden, self.intermediate),
                "mlp.down_proj": (self.intermediate, self.hidden),
            }
            for module, (inputs, outputs) in sizes.items():
                arrays |= self._linear(f"{prefix}{module}", inputs, outputs, random, half)
        arrays |= {f"{text}norm.weight": half(self.hidden)}
        arrays |= {"lm_head.weight": half(self.vocab, self.hidden)}
        if self.nested:
            arrays |= {name: half(*shape) for name, shape in _tower(self.hidden).items()}
        return arrays

    def _linear(
        self,
        name: str,
        inputs: int,
        outputs: int,
        random: np.random.Generator,
        half: Callable[..., npt.NDArray[np.float16]],
    ) -> Arrays:
        # A Llama has them everywhere if it says so, a Qwen on queries, keys and values alone.
        llama = self.bias and not self.nested
        biased = llama or not name.endswith(("o_proj", *_MLP))
        bias = {f"{name}.bias": half(outputs)} if biased else {}
        if self.quant == "none":
            return {f"{name}.weight": half(outputs, inputs), **bias}
        groups = inputs // self.group
        words = np.iinfo(np.int32)

        def packed(rows: int) -> npt.NDArray[np.int32]:
            shape = (rows, outputs // 8)
            return random.integers(words.min, words.max, shape, np.int32, endpoint=True)

        return {
            f"{name}.qweight": packed(inputs),
            f"{name}.qzeros": packed(groups),
            f"{name}.scales": (half(groups, outputs) / 16).astype(np.float16),
            **bias,
        }

    def write(self, directory: Path) -> Path:
        directory.mkdir()
        arrays = self.arrays()
        (directory / "config.json").write_text(json.dumps(self.config(), indent=2))
        (directory / "tokenizer.json").write_text("{}")
        if self.shards == 1:
            save_file(arrays, directory / "model.safetensors", {"format": "pt"})
            return directory
        # The first shard gets what no layer holds, so one file has nothing to resize.
        weight_map: dict[str, str] = {}
        for number in range(1, self.shards + 1):
            file = f"model-{number:05}-of-{self.shards:05}.safetensors"
            mine = {name: array for name, array in arrays.items() if self._shard(name) == number}
            save_file(mine, directory / file, {"format": "pt"})
            weight_map |= dict.fromkeys(mine, file)
        index = {
            "metadata": {"total_size": sum(array.nbytes for array in arrays.values())},
            "weight_map": dict(sorted(weight_map.items())),
        }
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        return directory

    def _shard(self, name: str) -> int:
        if ".layers." not in name:
            return 1
        layer = int(name.split(".layers.")[1].split(".")[0])
        return 2 + layer % (self.shards - 1)


def arrays_in(directory: Path) -> Arrays:
    """All tensors of a checkpoint, read by the safetensors package."""
    return {
        name: array
        for file in sorted(directory.glob("*.safetensors"))
        for name, array in load_file(file).items()
    }


def flip(path: Path, offset: int) -> None:
    """Flip one bit of a file, leaving alone the files it is linked to."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.unlink()
    path.write_bytes(content)
