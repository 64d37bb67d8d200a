"""The planner, held against vLLM's own model code over configs of every family and format.

Where vLLM's code raises, the planner says so, and at which stage; where its loader would drop or
overrun rows, the planner says that the cell dies later or answers wrongly; where all is held, it
serves. Draws are the same in every run.
"""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.stored import headers
from fixtures.dry import DryEngine
from fixtures.kernels import KERNELS
from fixtures.layer_rules import LAYER_RULES
from fixtures.memory import weight_bytes
from fixtures.rules import MODEL_RULES
from suites.agreement import note
from suites.dry.generated import METHODS, Config, configs, seeing
from suites.dry.judge import Comparison, compare

pytestmark = pytest.mark.dry

PLACES = sorted(
    {rule.source for rule in MODEL_RULES}
    | {rule.source for rule in LAYER_RULES}
    | {kernel.source for kernel in KERNELS}
)
SIZES = st.sampled_from((1, 2, 2, 2, 3, 4, 4, 4, 8, 8, 8))
REPEATABLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
    ],
)


@pytest.mark.parametrize("place", PLACES)
def test_a_rules_place_is_in_the_engine(place: str) -> None:
    """The file is there, and so is the first name that is said of it."""
    package = importlib.util.find_spec("transformers" if "transformers:" in place else "vllm")
    if package is None or package.origin is None:
        pytest.skip("no vLLM is installed in this environment: `tox -e cpu -- suites/dry`")
    name, _, said = place.partition(": ")
    root = Path(package.origin).parent
    text = (root / name).read_text() if name.endswith(".py") else ""
    words = re.findall(r"\w+", said.partition(",")[0].split(" ")[0])
    if "transformers: " in place:
        classes = re.findall(r"\w+Config", place)
        text = "".join(path.read_text() for path in root.glob("models/*/configuration_*.py"))
        words = [said.split(" ")[0], *classes]
    assert text, place
    assert all(word in text for word in words), place


def settle(request: pytest.FixtureRequest, kind: str, found: Comparison) -> None:
    """Note the comparison, where there is one, and fail where it differs."""
    if found.known:
        note(request.node.user_properties, kind, agrees=found.agrees)
    assert found.agrees, found.words


@settings(REPEATABLE, max_examples=300)
@given(config=configs(), tp=SIZES)
def test_the_cpu_build_does_what_is_planned(
    engine: DryEngine, request: pytest.FixtureRequest, config: Config, tp: int
) -> None:
    settle(request, "dry: cpu", compare(engine, config, tp))


@settings(REPEATABLE, max_examples=100)
@given(config=seeing(), tp=SIZES)
def test_a_vision_tower_does_what_is_planned(
    engine: DryEngine, request: pytest.FixtureRequest, config: Config, tp: int
) -> None:
    settle(request, "dry: cpu", compare(engine, config, tp))


@settings(REPEATABLE, max_examples=200)
@given(config=configs((*METHODS, "fp8")), tp=SIZES)
def test_cuda_decides_as_planned_where_python_decides(
    hopper: DryEngine, request: pytest.FixtureRequest, config: Config, tp: int
) -> None:
    settle(request, "dry: cuda, simulated", compare(hopper, config, tp, platform="cuda"))


@settings(REPEATABLE, max_examples=100)
@given(config=st.one_of(configs(), seeing()), tp=st.sampled_from((1, 2, 4, 8)))
def test_weights_take_the_memory_that_is_planned(
    engine: DryEngine, request: pytest.FixtureRequest, config: Config, tp: int
) -> None:
    """On the fullest rank, to half a percent: the engine adds a few numbers of its own a layer."""
    model = parse_config(config, source="drawn")
    asked = engine.ask(config, headers(model), tp)
    assume(asked.raised is None)
    planned, held = weight_bytes(model, tp=tp), max(asked.nbytes_by_rank)
    agrees = math.isclose(planned, held, rel_tol=0.005)
    note(request.node.user_properties, "dry: weight bytes", agrees=agrees)
    assert agrees, f"{config['architectures'][0]} at tp={tp}: planned {planned}, held {held}"
