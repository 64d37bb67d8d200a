"""Configs that their weights contradict: seen in the engine's own loader, one tensor at a time."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.model import ModelConfig
from fixtures.checkpoint.modules import linears
from fixtures.checkpoint.stored import headers, stored
from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.miniature import QUANTIZATIONS, Quantization, Recipe, write_miniature
from fixtures.reality import contradictions, notes, observed
from fixtures.rules import Obstacle
from suites.selftest.small_configs import MODELS, QUANTS, config
from suites.selftest.test_config import FLAT
from suites.selftest.tiny import Tiny


class Header(NamedTuple):
    dtype: str
    shape: tuple[int, ...]


Headers = dict[str, Header]


def written(data: dict[str, Any]) -> Headers:
    """The headers of a checkpoint that is what its config says."""
    model = parse_config(data, source="c")
    return {name: Header(*entry) for name, entry in headers(model).items()}


def reshaped(data: Headers, pattern: str, axis: int, factor: float) -> Headers:
    """Every tensor whose name matches, longer or shorter along one axis."""

    def change(header: Header) -> Header:
        shape = list(header.shape)
        shape[axis] = int(shape[axis] * factor)
        return header._replace(shape=tuple(shape))

    return {n: change(h) if re.search(pattern, n) else h for n, h in data.items()}


def found(data: dict[str, Any], weights: Headers) -> list[Obstacle]:
    return list(contradictions(parse_config(data, source="c"), weights))


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("name", MODELS)
def test_what_a_config_promises_does_not_contradict_it(name: str, quant: str) -> None:
    data = config(name, quant)
    model, weights = parse_config(data, source="c"), written(data)
    assert contradictions(model, weights) == ()
    assert notes(model, weights) == ()


@pytest.mark.parametrize("quant", QUANTIZATIONS)
def test_the_miniature_agrees_with_its_config(tmp_path: Path, quant: Quantization) -> None:
    directory = tmp_path / "mini"
    directory.mkdir()
    write_miniature(directory, Recipe(quant=quant, layers=1))
    checkpoint = read_checkpoint(directory)
    assert contradictions(checkpoint.config, checkpoint.tensors) == ()
    assert notes(checkpoint.config, checkpoint.tensors) == ()


def test_a_checkpoint_padded_behind_its_config_loses_the_padding_without_a_word() -> None:
    # The 72B's weights padded to 29696, its config.json left at 29568.
    wide = copy.deepcopy(FLAT)
    wide["intermediate_size"] = 29696
    obstacles = found(FLAT, written(wide))
    assert {o.layer.rpartition(".")[2] for o in obstacles} == {"gate_proj", "up_proj", "down_proj"}
    assert {(o.rule, o.failure_class, o.size, o.per_rank) for o in obstacles} == {
        ("config_drops_weights", "silent", 29696, 29568.0)
    }
    assert obstacles[-1].message == (
        "model.layers.*.mlp.down_proj.qweight holds 29696 input features, and config.json promises "
        "29568: the engine drops 0.4% of it without a word, in 80 of 80 layers"
    )


def test_a_checkpoint_trimmed_behind_its_config_is_refused() -> None:
    narrow = copy.deepcopy(FLAT)
    narrow["intermediate_size"] = 29440
    obstacles = found(FLAT, written(narrow))
    assert {(o.rule, o.failure_class) for o in obstacles} == {("config_exceeds_weights", "load")}
    reason = "RuntimeError: start (0) + length (29568) exceeds dimension size (29440)."
    assert all(re.search(obstacle.says, reason) for obstacle in obstacles)


# What vLLM 0.32.0's loader did when every tensor of one kind was twice or half as long.
SEEN = [
    ("qwen2", r"q_proj\.weight", 0, 2, "silent", ""),
    ("qwen2", r"q_proj\.weight", 0, 0.5, "load", "start (0) + length (512) exceeds dimension size"),
    ("qwen2", r"q_proj\.weight", 1, 2, "load", "assert param_data.shape == loaded_weight.shape"),
    ("qwen2", r"q_proj\.bias", 0, 2, "silent", ""),
    ("qwen2", r"o_proj\.weight", 0, 2, "load", "assert self.data.shape == loaded_weight.shape"),
    ("qwen2", r"down_proj\.weight", 1, 2, "silent", ""),
    ("phi3", r"gate_up_proj\.weight", 0, 2, "silent", ""),
    (
        "qwen2",
        r"embed_tokens",
        0,
        2,
        "load",
        "loaded_weight.shape[output_dim] == self.org_vocab_size",
    ),
    ("qwen2", r"lm_head", 1, 0.5, "load", "The size of tensor a (512) must match the size of te"),
    ("qwen2", r"input_layernorm", 0, 2, "load", "Attempted to load weight (torch.Size([1024])) in"),
    ("mixtral", r"gate\.weight", 0, 2, "load", "Tried to load weights of size torch.Size([16, 512"),
    ("mixtral", r"experts\.\d+\.w2", 1, 2, "load", "The size of tensor a (1024) must match the si"),
    ("mixtral", r"experts\.\d+\.w2", 1, 0.5, "silent", ""),
    ("mixtral", r"experts\.\d+\.w1", 1, 0.5, "silent", ""),
    ("qwen3_vl_moe", r"experts\.down_proj", 0, 2, "load", "index 8 is out of bounds for dimension"),
    ("qwen3_next", r"A_log", 0, 2, "silent", ""),
    ("deepseek_v3", r"q_a_proj\.weight", 0, 2, "silent", ""),
    ("deepseek_v2", r"kv_a_proj_with_mqa\.weight", 0, 2, "load", "Tried to load weights of size"),
    (
        "qwen3_vl",
        r"patch_embed\.proj\.weight",
        1,
        2,
        "load",
        "Attempted to load weight (torch.Size([64, 6, 2, 1",
    ),
    ("gpt2", r"c_attn\.weight", 1, 2, "silent", ""),
]


@pytest.mark.parametrize(("name", "pattern", "axis", "factor", "fails", "reason"), SEEN)
def test_a_loader_does_what_it_was_seen_to_do(
    name: str, pattern: str, axis: int, factor: float, fails: str, reason: str
) -> None:
    data = config(name)
    obstacles = found(data, reshaped(written(data), pattern, axis, factor))
    assert {obstacle.failure_class for obstacle in obstacles} == {fails}
    assert fails == "silent" or all(re.search(o.says, reason) for o in obstacles)


def test_groups_that_are_not_the_configs_are_named_with_their_size() -> None:
    data = config("llama", "awq")
    finer = copy.deepcopy(data)
    finer["quantization_config"]["group_size"] = 64
    obstacles = found(data, written(finer))
    assert {obstacle.rule for obstacle in obstacles} == {"group_size_differs"}
    by_layer = {obstacle.layer.rpartition(".")[2]: obstacle for obstacle in obstacles}
    assert by_layer["down_proj"].failure_class == "silent"
    assert by_layer["up_proj"].failure_class == "load"
    assert "16 groups, of 64 features each, and config.json promises 8, of 128" in (
        by_layer["down_proj"].message
    )


@pytest.mark.parametrize(
    ("said", "is_", "fails"),
    [
        ("awq", "none", "load"),
        ("none", "awq", "load"),
        ("gptq", "awq", "load"),
        ("fp8_block", "none", "silent"),
        ("packed", "fp8_channel", "load"),
    ],
)
def test_a_quantization_the_weights_do_not_have_is_one_obstacle_a_layer(
    said: str, is_: str, fails: str
) -> None:
    obstacles = found(config("llama", said), written(config("llama", is_)))
    assert fails in {obstacle.failure_class for obstacle in obstacles}
    differing = [o for o in obstacles if o.rule in ("quantization_differs", "group_size_differs")]
    assert len({obstacle.layer for obstacle in obstacles}) == 7
    assert said == "gptq" or len(differing) == 7


MISSING = [
    ("none", "input_layernorm", "load"),
    ("awq", "input_layernorm", "silent"),
    ("none", "o_proj", "silent"),  # linear layers are exempt even where nothing is quantized
    ("awq", "o_proj", "silent"),
    ("none", "lm_head", "silent"),
]


@pytest.mark.parametrize(("quant", "name", "fails"), MISSING)
def test_a_missing_tensor_is_noticed_only_where_the_engine_looks(
    quant: str, name: str, fails: str
) -> None:
    data = config("llama", quant)
    kept = {tensor: header for tensor, header in written(data).items() if name not in tensor}
    (obstacle,) = found(data, kept)
    assert (obstacle.rule, obstacle.failure_class) == ("weights_missing", fails)
    assert name in obstacle.message


def test_one_missing_layer_of_many_is_counted() -> None:
    data = config("llama")
    weights = written(data)
    del weights["model.layers.2.mlp.up_proj.weight"]
    (obstacle,) = found(data, weights)
    assert "in 1 of 4 layers" in obstacle.message


def test_fewer_layers_than_are_stored_are_refused_unless_they_predict_further_tokens() -> None:
    for name, refused in (("llama", True), ("deepseek_v3", False)):
        data = config(name)
        weights = written(data)
        data["num_hidden_layers"] -= 1
        assert [obstacle.rule for obstacle in found(data, weights)] == (
            ["config_drops_layers"] if refused else []
        )


def test_tensors_that_the_engine_drops_are_not_held_against_a_checkpoint() -> None:
    data = config("qwen3_next")
    weights = written(data) | {
        "mtp.fc.weight": Header("BF16", (8, 8)),
        "model.layers.0.self_attn.rotary_emb.inv_freq": Header("F32", (32,)),
    }
    model = parse_config(data, source="c")
    assert contradictions(model, weights) == ()
    assert notes(model, weights) == ()


def test_an_unknown_tensor_is_a_note() -> None:
    data = config("llama")
    weights = written(data) | {"model.layers.0.ghost.weight": Header("BF16", (8,))}
    model = parse_config(data, source="c")
    assert contradictions(model, weights) == ()
    (note,) = notes(model, weights)
    assert "'model.layers.*.ghost.weight' (1)" in note


def test_a_bias_the_config_does_not_know_is_dropped_without_a_word() -> None:
    data = config("llama")
    weights = written(data) | {"model.layers.0.mlp.up_proj.bias": Header("BF16", (1024,))}
    (obstacle,) = found(data, weights)
    assert (obstacle.rule, obstacle.failure_class) == ("config_drops_weights", "silent")


def test_a_stored_head_unties_a_tied_one() -> None:
    data = config("qwen2") | {"tie_word_embeddings": True}
    model = parse_config(data, source="c")
    weights = written(config("qwen2"))
    assert model.tied_embeddings
    assert not observed(model, weights).tied_embeddings
    assert contradictions(model, weights) == ()
    assert "ties the output head" in notes(model, weights)[0]


@pytest.mark.parametrize("quant", ["awq", "gptq"])
def test_where_no_list_says_what_is_packed_the_headers_do(quant: str) -> None:
    data = config("qwen2_5_vl", quant)
    data["quantization_config"].pop("modules_to_not_convert", None)
    model = parse_config(data, source="c")
    weights = written(config("qwen2_5_vl", "awq"))
    packed = observed(model, weights).quant.packed
    assert packed is not None
    assert "model.language_model.layers.0.mlp.down_proj" in packed
    assert "model.layers.0.mlp.down_proj" in packed
    assert not any("visual" in name for name in packed)


def test_only_what_the_headers_pack_is_planned_packed() -> None:
    data = config("llama", "awq")
    data["quantization_config"]["modules_to_not_convert"] = None
    dense = copy.deepcopy(data)
    dense["quantization_config"]["modules_to_not_convert"] = ["layers.1.mlp"]
    weights = written(dense)
    seen = observed(parse_config(data, source="c"), weights)
    counts = {p.scheme.format: p.count for p in stored(seen) if ".down_proj." in p.pattern}
    assert counts == {"awq": 3, "dense": 1}
    assert contradictions(parse_config(data, source="c"), weights) == ()


def test_biases_that_a_family_promises_are_missed(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(Tiny().write(tmp_path / "c"))
    assert contradictions(checkpoint.config, checkpoint.tensors) == ()
    without = {name: info for name, info in checkpoint.tensors.items() if ".bias" not in name}
    obstacles = contradictions(checkpoint.config, without)
    assert {o.layer.rpartition(".")[2] for o in obstacles} == {"q_proj", "k_proj", "v_proj"}
    assert {o.rule for o in obstacles} == {"weights_missing"}


def test_a_config_that_promises_more_than_there_is_time_for_is_compared_at_once() -> None:
    data = config("qwen3_moe") | {"num_hidden_layers": 10_000, "num_experts": 10_000}
    obstacles = found(data, written(config("qwen3_moe")))
    assert "in 99999968 of 100000000 experts" in "".join(o.message for o in obstacles)


def test_hostile_names_are_unknown_names() -> None:
    model: ModelConfig = parse_config(config("llama"), source="c")
    names = ["", ".", "model.layers." + "9" * 5000 + ".mlp.up_proj.weight", "model.layers.٣.x", "*"]
    names += ["model.layers.*.mlp.up_proj.weight", "." * 10_000]
    weights = written(config("llama")) | {name: Header("F16", ()) for name in names}
    assert contradictions(model, weights) == ()
    assert notes(model, weights)
    assert all(len(note) < 300 and note.isprintable() for note in notes(model, weights))


@pytest.mark.parametrize("dynamic", [{}, {r"-:.*layers\.1\.": {}}])
def test_what_gptq_did_not_list_as_quantized_is_dense(dynamic: dict[str, Any]) -> None:
    data = config("qwen2_5_vl", "gptq")
    attention = [f"self_attn.{name}_proj" for name in "qkvo"]
    data["quantization_config"] |= {
        "modules_in_block_to_quantize": [attention[:3], attention[3:]],
        "dynamic": dynamic,
    }
    model = parse_config(data, source="c")
    formats = {layer.pattern: layer.scheme.format for layer in linears(model) if layer.count > 1}
    assert formats["model.layers.*.self_attn.qkv_proj"] == "gptq"
    assert formats["model.layers.*.mlp.gate_up_proj"] == "dense"
    assert formats["visual.blocks.*.attn.qkv"] == "dense"
    assert not any(layer.mixed for layer in linears(model))
