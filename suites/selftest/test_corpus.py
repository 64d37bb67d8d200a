"""The corpus that ships is what the claims say it is."""

from __future__ import annotations

import json
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from fixtures.tokenizer import tokenizer_files
from suites.corpus import FOLDER, STRATA, Document, read_corpus
from suites.corpus.compose import FILE, text
from suites.corpus.draw import pictures
from suites.measure import Asking

# Edited on purpose: put the new digest here, and say in CHANGELOG.md that figures moved.
DIGESTS = {
    "ci": "da70a7e12880eec0da9881aa7153aaef90167f16b2da26ae2b3acd935f79ce19",
    "full": "e4b24ef91746f683c120810ac9fe1d5fbbfa2b35b76ee5eaae4d02d1c5b6547e",
}
SIZES = tuple(DIGESTS)
CONTEXT = 960  # tokens of the miniature's 1024, so that an answer fits behind
TOKEN_SIDE = 28  # pixels that Qwen2.5-VL makes one token of
TEMPLATE = "<|im_start|>user\n<|vision_start|><|vision_end|><|im_end|>\n<|im_start|>assistant\n"
MINIATURE = Tokenizer.from_str(tokenizer_files()["tokenizer.json"])


def tokens(text: str) -> list[int]:
    """As the miniature has them: counted by a library that knows nothing of this suite."""
    return list(MINIATURE.encode(text).ids)


def positions(documents: tuple[Document, ...]) -> int:
    """Scored ones, without the first token; of a picture's question, what is asked alone."""
    return sum(len(tokens(document.text)) - 1 for document in documents)


@pytest.mark.parametrize(
    ("size", "documents", "each", "least", "most"),
    [("full", 200, 40, 20_000, 100_000), ("ci", 40, 8, 2_400, 3_000)],
)
def test_a_size_holds_as_much_as_it_promises(
    size: str, documents: int, each: int, least: int, most: int
) -> None:
    corpus = read_corpus(size)
    strata = Counter(document.stratum for document in corpus.documents)
    assert len(corpus.documents) >= documents
    assert set(strata) == set(STRATA)
    assert min(strata.values()) >= each  # fewer than 7 have no interval at 98 %
    assert least <= positions(corpus.documents) <= most


def test_the_full_size_is_as_much_to_a_tokenizer_of_words() -> None:
    written = "".join(document.text for document in read_corpus("full").documents)
    wide = sum(ord(letter) > 0x2E80 for letter in written)
    # A rule of thumb for Qwen's: four letters of English to a token, and one and a half of Chinese.
    assert (len(written) - wide) / 4 + wide / 1.5 >= 20_000


def test_the_small_size_is_a_part_of_the_full_one() -> None:
    full = {document.id: document for document in read_corpus("full").documents}
    small = read_corpus("ci").documents
    assert [full[document.id] for document in small] == list(small)
    assert len(set(full)) == len(read_corpus("full").documents)


def test_every_document_leaves_room_in_the_miniatures_context() -> None:
    for document in read_corpus("full").documents:
        used = len(tokens(document.text))
        if document.image is not None:
            height, width = read_pixels(document.image).shape[:2]
            assert height % TOKEN_SIDE == width % TOKEN_SIDE == 0
            used += height * width // TOKEN_SIDE**2 + len(tokens(TEMPLATE))
        assert used <= CONTEXT, document.id


@pytest.mark.parametrize("size", SIZES)
def test_both_sizes_begin_with_prose_short_enough_to_time_requests_with(size: str) -> None:
    first = read_corpus(size).texts[:12]
    assert {document.stratum for document in first} == {"text"}
    assert max(len(document.text) for document in first) < 400


def test_long_documents_are_longer_than_the_others_of_their_size() -> None:
    for size, least in (("ci", 150), ("full", 600)):
        lengths: dict[str, list[int]] = {}
        for document in read_corpus(size).texts:
            lengths.setdefault(document.stratum, []).append(len(tokens(document.text)))
        mean = {stratum: float(np.mean(found)) for stratum, found in lengths.items()}
        assert mean["long"] >= least
        assert mean["long"] > 2 * max(mean[stratum] for stratum in ("text", "code", "cjk"))


# ------------------------------------------------------------------ where it comes from


@pytest.mark.parametrize("size", SIZES)
def test_an_edit_is_noticed(size: Literal["ci", "full"]) -> None:
    assert read_corpus(size).digest == DIGESTS[size]


def test_the_generated_documents_are_what_the_dice_deal() -> None:
    assert FILE.read_text(encoding="utf-8") == text()


def test_every_picture_is_the_one_the_code_draws() -> None:
    listed = (FOLDER / "images.jsonl").read_text().splitlines()
    drawn = list(pictures())
    assert [json.loads(line) for line in listed] == [row for row, _ in drawn]
    for row, pixels in drawn:
        file = FOLDER / str(row["image"])
        assert np.array_equal(read_pixels(file.read_bytes()), pixels), file
    assert len(list((FOLDER / "images").iterdir())) == len(drawn)


def read_pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


# ------------------------------------------------------------------ how it is read


def test_reading_it_writes_nothing_that_a_kill_could_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_corpus("ci")  # what the first import of the library does is its own affair
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    assert read_corpus("full").documents
    assert not list(tmp_path.iterdir())


def test_the_platform_decides_the_size() -> None:
    assert read_corpus(platform="cpu").digest == DIGESTS["ci"]
    assert read_corpus(platform="cuda").digest == DIGESTS["full"]
    assert read_corpus("ci", platform="cuda").digest == DIGESTS["ci"]


@pytest.mark.parametrize("size", SIZES)
def test_measured_prompts_are_distinct_and_none_warmed_the_server_up(size: str) -> None:
    documents = read_corpus(size).documents
    for seen in (False, True):
        fit = tuple(one for one in documents if (one.image is not None) is seen)
        blocks = [Asking(fit, tag, warm=2, requests=100) for tag in ("cell-l", "base-l")]
        asked = [one for block in blocks for look in range(3) for one in block.measured(look)]
        asked += [one for block in blocks for one in block.warmup()]
        assert len({one.text for one in asked}) == 604
        assert len({one.image for one in asked}) == (604 if seen else 1)
        first, again = (blocks[0].measured(look) for look in (0, 1))
        tag = len("cell-l0000")
        assert [one.text[tag:] for one in first] == [one.text[tag:] for one in again]
