"""Patterns from strangers' configs: matched as the engine does, and refused where they run wild."""

from __future__ import annotations

import pytest

from fixtures.checkpoint.patterns import DEADLINE_S, compiled
from fixtures.errors import InputError

NAME = "model.layers.3.mlp.down_proj"


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        (r".*down_proj$", True),
        (r"down_proj", False),  # anchored at the beginning
        (r"model\.layers\.(?:1|3)\.", True),
        (r"^(?!.*mlp).*$", False),
        (r"(?i).*DOWN_PROJ", True),
        (r"(a+)+$", False),
        (r"(\w+\.?)+@", False),
    ],
)
def test_it_matches_from_the_beginning_of_a_name(pattern: str, matches: bool) -> None:
    assert compiled(pattern).matches(NAME) is matches


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(", "missing )"),
        ("a" * 1001, "longer than 1000"),
        ("((a{1000}){1000}){1000}", "repetitions when written out"),
        ("(" * 900, "recursion"),
    ],
)
def test_what_cannot_be_compiled_is_refused(pattern: str, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace(")", r"\)")):
        compiled(pattern)


def test_what_takes_too_long_is_refused_on_the_name_that_shows_it() -> None:
    with pytest.raises(InputError, match=rf"more than {DEADLINE_S:g} s on the name '1,2,3"):
        compiled(r"(.*?,){11}P").matches(",".join(map(str, range(1, 60))))
