"""The tally of the planner's word, and the judge that holds it against a dry load."""

from __future__ import annotations

from typing import Any

import pytest

from fixtures.coverage import Finding
from fixtures.dry import DryVerdict, Raised
from fixtures.prediction import CellPlan, plan
from suites.agreement import KINDS, lines, note, tally
from suites.dry.judge import agree, observed
from suites.selftest.test_planner import MINIATURE

SERVES = plan(MINIATURE, tp=1, platform="cpu")
DIES = plan(MINIATURE, tp=2, platform="cpu")
REFUSED = plan(MINIATURE, tp=8, platform="cpu")


def test_comparisons_are_counted_by_kind_and_said_in_order() -> None:
    first: list[tuple[str, object]] = [("benchmark", 3)]
    second: list[tuple[str, object]] = []
    note(second, "field", agrees=True)
    note(second, "dry: cpu", agrees=False)
    note(first, "dry: cpu", agrees=True)
    found = tally([first, second])
    assert found == {"dry: cpu": (1, 2), "field": (1, 1)}
    assert lines(found)[0].startswith(f"dry: cpu: 1 of 2 {KINDS['dry: cpu'][:11]}")


def test_a_kind_that_is_not_reported_is_refused() -> None:
    with pytest.raises(ValueError, match="'hearsay' is no kind"):
        note([], "hearsay", agrees=True)


def dry(*, raised: str | None = None, lost: str | None = None) -> DryVerdict:
    stage: Any = raised
    error = Raised(stage, "ValueError", "no", "file:1 f", 0) if raised else None
    found = (Finding("dropped", lost, (0,), 8, f"{lost}: a row"),) if lost else ()
    return DryVerdict(error, found, (), 0.1)


SCALES = "model.layers.0.mlp.down_proj.scales"


@pytest.mark.parametrize(
    ("verdict", "planned", "agrees"),
    [
        (dry(), SERVES, True),
        (dry(), DIES, False),
        (dry(), REFUSED, False),
        (dry(lost=SCALES), DIES, True),
        (dry(lost=SCALES), SERVES, False),
        (dry(lost=SCALES), REFUSED, False),
        (dry(raised="load"), REFUSED, True),
        (dry(raised="load"), SERVES, False),
        (dry(raised="load"), DIES, False),
        (dry(raised="config"), REFUSED, False),
        (dry(raised="oracle"), SERVES, True),
    ],
)
def test_the_judge_tells_agreement_from_its_absence(
    verdict: DryVerdict, planned: CellPlan, agrees: bool
) -> None:
    assert agree(observed(verdict), planned) is agrees


def test_zeros_that_no_kernel_reads_are_no_loss() -> None:
    zeros = SCALES.replace("scales", "qzeros")
    assert observed(dry(lost=zeros), method="gptq") == "whole"
    assert observed(dry(lost=zeros), method="awq") == "lost"
