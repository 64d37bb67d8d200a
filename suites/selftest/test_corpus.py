"""The corpus is what the claims say it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from suites.corpus import FOLDER, read_corpus
from suites.corpus.draw import DRAWINGS
from suites.measure import prompts


def test_it_has_enough_documents_of_every_kind() -> None:
    corpus = read_corpus()
    strata = Counter(document.stratum for document in corpus.documents)
    assert len(corpus.texts) >= 32
    assert {"text", "code", "cjk", "numbers", "dialogue", "long", "image"} == set(strata)
    assert strata["image"] >= 7  # fewer have no interval at the confidence the suite asks for
    assert len({document.id for document in corpus.documents}) == len(corpus.documents)


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_picture_is_the_one_the_code_draws(name: str) -> None:
    drawn = np.asarray(Image.open(FOLDER / "images" / f"{name}.png").convert("RGB"))
    assert (drawn == DRAWINGS[name]()).all()


def test_one_changed_letter_is_another_digest(tmp_path: Path) -> None:
    for file in ("documents.jsonl", "images.jsonl"):
        (tmp_path / file).write_bytes((FOLDER / file).read_bytes())
    (tmp_path / "images").symlink_to(FOLDER / "images")
    assert read_corpus(tmp_path).digest == read_corpus().digest
    text = (tmp_path / "documents.jsonl").read_text()
    (tmp_path / "documents.jsonl").write_text(text.replace("bridge", "Bridge", 1))
    assert read_corpus(tmp_path).digest != read_corpus().digest


def test_reading_it_writes_nothing_that_a_kill_could_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_corpus()  # what the first import of the library does is its own affair
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    assert read_corpus().documents


def test_measured_prompts_are_distinct_and_none_warmed_the_server_up() -> None:
    texts = read_corpus().texts
    warm, measured = prompts(texts, 100, "cell-l")
    assert not set(measured) & set(prompts(texts, 100, "base-l")[1])
    assert len(set(measured)) == len(measured) == 100
    assert not set(warm) & set(measured)
