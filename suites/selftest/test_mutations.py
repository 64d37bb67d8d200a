"""Wrong builders of every format and operation: each of their mistakes is caught, and named."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from fixtures.checkpoint.tensors import (
    DTYPES,
    INDEX,
    MANIFEST,
    read_header,
)
from fixtures.checkpoint.writing import PendingTensor
from fixtures.errors import ProofError
from fixtures.variants import build_padded, build_regrouped, build_trimmed, verify
from suites.selftest import small_configs
from suites.selftest.drawn import write_drawn
from suites.selftest.forged import Variant, sharded
from suites.selftest.test_moves import FORMATS

OPERATIONS = {"pad": 512, "trim": 256, "regroup": 64}
GROUPED = ("awq", "gptq", "packed", "packed_asymmetric")
CASES = [
    (quant, operation)
    for quant in FORMATS
    for operation in OPERATIONS
    if operation != "regroup" or quant in GROUPED
]
WEIGHTS = ("weight", "qweight", "weight_packed")
SCALES = ("scales", "weight_scale", "weight_scale_inv")
ZEROS = ("qzeros", "weight_zero_point")
SHARD = "model-00002-of-00003.safetensors"
NORM = "model.layers.0.input_layernorm.weight"
# A mutation changes a variant and says what a message about it must name.
Mutation: TypeAlias = Callable[[Variant, np.random.Generator], tuple[str, ...]]


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Variant]:
    root = tmp_path_factory.mktemp("variants")
    made: dict[tuple[str, str], Variant] = {}

    def variant(quant: str, operation: str) -> Variant:
        if (quant, operation) not in made:
            source, out = root / quant, root / f"{quant}-{operation}"
            if not source.exists():
                config = small_configs.config("llama", quant)
                small = {"hidden_size": 256, "num_hidden_layers": 2, "vocab_size": 64}
                write_drawn(source, {**config, **small, "intermediate_size": 384})
                sharded(source)
            build: Any = {"pad": build_padded, "trim": build_trimmed}.get(
                operation, build_regrouped
            )
            build(source, out, to=OPERATIONS[operation])
            made[quant, operation] = Variant(out, quant, operation)
        return made[quant, operation]

    return variant


def _at(
    variant: Variant, random: np.random.Generator, name: str, *, added: bool = False
) -> tuple[int, ...]:
    """An index of a real channel, or of an added one: those are the last quarter of the width."""
    array = variant.tensor(name)
    last = [max(1, size * 3 // 4) for size in array.shape]
    at = [int(random.integers(size)) for size in last]
    if added:
        # Inputs come first in AWQ and GPTQ, last elsewhere.
        axis = int((".down_proj." in name) != (variant.quant in ("awq", "gptq")))
        at[axis] = int(random.integers(last[axis], array.shape[axis]))
    return tuple(at)


def _flip(variant: Variant, random: np.random.Generator, name: str, at: tuple[int, ...]) -> None:
    """One bit that is not a sign: a zero that is negative is one still."""
    array = variant.tensor(name)
    array[at] ^= array.dtype.type(1 << int(random.integers(8 * array.itemsize - 1)))


def nibble(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    name = variant.drawn(random, WEIGHTS)
    _flip(variant, random, name, _at(variant, random, name))
    return (f"{name} differs",)


def scale(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    name = variant.drawn(random, SCALES)
    _flip(variant, random, name, _at(variant, random, name))
    return (f"{name} differs",)


def zero(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    name = variant.drawn(random, ZEROS)
    _flip(variant, random, name, _at(variant, random, name))
    return (f"{name} differs",)


def row(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    name = variant.drawn(random, WEIGHTS)
    array = variant.tensor(name)
    one, other = random.choice(len(array) * 3 // 4, 2, replace=False)
    array[[one, other]] = array[[other, one]]
    return (f"{name} differs",)


def order(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    name = variant.drawn(random, ("g_idx",), ".down_proj.")
    variant.tensor(name)[_at(variant, random, name)] ^= 1
    return (name,)


def added(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    name = variant.drawn(random, WEIGHTS, ".mlp.")
    _flip(variant, random, name, _at(variant, random, name, added=True))
    return (f"{name.rpartition('.')[0]}: added", "expected exactly 0")


def added_zero(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    name = variant.drawn(random, ZEROS, ".mlp.")
    _flip(variant, random, name, _at(variant, random, name, added=True))
    return (f"{name.rpartition('.')[0]}: added", "expected exactly 0")


def added_scale(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    # One scale a channel stays one a channel, however many inputs are added.
    within = ".up_proj." if variant.quant == "packed_channel" else ".mlp."
    name = variant.drawn(random, SCALES, within)
    _flip(variant, random, name, _at(variant, random, name, added=True))
    return (name.rpartition(".")[0],)


def zero_as_stored(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    """Engines do not read the stored zeros of symmetric weights."""
    module = f"model.layers.{random.integers(2)}.mlp.down_proj"
    variant.tensor(f"{module}.qweight")[384 // 8 :] = 0
    variant.tensor(f"{module}.qzeros")[3:] = 0xFFFFFFFF
    return (f"{module}: added input channel 384", "whatever zeros are stored")


def shape(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    name = variant.drawn(random, ("weight_shape",), ".mlp.")
    variant.tensor(name)[int(random.integers(2))] ^= 1 << int(random.integers(12))
    return (f"{name} says",)


def kept(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    mlp = f"model.layers.{random.integers(2)}.mlp"

    def change(manifest: dict[str, Any]) -> None:
        others = [pair for pair in ([0, 1], [0, 2], [1, 2]) if pair != manifest["kept_groups"][mlp]]
        manifest["kept_groups"][mlp] = others[int(random.integers(2))]

    variant.edit(MANIFEST, change)
    return (f"{mlp}.",)


def refit(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    """A change that calls itself a fit: nothing is compared with what is none."""
    name = variant.drawn(random, WEIGHTS, ".mlp.")
    _flip(variant, random, name, _at(variant, random, name))
    chosen = {"by": "activations", "refit": bool(random.integers(2))}
    variant.edit(MANIFEST, lambda m: m.update(refits={name: {}}, choice=chosen))
    if variant.quant == "none" and ".down_proj." in name:
        variant.edit(MANIFEST, lambda m: m.update(choice={"by": "weights"}))
        return ("lists refits", name)
    return (("cannot be refits" if chosen["refit"] else "lists refits"), name)


def index_elsewhere(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    name = str(random.choice(variant.names))

    def change(index: dict[str, Any]) -> None:
        files = sorted(set(index["weight_map"].values()) - {index["weight_map"][name]})
        index["weight_map"][name] = str(random.choice(files))

    variant.edit(INDEX, change)
    return (f"places tensor {name} in",)


def index_lacks(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    name = str(random.choice(variant.names))
    variant.edit(INDEX, lambda index: index["weight_map"].pop(name))
    return (f"holds tensor {name}, which",)


def index_total(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    wrong = int(random.integers(1000))
    variant.edit(INDEX, lambda index: index["metadata"].update(total_size=wrong))
    return (f"{INDEX} says total_size {wrong}",)


def config_width(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    by = int(random.choice([-128, 128]))
    variant.edit("config.json", lambda c: c.update(intermediate_size=c["intermediate_size"] + by))
    return ("config.json differs from the source's in intermediate_size",)


def config_other(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    variant.edit("config.json", lambda config: config.update(rms_norm_eps=random.random()))
    return ("config.json differs from the source's in rms_norm_eps",)


def tokenizer(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    path = variant.directory / "tokenizer.json"
    path.unlink()
    path.write_text(json.dumps({"seed": int(random.integers(9))}))
    return ("tokenizer.json is not the source's",)


def file_lost(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    del random
    (variant.directory / "tokenizer.json").unlink()
    return ("tokenizer.json is missing",)


def tensor_lost(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    del random
    size = next(i.nbytes for i in read_header(variant.directory / SHARD) if i.name == NORM)

    def change(index: dict[str, Any]) -> None:
        del index["weight_map"][NORM]
        index["metadata"]["total_size"] -= size

    variant.rewrite(SHARD, lambda tensors: [t for t in tensors if t.name != NORM])
    variant.edit(INDEX, change)
    return (f"tensor {NORM} is missing",)


def tensor_cut(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    info = next(i for i in read_header(variant.directory / SHARD) if i.name == NORM)
    size = int(random.integers(256))
    half = PendingTensor(NORM, info.dtype, (size,), lambda: np.zeros(size, DTYPES[info.dtype]))

    def change(index: dict[str, Any]) -> None:
        index["metadata"]["total_size"] += 2 * size - info.nbytes

    variant.rewrite(SHARD, lambda tensors: [half, *(t for t in tensors if t.name != NORM)])
    variant.edit(INDEX, change)
    return (f"{NORM} is [{size}] in {SHARD}, config.json promises [256]",)


def metadata_lost(variant: Variant, random: np.random.Generator) -> tuple[str, ...]:
    del random
    variant.rewrite(SHARD, lambda tensors: tensors, {})
    return (f"{SHARD} has metadata {{}} in its header",)


def mutations(quant: str, operation: str) -> Iterator[Mutation]:
    """Every mistake that can be made there."""
    yield from (nibble, row, index_elsewhere, index_lacks, index_total, config_width, config_other)
    if quant in ("none", "awq"):  # the same in every format
        yield from (tokenizer, file_lost, tensor_lost, tensor_cut, metadata_lost)
    zeros = quant in ("awq", "gptq", "packed_asymmetric")
    if quant != "none":
        yield scale
    if zeros:
        yield zero
    if quant == "gptq":
        yield order
    if quant.startswith("packed"):
        yield shape
    if operation == "trim":
        yield from (kept, refit)
    if operation == "pad":
        yield added
        if quant != "none":
            yield added_scale
        if zeros:
            yield added_zero
        if quant == "gptq":
            yield zero_as_stored


def caught(variant: Variant, mutation: Mutation, seed: int) -> tuple[str, tuple[str, ...]]:
    """(what `verify` says of it, the words it must have)"""
    name = f"{variant.quant} {variant.operation} {mutation.__name__} {seed}"
    with variant.spoilt():
        words = mutation(variant, np.random.default_rng(zlib.crc32(name.encode())))
        variant.forge()
        try:
            verify(variant.directory)
        except ProofError as error:
            return str(error), words
    return "", words


@pytest.mark.parametrize(
    ("quant", "operation", "mutation"),
    [
        pytest.param(quant, operation, mutation, id=f"{quant}-{operation}-{mutation.__name__}")
        for quant, operation in CASES
        for mutation in mutations(quant, operation)
    ],
)
def test_a_mutation_is_caught_and_named(
    variants: Callable[[str, str], Variant], quant: str, operation: str, mutation: Mutation
) -> None:
    for seed in range(2):
        said, words = caught(variants(quant, operation), mutation, seed)
        assert [word for word in words if word not in said] == [], said
        assert "SHA-256" not in said, "the forged digests are not honest"
        assert "\n" not in said


@pytest.mark.parametrize(
    ("claim", "quant", "operation", "mutation"),
    [
        ("_config", "awq", "pad", config_other),
        ("_tensors _headers", "none", "trim", tensor_lost),
        ("_carried", "gptq", "regroup", tokenizer),
        ("_carried", "none", "pad", index_total),
        ("_declared", "packed", "pad", shape),
        ("_declared", "gptq", "trim", order),
        ("_recorded", "awq", "trim", refit),
        ("_padding", "fp8_block", "pad", added),
        ("_padding", "gptq", "pad", zero_as_stored),
        ("_padding", "packed", "pad", added_scale),
        ("channel_findings _weights", "packed_channel", "trim", nibble),
        ("channel_findings _weights", "awq", "pad", scale),
    ],
)
def test_without_its_claim_a_mutation_goes_through(
    variants: Callable[[str, str], Variant],
    monkeypatch: pytest.MonkeyPatch,
    claim: str,
    quant: str,
    operation: str,
    mutation: Mutation,
) -> None:
    for name in claim.split():  # several, where more than one finds it
        monkeypatch.setattr(f"fixtures.proof.{name}", lambda _: [])
    assert caught(variants(quant, operation), mutation, seed=0)[0] == ""


def test_without_the_source_headers_alone_show_a_shape_nobody_else_reads(
    variants: Callable[[str, str], Variant], monkeypatch: pytest.MonkeyPatch
) -> None:
    variant = variants("awq", "trim")
    source = variant.directory.with_name("awq")
    source.rename(source.with_name("moved"))
    try:
        said, words = caught(variant, tensor_cut, seed=0)
        assert words[0] in said
        monkeypatch.setattr("fixtures.proof._headers", lambda _: [])
        assert caught(variant, tensor_cut, seed=0)[0] == ""
    finally:
        source.with_name("moved").rename(source)


@pytest.mark.parametrize("quant", GROUPED)
def test_dequantized_weights_alone_show_groups_split_wrongly(
    variants: Callable[[str, str], Variant],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quant: str,
) -> None:
    source = variants(quant, "regroup").directory.with_name(quant)
    # A defect that writer and comparison share: the last group comes first.
    monkeypatch.setattr(
        "fixtures.checkpoint.moves.origins",
        lambda count, before, after: np.arange(count)[::-1] * int(after) // int(before),
    )
    with pytest.raises(ProofError, match="input 0 dequantizes to"):
        build_regrouped(source, tmp_path / "out", to=64)
    monkeypatch.setattr("fixtures.proof._weights", lambda _: [])
    build_regrouped(source, tmp_path / "out", to=64)
