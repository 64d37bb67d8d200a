"""Other people's corpora: every way to give one, and every way to get it wrong."""

from __future__ import annotations

import importlib.abc
import json
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from fixtures.errors import InputError
from suites.corpus import FOLDER, MOST, Document, read_corpus
from suites.selftest.runs import run_pytest

ROWS: list[dict[str, Any]] = [
    {"text": "One bell, two bells, and a drum."},
    {"text": " "},
    {"text": "def drum():\n    return 2\n", "stratum": "code", "id": "drum"},
    {"text": "Drei Glocken: ö", "id": "7"},
]
EXPECTED = [("row-0001", "text"), ("drum", "code"), ("7", "text")]


def lines(rows: Sequence[object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def picture(format: str = "PNG") -> bytes:
    data = BytesIO()
    Image.fromarray(np.full((28, 56, 3), 120, dtype=np.uint8)).save(data, format=format)
    return data.getvalue()


def as_jsonl(folder: Path) -> Path:
    (folder / "bells.jsonl").write_text(lines(ROWS))
    return folder / "bells.jsonl"


def as_parquet(folder: Path) -> Path:
    columns = ("text", "stratum", "id")
    Dataset.from_list([{c: row.get(c) for c in columns} for row in ROWS]).to_parquet(
        folder / "bells.parquet"
    )
    return folder / "bells.parquet"


def as_folder(folder: Path) -> Path:
    (folder / "b.jsonl").write_text(lines(ROWS[2:]))
    (folder / "a.jsonl").write_text(lines(ROWS[:2]))
    return folder


@pytest.mark.parametrize("give", [as_jsonl, as_parquet, as_folder])
def test_rows_become_documents(give: Callable[[Path], Path], tmp_path: Path) -> None:
    corpus = read_corpus(give(tmp_path))
    assert [(document.id, document.stratum) for document in corpus.documents] == EXPECTED
    assert [document.text for document in corpus.documents] == [
        row["text"] for row in ROWS if row["text"].strip()
    ]


def test_all_ways_to_give_the_same_documents_have_one_digest(tmp_path: Path) -> None:
    digests = set()
    for give in (as_jsonl, as_parquet, as_folder):
        (folder := tmp_path / give.__name__).mkdir()
        digests.add(read_corpus(give(folder)).digest)
    assert len(digests) == 1


def test_paragraphs_of_a_plain_text_are_documents(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("One bell.\n\nTwo bells,\nand a drum.\n", encoding="utf-8")
    found = read_corpus(tmp_path / "notes.txt").documents
    assert [(document.id, document.text.strip()) for document in found] == [
        ("row-0001", "One bell."),
        ("row-0002", "Two bells,\nand a drum."),
    ]


def test_a_cached_dataset_is_read_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached = tmp_path / "someone___bells" / "default" / "0.0.0" / ("a" * 40)
    given = Dataset.from_json(str(as_jsonl(tmp_path)), cache_dir=str(tmp_path))
    made = Path(given.cache_files[0]["filename"])
    cached.parent.mkdir(parents=True)
    made.parent.rename(cached)
    (cached / made.name).rename(cached / "bells-train.arrow")
    found = read_corpus("someone/bells").documents
    assert [(document.id, document.stratum) for document in found] == EXPECTED
    with pytest.raises(InputError, match="someone/drums cannot be read as texts") as refusal:
        read_corpus("someone/drums")
    assert "\n" not in str(refusal.value)


def test_a_copy_of_ours_is_ours_until_one_letter_changes(tmp_path: Path) -> None:
    for file in FOLDER.glob("*.jsonl"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "images").symlink_to(FOLDER / "images")
    assert read_corpus(tmp_path).digest == read_corpus("full").digest
    changed = tmp_path / "documents.jsonl"
    changed.write_text(changed.read_text().replace("bridge", "Bridge", 1))
    assert read_corpus(tmp_path).digest != read_corpus("full").digest


# ------------------------------------------------------------------ pictures


def by_path(folder: Path) -> Path:
    (folder / "grey.png").write_bytes(picture())
    (folder / "seen.jsonl").write_text(lines([{"text": "What?", "image": "grey.png"}]))
    return folder / "seen.jsonl"


def by_content(folder: Path) -> Path:
    Dataset.from_list([{"text": "What?", "image": picture()}]).to_parquet(folder / "seen.parquet")
    return folder / "seen.parquet"


def by_feature(folder: Path) -> Path:
    grey = Image.open(BytesIO(picture()))
    Dataset.from_dict({"text": ["What?"], "image": [grey]}).to_parquet(folder / "seen.parquet")
    return folder / "seen.parquet"


@pytest.mark.parametrize("give", [by_path, by_content, by_feature])
def test_a_picture_is_given_by_path_or_content(
    give: Callable[[Path], Path], tmp_path: Path
) -> None:
    [document] = read_corpus(give(tmp_path)).documents
    assert document == Document("row-0001", "image", "What?", document.image)
    with Image.open(BytesIO(document.image or b"")) as shown:
        assert (shown.format, shown.size, shown.getpixel((0, 0))) == ("PNG", (56, 28), (120,) * 3)


def test_a_png_is_sent_as_it_is_and_others_as_one(tmp_path: Path) -> None:
    rows = [{"text": "What?", "image": name} for name in ("grey.png", "grey.jpg")]
    (tmp_path / "grey.png").write_bytes(picture())
    (tmp_path / "grey.jpg").write_bytes(picture("JPEG"))
    (tmp_path / "seen.jsonl").write_text(lines(rows))
    png, jpeg = read_corpus(tmp_path / "seen.jsonl").documents
    assert png.image == picture()
    assert jpeg.image is not None
    assert jpeg.image.startswith(b"\x89PNG")


# ------------------------------------------------------------------ what is left behind


def test_no_cache_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache := tmp_path / "cache").mkdir()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    assert read_corpus(as_jsonl(tmp_path)).documents
    assert read_corpus(as_parquet(tmp_path)).documents
    assert {path.suffix for path in cache.rglob("*") if path.is_file()} <= {".lock"}


class Refusing(importlib.abc.MetaPathFinder):
    """Whoever imports torch is told."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname.partition(".")[0] == "torch":
            raise AssertionError("torch is imported")


def test_torch_is_not_imported_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.TORCH_AVAILABLE", True)
    monkeypatch.setattr(sys, "meta_path", [Refusing(), *sys.meta_path])
    assert read_corpus(as_jsonl(tmp_path)).documents


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "holds no documents"),
        ([{"text": None}, {"text": " \n"}], "holds no documents"),
        ([{"body": "x", "id": 3}], "has body, id, expected a column called text. Rename one"),
        ([{"text": 4}], "row 1 has 4 as text"),
        (
            [{"text": "a b", "id": 1}, {"text": "c", "id": 1}],
            "row 2 is called '1', as a row before",
        ),
        ([{"text": "a", "id": [3]}], r"row 1 has \[3\] as id, expected a name"),
        ([{"text": "a", "stratum": "txet"}], "of stratum 'txet', .* Did you mean text"),
        ([{"text": "a", "stratum": "CJK"}], "of stratum 'CJK', .* Did you mean cjk"),
        ([{"text": "a", "stratum": "qqq"}], "expected one of text, code, cjk, long, image.$"),
        ([{"text": "a", "stratum": "image"}], "of stratum image and has no picture"),
        ([{"text": "a", "image": "x.png", "stratum": "text"}], "stratum text and has a picture"),
        ([{"text": "a", "image": "x.png"}], "the picture 'x.png' cannot be read from"),
        ([{"text": "a", "image": "a\0b"}], "cannot be read from"),
        ([{"text": "a", "image": "broken.png"}], "'broken.png' is not readable as one"),
        ([{"text": "a", "image": "cut.png"}], "'cut.png' is not readable as one"),
        ([{"text": "a", "image": 4}], "its picture is 4, expected a path"),
        ([{"text": None, "image": "x.png"}], "row 1 has a picture and no text"),
        ([{"text": "a"}] * (MOST + 1), f"holds more than {MOST} documents"),
    ],
)
def test_an_unusable_file_is_one_clear_line(
    rows: list[object], expected: str, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    (tmp_path / "cut.png").write_bytes(picture()[:60])
    (tmp_path / "given.jsonl").write_text(lines(rows))
    with pytest.raises(InputError, match=expected) as refusal:
        read_corpus(tmp_path / "given.jsonl")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, r"holds no \*\.jsonl"),
        ("", "holds no documents"),
        ("{}\n", "line 1 has no column, expected a column called text"),
        ('{"text": "a"}\n{"body": "b"}\n', "line 2 has body, expected a column called text"),
        ('{"text": "a"}\n{"text": \n', "line 2 is .* expected a JSON object"),
        ("[1]\n", "line 1 is '\\[1\\]', expected a JSON object"),
        ('{"text": "a"}\n{"text": ["b"]}\n', "cannot be read as one table"),
        ('{"text": "\\ud800"}\n', "cannot be read as one table"),
        ('{"text": "a", "stratum": "texts"}\n', "given.jsonl, line 1 is .* Did you mean text"),
    ],
)
def test_an_unusable_folder_is_one_clear_line(
    content: str | None, expected: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "given.jsonl").write_text(content)
    with pytest.raises(InputError, match=expected) as refusal:
        read_corpus(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "--corpus is empty"),
        ("absent.jsonl", "absent.jsonl does not exist"),
        ("/absent/corpus", "/absent/corpus does not exist"),
        ("conftest.py", "conftest.py is not a file of texts"),
    ],
)
def test_a_name_that_is_nothing_is_not_looked_for_elsewhere(name: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        read_corpus(name)


def test_a_list_that_cannot_be_read_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "given.jsonl").mkdir()
    with pytest.raises(InputError, match=r"given\.jsonl cannot be read \(Is a directory\)"):
        read_corpus(tmp_path)


@pytest.mark.parametrize(
    ("corpus", "words"), [("nowhere.jsonl", "nowhere.jsonl"), ("", "--corpus is empty")]
)
def test_a_corpus_that_is_none_is_a_usage_error(cache: Path, corpus: str, words: str) -> None:
    done = run_pytest(cache, f"--corpus={corpus}", "--platform=cpu", "-m", "plan and tp1")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert words in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
