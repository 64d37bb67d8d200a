"""Statistics gathered layer by layer are those of a whole model with all its weights in memory."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from fixtures.calibration import Statistics, collect, statistics
from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.projections import mlps
from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.miniature import Quantization
from fixtures.serving.server import server_environment
from fixtures.tokenizer import tokenizer_files
from fixtures.work import Work
from suites.oracles.conftest import Ask, Weights

pytestmark = pytest.mark.oracles

SCRIPT = Path(__file__).parent / "inside" / "activations.py"
WIDTHS: Final[dict[str, int]] = {
    "none": 896, "awq": 896, "gptq-act": 896, "Llama": 96, "Mistral": 96, "Qwen2": 96, "Qwen3": 96,
}  # fmt: skip
MINIATURES: Final[tuple[Quantization, ...]] = ("none", "awq", "gptq-act")
TEXTS = [
    "Two ferries cross the harbour at noon.",
    "x = [n * n for n in range(7)]",
    "Nine",
    "Was this one held out?",
    "It was.",
]
# Both compute in float32; kernels sum in another order where weights are laid out otherwise.
RELATIVE: Final = 2e-5


def script(*arguments: str | Path) -> None:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("transformers not installed: `tox -e cpu -- suites/oracles`")
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env=server_environment(os.environ, {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-4000:]


@pytest.fixture(scope="module")
def checkpoints(
    miniature: Callable[[Quantization], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("families")
    families = {name: folder / name for name in WIDTHS if name not in MINIATURES}
    script("write", *(argument for pair in families.items() for argument in pair))
    for directory in families.values():
        for name, text in tokenizer_files().items():
            (directory / name).write_text(text, encoding="utf-8")
    return {**families, **{quant: miniature(quant) for quant in MINIATURES}}


@pytest.fixture(scope="module")
def whole(
    checkpoints: dict[str, Path], ask: Ask, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Weights]:
    """What a whole model says of each."""
    folder = tmp_path_factory.mktemp("activations")
    (folder / "texts.json").write_text(json.dumps(TEXTS))
    paths: list[Path] = []
    for name, directory in checkpoints.items():
        quantized = [quant for quant in MINIATURES if quant == name != "none"]
        weights = ask("engine", quantized[0]) if quantized else {}
        np.savez(folder / f"{name}-weights.npz", **weights)  # type: ignore[arg-type]
        paths += [directory, folder / f"{name}-weights.npz", folder / f"{name}.npz"]
    script("run", folder / "texts.json", *paths)
    found = {}
    for name in checkpoints:
        with np.load(folder / f"{name}.npz") as answer:
            # Its language model is a part of its own; in the checkpoint it is not.
            found[name] = {key.replace("language_model.", ""): answer[key] for key in answer}
    return found


@pytest.mark.parametrize("name", WIDTHS)
def test_statistics_are_those_of_the_whole_model(
    name: str, checkpoints: dict[str, Path], whole: dict[str, Weights]
) -> None:
    checkpoint = read_checkpoint(checkpoints[name])
    for folder, ours in statistics(checkpoint, TEXTS, work=Work(), moments=True):
        assert ours.moments is not None
        theirs = [whole[name].pop(f"{folder}{of}") for of in ("", " fitted", " held out")]
        assert theirs[0].shape == (WIDTHS[name],)
        np.testing.assert_allclose(ours.mean_square, theirs[0], rtol=RELATIVE)
        for moment, other in zip(
            (ours.moments.fitted, ours.moments.held_out), theirs[1:], strict=True
        ):
            scale = np.sqrt(np.outer(np.diagonal(other), np.diagonal(other)))
            np.testing.assert_allclose(moment / scale, other / scale, atol=RELATIVE)
    assert not whole[name]


def test_a_flat_config_and_a_limit_of_tokens_are_understood(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """As the 72B model's is published; the keys are those under which a variant knows its MLPs."""
    for path in checkpoints["none"].iterdir():
        (tmp_path / path.name).symlink_to(path)
    config = json.loads((tmp_path / "config.json").read_text())
    text = config.pop("text_config")
    rope = text.pop("rope_parameters")
    scaling = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    config = {**text, **config, "rope_theta": rope["rope_theta"], "rope_scaling": scaling}
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").write_text(json.dumps(config))
    nested = collect(read_checkpoint(checkpoints["none"]), TEXTS, work=Work(), tokens=9)
    flat = collect(read_checkpoint(tmp_path), TEXTS, work=Work(), tokens=9)
    narrower = parse_config({**config, "intermediate_size": 768}, source="config.json")
    assert flat.keys() == nested.keys() == dict(mlps(read_checkpoint(tmp_path), narrower)).keys()
    for folder, seen in flat.items():
        assert isinstance(seen, Statistics)
        assert seen.tokens == 9
        np.testing.assert_array_equal(seen.mean_square, nested[folder].mean_square)
