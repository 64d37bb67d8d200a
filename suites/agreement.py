"""How often the planner's word was held against somebody else's, and how often it stood.

Three judges: the engine live (how a cell starts or fails, how many tokens it has room for), the
engine's own code without weights (`suites/dry`), and what users reported (`suites/field`). Each
comparison a test makes is noted once; the terminal shows the tally at the end of the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

PROPERTY: Final = "shardproof_agreement"
# In the order of the report; a comparison is of one of these kinds.
KINDS: Final = {
    "live: failure classes": "cells of the matrix fail or serve on the real engine as planned",
    "live: capacity": "servers have room for the tokens the plan's arithmetic gives, within 1 %",
    "dry: cpu": "checkpoints meet in vLLM's own model code the fate that is planned",
    "dry: cuda, simulated": "the same with CUDA's choices simulated: a hint, no GPU ran them",
    "dry: weight bytes": "checkpoints take the memory on a rank that is planned, within 0.5 %",
    "field": "reported checkpoints fail and serve where the plan says",
    "field, changed since": "reports the engine has overtaken, each for a named reason",
}


def note(properties: list[tuple[str, object]], kind: str, *, agrees: bool) -> None:
    """Remember one comparison among a test's `user_properties`."""
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of comparison")
    properties.append((PROPERTY, [kind, agrees]))


def tally(reports: Iterable[Sequence[tuple[str, object]]]) -> dict[str, tuple[int, int]]:
    """kind → (agreements, comparisons) over the properties of many tests."""
    agreed: Counter[str] = Counter()
    compared: Counter[str] = Counter()
    for properties in reports:
        for name, value in properties:
            if name == PROPERTY and isinstance(value, list):
                kind, agrees = value
                compared[kind] += 1
                agreed[kind] += bool(agrees)
    return {kind: (agreed[kind], compared[kind]) for kind in KINDS if compared[kind]}


def lines(found: dict[str, tuple[int, int]]) -> list[str]:
    """The tally in words."""
    return [f"{kind}: {agreed} of {all_} {KINDS[kind]}" for kind, (agreed, all_) in found.items()]
