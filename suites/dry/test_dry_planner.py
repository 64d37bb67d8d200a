"""The planner, held against vLLM's own model code over configs of every family and format.

Where vLLM's code raises, the planner says so, and at which stage; where its loader would drop or
overrun rows, the planner says that the cell dies later or answers wrongly; where all is held, it
serves. Draws are the same in every run.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.dry import DryEngine
from suites.agreement import note
from suites.dry.generated import METHODS, Config, configs, seeing
from suites.dry.judge import compare

pytestmark = pytest.mark.dry

SIZES = st.sampled_from((1, 2, 2, 2, 3, 4, 4, 4, 8, 8, 8))
REPEATABLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@settings(REPEATABLE, max_examples=300)
@given(config=configs(), tp=SIZES)
def test_the_cpu_build_does_what_is_planned(
    engine: DryEngine, request: pytest.FixtureRequest, config: Config, tp: int
) -> None:
    found = compare(engine, config, tp)
    if found.known:
        note(request.node.user_properties, "dry: cpu", agrees=found.agrees)
    assert found.agrees, found.words


@settings(REPEATABLE, max_examples=100)
@given(config=seeing(), tp=SIZES)
def test_a_vision_tower_does_what_is_planned(
    engine: DryEngine, request: pytest.FixtureRequest, config: Config, tp: int
) -> None:
    found = compare(engine, config, tp)
    if found.known:
        note(request.node.user_properties, "dry: cpu", agrees=found.agrees)
    assert found.agrees, found.words


@settings(REPEATABLE, max_examples=200)
@given(config=configs((*METHODS, "fp8")), tp=SIZES)
def test_cuda_decides_as_planned_where_python_decides(
    hopper: DryEngine, request: pytest.FixtureRequest, config: Config, tp: int
) -> None:
    found = compare(hopper, config, tp, platform="cuda")
    if found.known:
        note(request.node.user_properties, "dry: cuda, simulated", agrees=found.agrees)
    assert found.agrees, found.words
