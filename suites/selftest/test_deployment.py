"""deployments.toml is read strictly: what it says is what runs, and mistakes are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.deployment import read_deployments
from fixtures.errors import InputError

SHIPPED = Path(__file__).parents[1] / "deployments.toml"


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = SHIPPED.read_text()
    assert old in text
    file = tmp_path / "deployments.toml"
    file.write_text(text.replace(old, new, 1))
    return file


def test_the_shipped_file_plans_the_whole_matrix() -> None:
    deployments = read_deployments(SHIPPED)
    miniature = deployments.deployment("miniature")
    assert miniature.tp == (1, 2, 4, 8)
    assert miniature.pp == (1, 2)
    assert deployments.deployment("checkpoint").pp == (1,)
    assert miniature.variants == ("original", "trimmed", "padded", "regrouped")
    assert deployments.deployment("checkpoint").variants == miniature.variants
    assert deployments.settings("cpu").numerics.padded_max_abs_d == 0.0
    assert deployments.settings("cuda").latency.limits("ttft")["p95"] == 2.0


def test_every_model_that_is_given_has_its_budget_on_every_platform() -> None:
    shipped = read_deployments(SHIPPED)
    given = {name for deployment in shipped.deployments.values() for name in deployment.given}
    assert given == {"requantized", "unquantized"}
    for settings in shipped.platforms.values():
        assert settings.numerics.inexact.keys() == given | {"trimmed"}


def test_a_deployment_changes_the_limits_it_names_on_the_platform_it_names() -> None:
    shipped = read_deployments(SHIPPED)
    cpu, cuda = (shipped.settings(platform) for platform in ("cpu", "cuda"))
    trained = shipped.deployment("trained")
    own = trained.applied(cpu, "cpu").numerics
    assert (own.tp_mean_kl, own.independent["awq"].rms_d) == (2.1e-4, 0.032)
    assert own.independent["gptq"] == cpu.numerics.independent["gptq"]
    assert own.inexact["trimmed"] != cpu.numerics.inexact["trimmed"]
    assert own.inexact["requantized"] == cpu.numerics.inexact["requantized"]
    assert trained.applied(cuda, "cuda").numerics == cuda.numerics
    assert cuda.numerics.padded_max_abs_d > 0  # its kernels choose an order by shape


def test_where_a_lane_has_limits_the_reference_has_too() -> None:
    """The formats that a shipped deployment serves on the CPU are judged against float32."""
    shipped = read_deployments(SHIPPED)
    for name, method in (("miniature", "awq"), ("trained", "awq"), ("float32", "none")):
        applied = shipped.deployment(name).applied(shipped.settings("cpu"), "cpu")
        assert method in applied.numerics.independent


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("tp_rms_d =", "tp_rmsd =", "did you mean 'tp_rms_d'?"),
        ("trimmed = { min_rms_d", "trimmed = { min_rms", "did you mean 'min_rms_d'?"),
        (
            "min_rms_d = 0.1, mean_kl = 0.6",
            "min_rms_d = 0.08, mean_kl = 0.6",
            "min_rms_d is 0.08, ",
        ),
        (
            "tp_rms_d = 0.02\ntp_mean_abs_d = 0.0018",
            "tp_rms_d = 0.3\ntp_mean_abs_d = 0.0018",
            "trained.numerics.cpu, merged: inexact.trimmed.min",
        ),
        ("tp_rms_d = 2e-5", "tp_rmsd = 2e-5", "did you mean 'tp_rms_d'?"),
        (
            "[deployments.float32.numerics.cpu]",
            "[deployments.float32.numerics]",
            "numerics.tp_rms_d",
        ),
        (
            "awq = { rms_d = 0.02",
            "awk = { rms_d = 0.02",
            "independent.awk: input should be 'none', 'awq'",
        ),
        ("{ min_rms_d = 0.1, mean_kl", "{ mean_kl", "inexact.trimmed.min_rms_d is missing"),
        ("mean_kl = 0.1 }", "mean_kl = 0.0 }", "numerics.inexact.trimmed.mean_kl is 0.0"),
        ('"groups_swapped"', '"group_swapped"', "did you mean 'groups_swapped'?"),
        ('"groups_swapped"', '"identity"', "no seeded fault of that name; there are: pad_zero"),
        ("given =", "give =", "did you mean 'given'?"),
        ("requests = 12", "requests = -1", "platforms.cpu.latency.requests is -1"),
        ("schema = 1", "schema = 9", "schema is 9"),
        ("[platforms.cpu]", "[platforms.tpu]", "unknown key platforms.tpu: input should be"),
        ("schema = 1", "schema =", "not readable as TOML"),
    ],
)
def test_a_mistake_is_named(old: str, new: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=says.replace("?", r"\?")):
        read_deployments(changed(tmp_path, old, new))


def test_an_unknown_deployment_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="has: miniature, checkpoint"):
        read_deployments(SHIPPED).deployment("prod")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_deployments(tmp_path / "none.toml")
