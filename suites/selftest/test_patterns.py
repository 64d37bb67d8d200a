"""The automata agree with `re` wherever `re` comes to an end."""

from __future__ import annotations

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.checkpoint.patterns import compiled

atoms = st.sampled_from([*"ab.", r"\.", "[ab]", "[^a]", r"\d", r"\w", "^", "$", r"\b"])
pieces = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.tuples(inner, inner).map(lambda two: f"({two[0]}|{two[1]})"),
        st.tuples(inner, st.sampled_from(["?", "??", "{2}", "{1,2}", "{,2}"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
        st.tuples(atoms, st.sampled_from(["*", "+", "*?"])).map(
            lambda two: f"(?:{two[0]}){two[1]}"
        ),
        inner.map(lambda one: f"(?={one})"),
        inner.map(lambda one: f"(?!{one})"),
    ),
    max_leaves=8,
)
names = st.text("ab.1", max_size=8)


@settings(max_examples=400, deadline=None)
@given(pieces, st.lists(names, min_size=1, max_size=4))
def test_a_pattern_matches_what_re_matches(pattern: str, asked: list[str]) -> None:
    automaton = compiled(pattern)
    for name in asked:
        assert automaton.matches(name) == bool(re.match(pattern, name)), (pattern, name)


PUBLISHED = [
    r".*mlp\.gate$",
    r"model\.layers\.(?:1[0-9]|2)\..*",
    r"(?!.*self_attn).*proj",
    r".*\.layers\.\d+\.mlp\.experts\.\d+\.(gate|up)_proj",
    r"(?i)MODEL\.LAYERS\..*",
    r"^(?!.*(lm_head|visual)).*layers\.[3-9]\b.*$",
    r"visual.*",
    "lm_head",
    "",
]
MODULES = [
    "model.layers.0.mlp.gate",
    "model.layers.12.self_attn.q_proj",
    "model.layers.3.mlp.experts.0.gate_proj",
    "visual.blocks.1.attn.qkv",
    "lm_head",
]


@pytest.mark.parametrize("pattern", PUBLISHED)
def test_patterns_as_quantizers_write_them(pattern: str) -> None:
    automaton = compiled(pattern)
    seen = [automaton.matches(name) for name in MODULES]
    assert seen == [bool(re.match(pattern, name)) for name in MODULES]


@pytest.mark.parametrize("pattern", ["(a+)+$", "(.*)*x", r"(?:\w+\.?)+!", "(a|a)*b", ".*" * 40])
def test_the_work_grows_with_the_name_and_not_faster(pattern: str) -> None:
    automaton = compiled(pattern)
    for length in (1000, 2000):
        assert automaton.matches("a" * length + "." * 100) == (pattern == ".*" * 40)
    assert len(automaton.states) < 50


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"(a)\1", "references"),
        (r"(?<=a)b", "not followed"),
        (r"(?P<n>a)(?P=n)", "not followed"),
        ("a++", "possessive"),
        ("(" * 60 + "a" + ")" * 60, "nested"),
        ("(a{100}){100}", "too large"),
        ("a{1000000}", "too large"),
        ("x" * 1001, "longer"),
        ("(", "unterminated"),
        ("(" * 16 + "a" + "*)" * 16, "too large"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(pattern: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        compiled(pattern)


def test_a_warning_of_re_is_not_the_callers() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert compiled("[[a]").matches("a")
