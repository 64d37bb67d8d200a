"""Variants a deployment names itself: where they lie, and how far from the original they may be."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.ledger import seal
from fixtures.miniature import Recipe, write_miniature
from fixtures.requantized import home
from fixtures.variants import build_padded, build_trimmed
from suites.selftest.runs import Inner, run_inner, run_pytest

DEPLOYMENT = """
[deployments.given]
checkpoint = "requantize:original"
variants = ["original"]
given = { other = "requantize:requantized" }
tp = [1]
"""
INEXACT = """
[platforms.cpu.numerics.inexact.other]
min_rms_d = 0.1
mean_kl = 0.1
"""


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that has both checkpoints; the stub answers for the second as another model."""
    cache = tmp_path_factory.mktemp("road")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        original, other = home() / "original", home() / "requantized"
    original.mkdir(parents=True)
    write_miniature(original, Recipe())
    build_trimmed(original, other, to=768)
    build_padded(original, cache / "padded", to=1024)
    for directory in (original, other):
        seal(directory)
    return cache


def run(road: Path, tmp_path: Path, deployments: Path, more: str, *options: str) -> Inner:
    file = tmp_path / "deployments.toml"
    file.write_text(deployments.read_text() + DEPLOYMENT + more)
    asked = ("--deployment=given", "-m", "other and (plan or numerics)", *options)
    return run_inner(tmp_path / "reports", road, *asked, deployments=file)


def test_a_variant_is_held_to_the_budget_that_names_it(
    road: Path, tmp_path: Path, deployments: Path
) -> None:
    inner = run(road, tmp_path, deployments, INEXACT)
    assert inner.code == 0, inner.output
    told = inner.row("other-tp1", "numerics/quality/text/told_apart")
    assert (told["limit"], told["low"] > 0.1) == (0.1, True)
    assert inner.row("other-tp1", "numerics/quality/text/mean_kl")["limit"] == 0.1
    assert inner.row("other-tp1", "numerics/quality/text/max_abs_d")["limit"] is None


def test_a_variant_that_no_budget_names_must_be_exact(
    road: Path, tmp_path: Path, deployments: Path
) -> None:
    inner = run(road, tmp_path, deployments, "")
    assert inner.code == 1, inner.output
    strata = ("text", "code", "cjk", "long", "image", "decode")
    moved = {("other-tp1", f"numerics/exact/{one}/max_abs_d") for one in strata}
    assert moved <= inner.failed()
    assert {claim.rpartition("/")[2] for _, claim in inner.failed() - moved} <= {"hard_flips"}


def test_the_command_line_has_the_last_word(road: Path, tmp_path: Path, deployments: Path) -> None:
    inner = run(road, tmp_path, deployments, "", f"--variant=other={road / 'padded'}")
    assert inner.code == 0, inner.output
    assert inner.row("other-tp1", "numerics/exact/text/max_abs_d")["value"] == 0.0


def test_a_checkpoint_that_is_not_built_is_asked_for_by_its_command(tmp_path: Path) -> None:
    ended = run_pytest(tmp_path, "--deployment=requantized", "--collect-only")
    assert ended.returncode == 4
    assert "requantize:original is not built yet" in ended.stderr
    assert "`tox -e requantize`" in ended.stderr
    assert not any(tmp_path.iterdir())


def test_a_given_name_is_held_to_the_rules_of_names(tmp_path: Path, deployments: Path) -> None:
    file = tmp_path / "deployments.toml"
    text = DEPLOYMENT.replace("requantize:original", "miniature:awq").replace("other =", "tp2 =")
    file.write_text(deployments.read_text() + text)
    ended = run_pytest(tmp_path, f"--deployments={file}", "--deployment=given", "--collect-only")
    assert ended.returncode == 4
    assert "tp2 means something else where tests are selected" in ended.stderr
