"""The configs that are measured: a Qwen2.5-7B cut or grown to a size, and the 72B as published.

The 7B's width, 18944, is 148 groups of 128, which eight ranks cannot share: a real obstacle.
"""

from __future__ import annotations

from typing import Final

from suites.benchmarks.generated import entries, shards
from suites.selftest.configs import QWEN2_VL_72B, Config, quantized, text

WIDTH: Final = 18944
PADDED: Final = 19456  # 152 groups: eight ranks get 19 each
# With it, embeddings and head are an eighth of 4 GiB, as in the 72B; the 7B's own are half of it.
SMALL_VOCABULARY: Final = 36864
VOCABULARY: Final = 152064
WIDTH_72B: Final = 29568
PADDED_72B: Final = 29696
LAYERS_72B: Final = 80


def qwen_7b(layers: int, *, method: str, vocabulary: int) -> Config:
    """Qwen2.5-7B with as many layers and as large a vocabulary as asked."""
    dense = text(
        "Qwen2ForCausalLM",
        model_type="qwen2",
        hidden_size=3584,
        intermediate_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=vocabulary,
        hidden_act="silu",
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
        torch_dtype="float16" if method == "awq" else "bfloat16",
    )
    return quantized(dense, method)


def qwen_7b_of(size_bytes: int, *, method: str, vocabulary: int) -> Config:
    """The one with the fewest layers that is no smaller than that."""
    one, two = (_nbytes(qwen_7b(n, method=method, vocabulary=vocabulary)) for n in (1, 2))
    layers = max(1, 1 - (one - size_bytes) // (two - one))
    return qwen_7b(layers, method=method, vocabulary=vocabulary)


def shared_limit(config: Config, below: int) -> int:
    """The largest size of shards, in bytes, at which the MLP of some layer is in each of them."""
    tensors = entries(config)
    for limit in range(below, below // 2, -(1 << 22)):
        lots = shards(tensors, limit).values()
        if all(any(".mlp." in entry.name for entry in lot) for lot in lots):
            return limit
    raise ValueError(f"no shards of {below // 2} to {below} bytes all hold an MLP's tensors")


def qwen_vl_72b(layers: int = LAYERS_72B, *, width: int = WIDTH_72B) -> Config:
    """Qwen2.5-VL-72B-Instruct-AWQ, first upload."""
    shape = {**QWEN2_VL_72B, "num_hidden_layers": layers, "intermediate_size": width}
    return quantized(shape, "awq")


def _nbytes(config: Config) -> int:
    return sum(entry.nbytes for entry in entries(config))
