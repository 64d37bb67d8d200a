from pathlib import Path

import numpy as np
import pytest

from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.projections import mlps
from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.errors import InputError
from fixtures.importance import activation_scores, calibrated_scores
from suites.selftest import oracles
from suites.selftest.tiny import Tiny, arrays_in

WIDTH, NARROWER, GROUP = 96, 64, 32


def test_a_group_s_score_is_the_sum_of_norm_times_activation() -> None:
    scores = activation_scores(
        np.array([1.0, 2.0, 3.0, 4.0]), np.array([0.5, 1.0, 0.0, 2.0]), 2, "down_proj"
    )
    assert scores == (2.5, 8.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_is_refused_by_name(bad: float) -> None:
    with pytest.raises(InputError, match="down_proj and its siblings hold values"):
        activation_scores(np.ones(4), np.array([1.0, bad, 1.0, 1.0]), 2, "down_proj")


def test_statistics_of_another_width_are_a_defect() -> None:
    with pytest.raises(ValueError, match="4 channels, 6 were calibrated"):
        activation_scores(np.ones(4), np.ones(6), 2, "down_proj")


@pytest.mark.parametrize("quant", ["awq", "none"])
def test_scores_of_a_checkpoint_are_those_of_its_down_proj(quant: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(Tiny(quant=quant, nested=True).write(tmp_path / "source"))
    other = Tiny(quant=quant, nested=True, intermediate=NARROWER).config()
    found = dict(mlps(checkpoint, parse_config(other, source="config.json")))
    random = np.random.default_rng(3)
    rms = {mlp: random.random(WIDTH) for mlp in found}
    downs = {mlp: next(p.linear for p in found[mlp] if p.side == "inputs") for mlp in found}
    scores = {mlp: calibrated_scores(down, rms[mlp], GROUP) for mlp, down in downs.items()}
    for mlp in ("model.language_model.layers.0.mlp", "model.language_model.layers.1.mlp"):
        weights = oracles.weights(arrays_in(tmp_path / "source"), f"{mlp}.down_proj", GROUP)
        norms = np.linalg.norm(np.array(weights), axis=1)
        expected = [sum(norms[g : g + GROUP] * rms[mlp][g : g + GROUP]) for g in (0, 32, 64)]
        assert scores.pop(mlp) == pytest.approx(expected, rel=1e-6)
    assert not scores
