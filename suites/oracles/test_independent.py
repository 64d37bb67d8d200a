"""The float32 reference says what transformers' whole model does, in the memory of one layer."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from fixtures import independent
from fixtures.checkpoint.modules import canonical
from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.checkpoint.writing import PendingTensor, write_safetensors
from fixtures.errors import InputError
from fixtures.independent import Reference, TokenizedDocument, main, score
from fixtures.miniature import QUANTIZATIONS, Quantization, Recipe, write_miniature
from fixtures.parameters import Parameters
from fixtures.serving.client import Scored
from fixtures.serving.server import server_environment
from fixtures.tokenizer import tokenizer_files
from fixtures.work import Work
from suites.corpus import FOLDER

pytestmark = [
    pytest.mark.oracles,
    pytest.mark.skipif(
        importlib.util.find_spec("transformers") is None,
        reason="transformers not installed: `tox -e cpu -- suites/oracles`",
    ),
]

INSIDE = Path(__file__).parent / "inside"
TEXTS: Final = ["Two ferries cross the harbour at noon.", "x = [n * n for n in range(7)]", "N"]
PICTURES: Final = ["images/red_square.png", "images/two_discs.png"]
ASKED: Final = "What shape is this?"
PROMPTS: Final[list[tuple[str, Path | None]]] = [
    *((text, None) for text in TEXTS),
    *((ASKED, FOLDER / file) for file in PICTURES),
]
FAMILIES: Final = ("Llama", "Mistral", "Qwen2", "Qwen3")
# Both compute in float32, in another order: measured at most 2e-5 nat, of log-probabilities to -30.
CLOSE: Final = 1e-4


def script(name: str, *arguments: str | Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(INSIDE / name), *map(str, arguments)],
        env=server_environment(os.environ, {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-4000:]


def write_dense(quantized: Path, dense: Path, out: Path) -> Path:
    """What the quantized checkpoint stands for, stored in float32 as the dense one is laid out."""
    out.mkdir()
    for path in dense.iterdir():
        if path.suffix != ".safetensors":
            (out / path.name).write_bytes(path.read_bytes())
    source = Parameters(read_checkpoint(quantized))
    tensors = [
        PendingTensor(
            name, "F32", info.shape, partial(source.parameter, canonical(name), info.shape)
        )
        for name, info in read_checkpoint(dense).tensors.items()
    ]
    write_safetensors(out / "model.safetensors", tensors, metadata={"format": "pt"})
    return out


@dataclass(frozen=True)
class Case:
    """A checkpoint, and what a whole model says of it: `[tokens - 1, vocabulary]` by document."""

    directory: Path
    documents: tuple[TokenizedDocument, ...]
    logprobs: tuple[np.ndarray, ...]


@pytest.fixture(scope="module")
def cases(
    miniature: Callable[[Quantization], Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Case]:
    """Every format, three layers of the unquantized one, and every family without eyes."""
    folder = tmp_path_factory.mktemp("independent")
    deep = folder / "deep"
    deep.mkdir()
    write_miniature(deep, Recipe(quant="none", layers=3))
    families = {family: folder / family for family in FAMILIES}
    script("activations.py", "write", *(part for pair in families.items() for part in pair))
    for directory in families.values():
        for name, text in tokenizer_files().items():
            (directory / name).write_text(text, encoding="utf-8")
    dense = miniature("none")
    judged = {quant: miniature(quant) for quant in QUANTIZATIONS} | {"deep": deep} | families
    whole = dict(judged)
    for quant in QUANTIZATIONS:
        whole[quant] = write_dense(miniature(quant), dense, folder / f"dense-{quant}")
    prompts = {name: PROMPTS[: len(TEXTS) if name in FAMILIES else None] for name in judged}
    (folder / "documents.json").write_text(
        json.dumps(
            {
                str(whole[name]): [{"text": t, "image": f and str(f)} for t, f in listed]
                for name, listed in prompts.items()
            }
        )
    )
    outs = [part for name in judged for part in (whole[name], folder / f"{name}.npz")]
    script("whole_scores.py", folder / "documents.json", *outs)
    return {
        name: case(directory, folder / f"{name}.npz", [image for _, image in prompts[name]])
        for name, directory in judged.items()
    }


def png(image: Path | None) -> bytes | None:
    return None if image is None else image.read_bytes()


def case(directory: Path, answers: Path, images: Sequence[Path | None]) -> Case:
    with np.load(answers) as answer:
        documents = tuple(
            TokenizedDocument(f"{index}", tuple(answer[f"ids {index}"].tolist()), png(image))
            for index, image in enumerate(images)
        )
        return Case(
            directory,
            documents,
            tuple(answer[f"logprobs {index}"] for index in range(len(images))),
        )


def expect_whole(scored: Scored, whole: np.ndarray) -> None:
    """Own log-probabilities, ranks and the 20 likeliest, where they do not hang on a rounding."""
    assert len(scored.positions) == len(whole)
    for position, row in zip(scored.positions, whole, strict=True):
        own = row[position.token_id]
        assert position.top[position.token_id] == position.logprob
        assert len(position.top) in (20, 21)
        np.testing.assert_allclose(list(position.top.values()), row[[*position.top]], atol=CLOSE)
        least = sorted(position.top.values())[-20]
        assert sum(row > least + CLOSE) <= 20  # none is missing from the 20 likeliest
        assert sum(row > own + CLOSE) < position.rank <= sum(row >= own - CLOSE)


@pytest.mark.parametrize("name", [*QUANTIZATIONS, "deep", *FAMILIES])
def test_scores_are_those_of_the_whole_model(name: str, cases: dict[str, Case]) -> None:
    judged = cases[name]
    scores = score(judged.directory, judged.documents)
    assert list(scores) == [document.id for document in judged.documents]
    for document, whole in zip(judged.documents, judged.logprobs, strict=True):
        assert scores[document.id].token_ids == document.token_ids
        expect_whole(scores[document.id], whole)


def test_a_document_is_scored_alike_to_the_bit_whatever_is_scored_beside_it(
    cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In other blocks of positions, and with the vocabulary in other pieces, too."""
    judged = cases["awq"]
    together = score(judged.directory, judged.documents)
    monkeypatch.setattr(independent, "HEAD_BYTES", 4 * 1024 * 100)  # 100 tokens: 6 pieces
    with Reference(judged.directory) as reference:
        for document in judged.documents:
            assert reference.score([document], work=Work())[document.id] == together[document.id]


