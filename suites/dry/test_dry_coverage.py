"""The suites' own account of a load, held against one that knows no tensor's name.

`coverage` says of a live load what each rank should hold, from the planner's table; `dry_findings`
judges a load by what fits together. Both read the copies of the same dry load of vLLM's own loader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.stored import headers
from fixtures.coverage import Coverage, RankAudit, coverage
from fixtures.dry import DryEngine, DryVerdict, Headers
from fixtures.miniature import Recipe
from fixtures.platforms import Platform
from fixtures.prediction import plan
from suites.dry.checkpoints import gptq
from suites.dry.generated import METHODS, Config, configs, seeing
from suites.dry.judge import agree
from suites.dry.test_dry_planner import REPEATABLE, SIZES
from suites.selftest.small_configs import config

pytestmark = pytest.mark.dry

FAMILIES = (
    *("qwen2", "phi3", "glm4", "gemma3", "gpt2", "qwen2_5_vl", "qwen3_vl"),
    *("qwen3_moe", "mixtral", "deepseek_v2", "qwen3_next"),
)
FORMATS = (
    *("none", "awq", "gptq", "packed", "packed_asymmetric", "packed_channel"),
    *("int8", "fp8_block", "fp8_channel"),
)


def both(
    engine: DryEngine, raw: Mapping[str, Any], tensors: Headers, tp: int
) -> tuple[DryVerdict, Coverage]:
    model = parse_config(raw, source="drawn")
    shared = {tp // model.kv_heads} if tp > model.kv_heads else set()
    verdict = engine.ask(raw, tensors, tp, replicas=shared)
    audits = [
        RankAudit(load.rank, tp, {}, load.parameters, load.nbytes, load.copies, ())
        for load in verdict.ranks
    ]
    shapes = {name: tuple(shape) for name, (_, shape) in tensors.items()}
    return verdict, coverage(audits, shapes, model, tp)


@pytest.mark.parametrize("quant", FORMATS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_accounts_for_every_load(hopper: DryEngine, family: str, quant: str) -> None:
    raw = config(family, quant)
    loaded = 0
    for tp in (1, 2, 4):
        verdict, found = both(hopper, raw, headers(parse_config(raw, source="drawn")), tp)
        if verdict.raised is None:
            loaded += 1
            assert found.complete is verdict.loads_whole, found.summary()
    if not loaded:
        pytest.skip("refused at every size: there is nothing to hold")


def test_rows_that_the_engine_loses_are_missed_by_both(hopper: DryEngine) -> None:
    raw, tensors = gptq(Recipe(intermediate_size=896))
    verdict, found = both(hopper, raw, tensors, 2)
    assert verdict.raised is None
    lost = {finding.tensor for finding in verdict.dropped if finding.kind == "dropped"}
    assert {f.tensor for f in found.findings if f.kind == "dropped"} == lost
    assert "model.layers.0.mlp.down_proj.scales" in lost


@pytest.mark.parametrize("stacked", [False, True])
def test_experts_are_accounted_for_one_by_one_and_in_one_tensor(
    hopper: DryEngine, stacked: bool
) -> None:
    raw = config("qwen3_vl_moe")
    tensors = headers(parse_config(raw, source="drawn"), stacked=stacked)
    assert any(name.endswith("experts.down_proj") for name in tensors) is stacked
    verdict, found = both(hopper, raw, tensors, 2)
    assert verdict.loads_whole
    assert found.complete, found.summary()


def expect_accounted(engine: DryEngine, raw: Config, tp: int, platform: Platform) -> None:
    """Both say that all is held, or both that something is lost; and so does the plan."""
    model = parse_config(raw, source="drawn")
    verdict, found = both(engine, raw, headers(model), tp)
    assume(verdict.raised is None and not any(load.faults for load in verdict.ranks))
    lost = "; ".join(finding.message for finding in verdict.dropped[:2]) or "nothing is lost"
    assert found.proven, found.summary()
    assert found.complete is verdict.loads_whole, f"{lost}; {found.summary()}"
    planned = plan(model, tp=tp, platform=platform)
    seen = "whole" if found.complete else "lost"
    assert agree(seen, planned), f"{planned.summary('it')}; {found.summary()}"


@settings(REPEATABLE, max_examples=100)
@given(raw=st.one_of(configs(), seeing()), tp=SIZES)
def test_odd_widths_and_heads_are_accounted_for(engine: DryEngine, raw: Config, tp: int) -> None:
    expect_accounted(engine, raw, tp, "cpu")


@settings(REPEATABLE, max_examples=150)
@given(raw=configs((*METHODS, "fp8")), tp=SIZES)
def test_what_cuda_would_lose_is_missed_by_both(hopper: DryEngine, raw: Config, tp: int) -> None:
    expect_accounted(hopper, raw, tp, "cuda")
