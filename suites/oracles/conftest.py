"""The miniatures that others dequantize too, and their answers, each asked for once."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pytest

from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.checkpoint.weights import Linear
from fixtures.miniature import Quantization, Recipe, write_miniature
from fixtures.serving.server import server_environment

Who: TypeAlias = Literal["library", "engine"]
Weights: TypeAlias = dict[str, np.ndarray]
Ask: TypeAlias = Callable[[Who, Quantization], Weights]
Answers: TypeAlias = Callable[[Who, Sequence[Path]], list[Weights]]
SCRIPT = Path(__file__).parent / "inside" / "dequantized.py"
# What each of them imports; a spec is enough: importing the engine here is forbidden.
NEEDS: dict[Who, tuple[str, ...]] = {
    "library": ("torch", "safetensors", "transformers", "compressed_tensors"),
    "engine": ("torch", "safetensors", "vllm"),
}


def ours(directory: Path, module: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weights `[outputs, inputs]` of one quantized module, as we read them."""
    checkpoint = read_checkpoint(directory)
    parts = {
        name.rpartition(".")[2]: info
        for name, info in checkpoint.tensors.items()
        if name.rpartition(".")[0] == module
    }
    outputs, inputs = shape
    scheme = checkpoint.config.quant.scheme((module,))
    return Linear(module, scheme, inputs, outputs, parts).weights()


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Quantization], Path]:
    @cache
    def written(quant: Quantization) -> Path:
        directory = tmp_path_factory.mktemp(quant)
        # Transformers and vLLM refuse FP8 blocks that end in part of one: this width has none.
        write_miniature(directory, Recipe(quant=quant, layers=1))
        return directory

    return written


@pytest.fixture(scope="session")
def ask(miniature: Callable[[Quantization], Path], answers: Answers) -> Ask:
    """Weights `[outputs, inputs]` of every quantized module, as somebody else reads them."""

    @cache
    def asked(who: Who, quant: Quantization) -> Weights:
        return answers(who, [miniature(quant)])[0]

    return asked


@pytest.fixture(scope="session")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """The same of several checkpoints; importing what reads them takes longer than reading."""

    def answered(who: Who, checkpoints: Sequence[Path]) -> list[Weights]:
        missing = [name for name in NEEDS[who] if importlib.util.find_spec(name) is None]
        if missing:
            pytest.skip(f"{', '.join(missing)} not installed: `tox -e cpu -- suites/oracles`")
        folder = tmp_path_factory.mktemp("answers")
        files = [folder / f"{index}.npz" for index in range(len(checkpoints))]
        paths = [str(path) for pair in zip(checkpoints, files, strict=True) for path in pair]
        ended = subprocess.run(
            [sys.executable, str(SCRIPT), who, *paths],
            env=server_environment(os.environ, {"OMP_NUM_THREADS": "1"}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout[-4000:]
        return [_loaded(file) for file in files]

    return answered


def _loaded(file: Path) -> Weights:
    with np.load(file) as answer:
        return dict(answer)
