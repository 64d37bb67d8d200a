"""The dry oracle says of an AWQ checkpoint what a real vLLM 0.32.0 was seen to do with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fixtures.dry import DryEngine, DryVerdict
from fixtures.miniature import Recipe
from suites.dry.checkpoints import headers, outcome, text_config, text_headers, vision_config

pytestmark = pytest.mark.dry

MINIATURE = Recipe()
# The 72B model's shapes, in two layers of its eighty: every layer is alike.
LARGE = Recipe(
    hidden_size=8192,
    heads=64,
    vision_hidden=1280,
    vision_intermediate=3456,
    vision_heads=16,
    vision_depth=2,
)
NO_KERNEL = "Failed to find a kernel that can implement the WNA16 linear layer"


def asked(engine: DryEngine, recipe: Recipe, tp: int, *, vision: bool = True) -> DryVerdict:
    if vision:
        return engine.ask(vision_config(recipe), headers(recipe), tp)
    return engine.ask(text_config(recipe), text_headers(recipe), tp)


@pytest.mark.parametrize("vision", [True, False], ids=["qwen2.5-vl", "qwen2"])
@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (896, ["whole", "dropped,out_of_step", "dropped,out_of_step", "load"]),
        # At tp8 each rank would hold scales of no rows at all: nobody reads them.
        (768, ["whole", "whole", "dropped,out_of_step", "dropped"]),
        (1024, ["whole", "whole", "whole", "whole"]),
    ],
)
def test_the_miniature_meets_the_fate_it_met_on_a_real_engine(
    engine: DryEngine, width: int, expected: list[str], vision: bool
) -> None:
    recipe = replace(MINIATURE, intermediate_size=width)
    verdicts = [asked(engine, recipe, tp, vision=vision) for tp in (1, 2, 4, 8)]
    assert [outcome(verdict) for verdict in verdicts] == expected


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (29568, ["whole", "dropped,out_of_step", "dropped,out_of_step", "load"]),
        (29696, ["whole", "whole", "whole", "whole"]),
    ],
)
def test_the_72b_shapes_meet_the_fate_they_met_on_a_real_engine(
    engine: DryEngine, width: int, expected: list[str]
) -> None:
    recipe = replace(LARGE, intermediate_size=width)
    verdicts = [asked(engine, recipe, tp) for tp in (1, 2, 4, 8)]
    assert [outcome(verdict) for verdict in verdicts] == expected


def test_a_lost_row_is_named(engine: DryEngine) -> None:
    verdict = asked(engine, replace(LARGE, intermediate_size=29568), 2)
    scales = "model.layers.0.mlp.down_proj.scales"
    (lost,) = (finding for finding in verdict.dropped if finding.tensor == scales)
    assert lost.elements == 8192
    assert "[230:231,:] held by 0 ranks" in lost.message


def test_a_refusal_is_quoted(engine: DryEngine) -> None:
    raised = asked(engine, MINIATURE, 8).raised
    assert raised is not None
    assert NO_KERNEL in raised.message
    assert (raised.stage, raised.type, raised.rank) == ("load", "ValueError", 0)


def test_heads_that_cannot_be_shared_are_refused_from_the_config(engine: DryEngine) -> None:
    raised = asked(engine, MINIATURE, 3).raised
    assert raised is not None
    assert raised.stage == "config"
    assert "attention heads (16) must be divisible by tensor parallel size (3)" in raised.message


def test_kv_heads_may_be_shared_where_the_caller_says_so(engine: DryEngine) -> None:
    recipe = replace(MINIATURE, intermediate_size=1024, kv_heads=4)
    config, tensors = vision_config(recipe), headers(recipe)
    assert engine.ask(config, tensors, 8, replicas={2}).loads_whole
    assert outcome(engine.ask(config, tensors, 8)) == "repeated"


def test_a_tensor_the_checkpoint_lacks_leaves_a_parameter_unwritten(engine: DryEngine) -> None:
    recipe = replace(MINIATURE, intermediate_size=1024)
    tensors = dict(headers(recipe))
    del tensors["model.layers.1.mlp.up_proj.scales"]
    verdict = engine.ask(vision_config(recipe), tensors, 2)
    assert outcome(verdict) == "unwritten"


def test_what_each_rank_allocates_is_known(engine: DryEngine) -> None:
    verdict = asked(engine, replace(MINIATURE, intermediate_size=1024), 2)
    assert len(verdict.nbytes_by_rank) == 2
    whole = asked(engine, replace(MINIATURE, intermediate_size=1024), 1)
    replicated = 2 * verdict.nbytes_by_rank[0] - whole.nbytes_by_rank[0]
    assert 0 < replicated < whole.nbytes_by_rank[0]


def test_no_answer_depends_on_what_was_asked_before(engine: DryEngine) -> None:
    recipes = [replace(MINIATURE, intermediate_size=width) for width in (896, 1024)]
    questions = [(r, tp, vision) for r in recipes for tp in (2, 8) for vision in (True, False)]

    def answer(recipe: Recipe, tp: int, vision: bool) -> DryVerdict:
        return replace(asked(engine, recipe, tp, vision=vision), seconds=0.0)

    first = [answer(*question) for question in questions]
    broken = dict(headers(MINIATURE)) | {"model.norm.weight": ("F16", (3,))}
    assert outcome(engine.ask(vision_config(MINIATURE), broken, 2)) == "load"
    assert outcome(engine.ask({"model_type": "no such model"}, {}, 2)) == "config"
    again = [answer(*question) for question in reversed(questions)]
    assert again == first[::-1]
