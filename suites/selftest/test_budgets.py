"""Budgets of a platform, a deployment and a cell: who has the last word, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.budgets import quantile
from fixtures.deployment import read_deployments
from fixtures.errors import InputError

SHIPPED = Path(__file__).parents[1] / "deployments.toml"


def with_tables(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "deployments.toml"
    file.write_text(SHIPPED.read_text() + "\n".join(("", *lines, "")))
    return file


def test_a_cell_has_the_last_word_and_changes_only_what_it_names(tmp_path: Path) -> None:
    file = with_tables(
        tmp_path,
        "[deployments.miniature.latency]",
        "requests = 30",
        "[deployments.miniature.cells.padded-tp2.latency]",
        "ttft_s = { p50 = 0.5 }",
    )
    deployments = read_deployments(file)
    platform, miniature = deployments.settings("cpu"), deployments.deployment("miniature")
    one, other = (
        miniature.applied(platform, "cpu", cell).latency for cell in ("padded-tp2", "padded-tp4")
    )
    assert (one.requests, dict(one.ttft_s)) == (30, {"p50": 0.5})
    assert (other.requests, dict(other.ttft_s)) == (30, {})
    assert one.output_tokens == platform.latency.output_tokens


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (
            ("[deployments.miniature.cells.padded-tp2.latency]", "tfft_s = { p50 = 1.0 }"),
            "unknown key deployments.miniature.cells.padded-tp2.latency.tfft_s; did you mean "
            "'ttft_s'",
        ),
        (
            ("[deployments.miniature.latency]", "ttft_s = { P50 = 1.0 }"),
            "deployments.miniature.latency.ttft_s: 'P50' is no percentile",
        ),
        (
            ("[deployments.miniature.throughput]", "poisson_requests = 0", "e2e_s = { p50 = 1.0 }"),
            "give poisson_requests",
        ),
        (
            ("[deployments.miniature.cells.paded-tp2.latency]", "requests = 9"),
            "cells.paded-tp2 is no cell of this deployment: expected .* original-tp2",
        ),
        (
            ("[deployments.miniature.cells.padded-tp]", "latency = { requests = 9 }"),
            "cells.padded-tp is no cell",
        ),
        (
            ("[deployments.miniature.throughput]", "closed = {}"),
            "deployments.miniature.throughput.closed",
        ),
        (
            ("[deployments.miniature.latency]", "confidence = 0.4"),
            "deployments.miniature.latency.confidence is 0.4",
        ),
        (
            ("[deployments.miniature.latency]", "confidence = 0.5"),  # passing and failing overlap
            "deployments.miniature.latency.confidence is 0.5",
        ),
        (
            ("[platforms.cuda.machine]", "again_s = -1.0"),
            "platforms.cuda.machine.again_s is -1",
        ),
        (
            ("[platforms.cuda.machine]", "foreign_cores = 0.0"),
            "platforms.cuda.machine: foreign_cores is 0: expected more",
        ),
    ],
)
def test_a_mistake_in_a_budget_is_named_with_its_place(
    lines: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=says):
        read_deployments(with_tables(tmp_path, *lines))


@pytest.mark.parametrize(("name", "q"), [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)])
def test_a_percentile_is_named_as_the_field_does(name: str, q: float) -> None:
    assert quantile(name) == pytest.approx(q)


@pytest.mark.parametrize("name", ["p0", "p100", "99", "p", "p-1", "p50s"])
def test_what_is_no_percentile_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no percentile"):
        quantile(name)
