"""The planner against the field: what failed there fails here, or it is said what has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import pytest

from fixtures.checkpoint.config import parse_config, with_intermediate
from fixtures.errors import InputError
from suites.agreement import note
from suites.field import Case, differences, outcomes, plans, read_cases, summary

pytestmark = pytest.mark.field

# The list as collected, with the gaps in its numbers.
IDS: Final = (
    1, 2, 3, 4, 6, 9, 10, 11, 13, 14, 15, 18, 19, 20, 22, 23, 26, 27, 28, 29, 30, 31, 32, 33, 34,
    35, 36, 37, 38, 39, 41, 42, 43, 44, 47, 48, 49, 50, 51, 52, 53, 54,
)  # fmt: skip
# What the reports say binds, and the planner's rule of the same.
RULES: Final = {
    "mlp_group": "group_straddles_rank",
    "fp8_block_linear": "block_straddles_rank",
    "heads": "heads_divide",
    "vision_heads": "vision_heads_divide",
    "vocab": "vocabulary_divides",
}
PADDING_SCRIPT: Final = 52
CASES: Final = read_cases()
INSIDE: Final = [case for case in CASES if case.kind != "outside"]
AGREES: Final = [case for case in CASES if case.kind == "agrees"]
CHANGED: Final = [case for case in CASES if case.kind == "changed"]
OUTSIDE: Final = [case for case in CASES if case.kind == "outside"]


def name(case: Case) -> str:
    return f"{case.id}-{case.model.rpartition('/')[2]}".replace(" ", "_")


def each(cases: Sequence[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=name)


def value_at(config: Any, place: str) -> object:
    for key in place.split("."):
        config = config[key]
    return config


def plain_llama(**more: object) -> dict[str, object]:
    """A config in which nothing but `more` can be refused."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
        "vocab_size": 32000, "max_position_embeddings": 4096, "torch_dtype": "float16", **more,
    }  # fmt: skip


def test_every_checkpoint_of_the_list_is_accounted_for_once() -> None:
    assert [case.id for case in CASES] == sorted(IDS)
    assert len(AGREES) + len(CHANGED) + len(OUTSIDE) == len(IDS)


@each(CASES)
def test_each_kind_has_what_it_needs_and_nothing_of_another(case: Case) -> None:
    inside = case.kind != "outside"
    assert (case.outside is None) == inside
    assert (case.today is not None) == inside
    assert not inside or (case.config and case.from_case and case.note)
    # A changed outcome, or that of another engine, is never left unexplained.
    needed = case.kind == "changed" or (inside and "vLLM" not in case.observed.engine)
    assert bool(case.because) == needed
    assert case.urls


@each([case for case in CASES if case.config])
def test_the_config_has_the_sizes_of_the_report(case: Case) -> None:
    assert case.from_case
    assert {place: value_at(case.config, place) for place in case.from_case} == case.from_case


@each(AGREES)
def test_the_planner_agrees_with_the_field(case: Case, request: pytest.FixtureRequest) -> None:
    apart = differences(case)
    note(request.node.user_properties, "field", agrees=not apart)
    assert apart == []


@each(CHANGED)
def test_a_changed_case_does_differ_from_the_field(
    case: Case, request: pytest.FixtureRequest
) -> None:
    named = bool(case.because) and outcomes(case) == case.today
    note(request.node.user_properties, "field, changed since", agrees=named)
    assert differences(case) != []


@each(INSIDE)
def test_the_planner_says_exactly_this_today(case: Case) -> None:
    assert outcomes(case) == case.today


@each([case for case in AGREES if case.observed.tp_fail and "vLLM" in case.observed.engine])
def test_what_bound_in_the_field_binds_in_the_plan(case: Case) -> None:
    for tp in case.observed.tp_fail:
        cell = plans(case)[tp]
        stage = [o.rule for o in cell.obstacles if o.failure_class == cell.failure_class]
        assert RULES[case.constraint] in stage


@each([case for case in OUTSIDE if case.architecture])
def test_an_architecture_outside_is_refused_by_name(case: Case) -> None:
    with pytest.raises(InputError, match=f"architecture '{case.architecture}' is not supported"):
        parse_config(plain_llama(architectures=[case.architecture]), source="config.json")


@each([case for case in OUTSIDE if case.quantization_config])
def test_a_quantization_outside_is_refused_by_name(case: Case) -> None:
    assert case.refusal
    with pytest.raises(InputError, match=case.refusal):
        parse_config(plain_llama(quantization_config=case.quantization_config), source="config")


def test_padding_leaves_the_tower_alone_where_a_script_did_not() -> None:
    case = next(case for case in OUTSIDE if case.id == PADDING_SCRIPT)
    assert case.config
    padded = parse_config(with_intermediate(case.config, 29696), source="config.json")
    assert padded.intermediate_size == 29696
    assert padded.vision == parse_config(case.config, source="config.json").vision


def test_every_reason_to_be_outside_is_tested() -> None:
    untested = [c.id for c in OUTSIDE if not c.architecture and not c.quantization_config]
    assert untested == [PADDING_SCRIPT]


def test_the_summary_counts_and_names() -> None:
    line = summary(CASES)
    start = f"field: {len(AGREES)} cases agree, {len(CHANGED)} changed with the engine: 4 ("
    assert line.startswith(start)
    assert line.endswith(f", {len(OUTSIDE)} outside the planner")
    assert all(case.name in line for case in CHANGED)


def test_the_summary_does_not_take_the_cases_word_for_it() -> None:
    changed = CHANGED[0]
    wrong = replace(changed, today=dict.fromkeys(changed.today or {}, "serves"))
    assert summary([wrong]).endswith(f"; 1 UNEXPLAINED: {changed.name}")
    assert "0 cases agree, 1 changed" in summary([replace(changed, kind="agrees")])
