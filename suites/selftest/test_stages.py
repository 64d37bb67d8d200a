"""Which stage holds what, held against the engine's own way of dealing layers out."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import get_args

import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.layout import locate
from fixtures.miniature import QUANTIZATIONS, Quantization, Recipe, config_json, tensors
from fixtures.platforms import Platform
from fixtures.prediction import plan
from fixtures.stages import layers_per_stage, stages_of

MODEL = parse_config(config_json(Recipe(layers=5)), source="miniature")


def dealt_one_by_one(layers: int, pp: int) -> tuple[int, ...]:
    """Even shares first; then one layer each to the last stage but one and those before it."""
    stages = [layers // pp] * pp
    left_over = layers - sum(stages)
    for stage in reversed(range(pp - 1)):
        if left_over:
            stages[stage] += 1
            left_over -= 1
    return tuple(stages)


@pytest.mark.parametrize("pp", range(1, 17))
def test_layers_are_dealt_out_as_the_engine_does(pp: int) -> None:
    for layers in range(1, 97):
        assert layers_per_stage(layers, pp) == dealt_one_by_one(layers, pp)


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("model.embed_tokens.weight", (0,)),
        ("model.layers.0.mlp.down_proj.qweight", (0,)),
        ("model.layers.1.input_layernorm.weight", (1,)),
        ("model.layers.3.self_attn.q_proj.bias", (2,)),
        ("model.layers.4.mlp.up_proj.scales", (3,)),
        ("model.norm.weight", (3,)),
        ("lm_head.weight", (3,)),
        ("visual.blocks.1.attn.qkv.weight", (0, 1, 2, 3)),
        ("visual.merger.mlp.0.weight", (0, 1, 2, 3)),
        ("model.language_model.layers.4.mlp.up_proj.qzeros", (3,)),
        ("model.language_model.embed_tokens.weight", (0,)),
        ("model.visual.blocks.1.mlp.down_proj.weight", (0, 1, 2, 3)),
    ],
)
def test_a_tensor_is_held_by_its_stages(name: str, stages: tuple[int, ...]) -> None:
    where = locate(name, MODEL)
    assert where is not None
    assert layers_per_stage(MODEL.layers, 4) == (1, 1, 2, 1)
    assert tuple(stages_of(where, MODEL, 4)) == stages


@pytest.mark.parametrize("quant", QUANTIZATIONS)
def test_all_of_a_module_s_tensors_are_held_by_its_stages(quant: Quantization) -> None:
    recipe = Recipe(layers=5, quant=quant)
    model = parse_config(config_json(recipe), source="miniature")
    for tensor in tensors(recipe):
        where = locate(tensor.name, model)
        assert where is not None, tensor.name
        layer = re.search(r"model\.layers\.(\d)\.", tensor.name)
        if layer is not None:
            assert stages_of(where, model, 4) == ((0, 1, 2, 2, 3)[int(layer[1])],)


def test_tied_embeddings_are_held_by_both_ends() -> None:
    where = locate("model.embed_tokens.weight", MODEL)
    assert where is not None
    tied = replace(MODEL, tied_embeddings=True)
    assert (stages_of(where, tied, 4), stages_of(where, tied, 1)) == ((0, 3), (0,))


def test_a_stage_without_a_layer_ends_in_the_warmup() -> None:
    assert plan(MODEL, tp=1, platform="cuda", pp=5).serves
    found = plan(replace(MODEL, intermediate_size=1024), tp=2, platform="cuda", pp=6)
    assert found.failure_class == "warmup"
    assert [(repair.kind, repair.to) for repair in found.repairs] == [("smaller_pp", 5)]
    assert found.summary("original") == (
        "original at tp=2, pp=6 fails while warming up: model.layers has 5 layers, too few for "
        "each of 6 pipeline stages. Exact repairs: serve at pp=5."
    )


def test_what_would_die_at_the_first_request_dies_in_the_warmup_that_stages_need() -> None:
    classes = {
        (platform, pp): plan(MODEL, tp=2, platform=platform, pp=pp).failure_class
        for platform, pp in itertools.product(get_args(Platform), (1, 2))
    }
    assert classes == {
        ("cuda", 1): "load",
        ("cuda", 2): "load",
        ("cpu", 1): "first_request",
        ("cpu", 2): "warmup",
    }
    staged = plan(MODEL, tp=2, platform="cpu", pp=2)
    assert "original at tp=2, pp=2 fails while warming up: " in staged.summary("original")
    assert staged.binding is not None
    assert "cuts 896 features" in staged.binding.message


SIZES = ((1, 1), (2, 1), (1, 2), (1, 4), (2, 2))


def test_stages_cut_nothing_and_serve_what_ranks_cannot_share() -> None:
    plans = {(tp, pp): plan(MODEL, tp=tp, platform="cuda", pp=pp) for tp, pp in SIZES}
    assert {size for size, cell in plans.items() if cell.serves} == {(1, 1), (1, 2), (1, 4)}
    assert plans[1, 2].summary("original") == "original serves at pp=2"
    assert plans[2, 2].obstacles == plans[2, 1].obstacles