def test_tokens_are_those_of_the_models_own_processor(cases: dict[str, Case]) -> None:
    judged = cases["awq"]
    with Reference(judged.directory) as reference:
        for document, (text, image) in zip(judged.documents, PROMPTS, strict=True):
            assert reference.tokenized(document.id, text, png(image)) == document


def test_memory_grows_with_one_layer_not_with_all(tmp_path: Path) -> None:
    peaks = []
    for layers in (2, 18):
        directory = tmp_path / f"{layers}"
        directory.mkdir()
        write_miniature(directory, Recipe(layers=layers))
        with Reference(directory) as reference:
            reference.score([TokenizedDocument("text", tuple(range(97, 129)))], work=Work())
        peaks.append(reference.peak_bytes)
    one_layer = 4 * (3 * 1024 * 896 + 3 * 1024 * 1024)  # 24 MB of float32; 16 are 370
    assert peaks[1] - peaks[0] < 2 * one_layer


def test_a_picture_of_another_size_than_its_placeholders_is_refused(cases: dict[str, Case]) -> None:
    judged = cases["none"]
    document = judged.documents[-1]
    place = document.token_ids.index(json.loads(config(judged))["image_token_id"])
    ids = document.token_ids[:place] + document.token_ids[place + 1 :]
    with pytest.raises(InputError, match=r"tokens of a picture, expected \d+, as many as"):
        score(judged.directory, [TokenizedDocument("picture", ids, document.image)])


def config(judged: Case) -> str:
    return (judged.directory / "config.json").read_text()


def test_the_command_prints_a_summary(
    cases: dict[str, Case], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(cases["awq"].directory), "--text", ASKED, "--image", str(FOLDER / PICTURES[0])]
    assert main([*arguments, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = cases["awq"].documents[len(TEXTS)]
    assert printed["scores"]["token_ids"] == list(expected.token_ids)
    assert printed["positions"] == len(expected.token_ids) - 1
    own = cases["awq"].logprobs[len(TEXTS)][range(printed["positions"]), expected.token_ids[1:]]
    assert printed["mean_logprob"] == pytest.approx(own.mean(), abs=CLOSE)
