"""What the field saw: checkpoints that failed or served, and the planner held against them.

`cases.json` has every case of the list, each of one kind: the planner *agrees* with what was seen;
or the outcome has *changed* with the engine, and the case says what the planner says `today` and
because of what; or it is *outside* what the planner can judge, for a reason. The kind is written
down by hand and then tested both ways: a changed case that agrees is as wrong as the reverse.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from fixtures.checkpoint.config import parse_config
from fixtures.platforms import HOPPER, Capability, Platform
from fixtures.prediction import CellPlan, plan

CASES: Final = Path(__file__).parent / "cases.json"
SERVES: Final = "serves"

Kind: TypeAlias = Literal["agrees", "changed", "outside"]
# The reports' words for stages that the planner has too; its other words have no counterpart.
STAGES: Final[Mapping[str, str]] = {
    "config": "config",
    "load": "load",
    "profile_run": "warmup",
    "first_request": "first_request",
    "silent": "silent",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What was reported, of which engine; sizes also where the same arithmetic implies them."""

    engine: str
    tp_fail: tuple[int, ...]
    tp_ok: tuple[int, ...]
    failure_class: str | None
    error: str | None

    @property
    def stage(self) -> str | None:
        """The planner's name of the stage; None where it cannot be compared."""
        return STAGES.get(self.failure_class or "") if "vLLM" in self.engine else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One checkpoint. `from_case` are the sizes the report gives, by their place in `config`;
    what `config` has besides is general knowledge (`note`).

    `stands_in_for` names the real architecture where `config` has another whose binding layer is
    the same. Outside cases may have an `architecture` or a `quantization_config` to be refused,
    the latter in the words of `refusal`.
    """

    id: int
    kind: Kind
    model: str
    quantization: str
    constraint: str
    observed: Observed
    urls: tuple[str, ...]
    config: Mapping[str, Any] | None = None
    from_case: Mapping[str, object] | None = None
    note: str | None = None
    stands_in_for: str | None = None
    platform: Platform = "cuda"
    capability: Capability = HOPPER
    today: Mapping[int, str] | None = None
    because: str | None = None
    outside: str | None = None
    architecture: str | None = None
    quantization_config: Mapping[str, Any] | None = None
    refusal: str | None = None

    @property
    def name(self) -> str:
        """`27 (Qwen3.8-Flash-Next-FP8)`: the number and the model without its owner."""
        return f"{self.id} ({self.model.rpartition('/')[2]})"


def read_cases(path: Path = CASES) -> tuple[Case, ...]:
    """Every case of the list, in its order."""
    return tuple(_case(entry) for entry in json.loads(path.read_text(encoding="utf-8"))["cases"])


def _case(entry: dict[str, Any]) -> Case:
    seen = entry["observed"]
    sizes = {key: tuple(seen[key]) for key in ("tp_fail", "tp_ok")}
    fields = {**entry, "observed": Observed(**{**seen, **sizes}), "urls": tuple(entry["urls"])}
    if "today" in entry:
        fields["today"] = {int(tp): outcome for tp, outcome in entry["today"].items()}
    if "capability" in entry:
        fields["capability"] = tuple(entry["capability"])
    return Case(**fields)


def plans(case: Case) -> dict[int, CellPlan]:
    """The planner's verdict at every size that was reported."""
    if case.config is None:
        return {}
    model = parse_config(case.config, source=f"case {case.id}")
    return {
        tp: plan(model, tp=tp, platform=case.platform, capability=case.capability)
        for tp in sorted(case.observed.tp_fail + case.observed.tp_ok)
    }


def outcomes(case: Case) -> dict[int, str]:
    """The same in a word each: `serves`, or the stage of the failure."""
    return {tp: cell.failure_class or SERVES for tp, cell in plans(case).items()}


def differences(case: Case) -> list[str]:
    """Where the planner and the field do not say the same; stages where both have the stage."""
    seen, planned = case.observed, outcomes(case)
    found = [
        f"tp={tp} served, planned: {planned[tp]}" for tp in seen.tp_ok if planned[tp] != SERVES
    ]
    for tp in seen.tp_fail:
        if planned[tp] == SERVES or (seen.stage and planned[tp] != seen.stage):
            found.append(f"tp={tp} failed ({seen.failure_class}), planned: {planned[tp]}")
    return found


def summary(cases: Iterable[Case]) -> str:
    """One line of counts, from what the planner says now and not from the kinds written down."""
    inside: list[Case] = []
    outside = 0
    for case in cases:
        if case.kind == "outside":
            outside += 1
        else:
            inside.append(case)
    apart = [case for case in inside if differences(case)]
    changed = [case for case in apart if case.because and outcomes(case) == case.today]
    unexplained = [case.name for case in apart if case not in changed]
    line = (
        f"field: {len(inside) - len(apart)} cases agree, {len(changed)} changed with the engine"
        f"{_named([case.name for case in changed])}, {outside} outside the planner"
    )
    return f"{line}; {len(unexplained)} UNEXPLAINED{_named(unexplained)}" if unexplained else line


def _named(names: list[str]) -> str:
    return f": {', '.join(names)}" if names else ""
