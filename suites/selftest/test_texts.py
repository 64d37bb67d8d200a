import json
from pathlib import Path

import pytest
from datasets import Dataset

from fixtures.errors import InputError
from fixtures.texts import Texts, read_texts

TEXTS = ("One bell.", "Two bells,\nand a drum.", "Drei Glocken: ö")


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".parquet"])
def test_a_file_of_each_kind_gives_its_texts(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"notes{suffix}"
    rows = [{"text": text} for text in ("", *TEXTS, " \n")]
    if suffix == ".txt":
        file.write_text("\n\n".join(row["text"] for row in rows), encoding="utf-8")
    elif suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        Dataset.from_list(rows).to_parquet(file)
    assert read_texts(str(file)).texts == TEXTS


def test_a_cached_dataset_is_read_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached = tmp_path / "someone___talks" / "default" / "0.0.0" / ("a" * 40)
    file = tmp_path / "talks.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf-8")
    made = Path(Dataset.from_json(str(file), cache_dir=str(tmp_path)).cache_files[0]["filename"])
    cached.parent.mkdir(parents=True)
    made.parent.rename(cached)
    (cached / made.name).rename(cached / "talks-train.arrow")
    assert read_texts("someone/talks").texts == TEXTS
    with pytest.raises(InputError, match="someone/songs cannot be read as texts"):
        read_texts("someone/songs")


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text('{"text": "abc"}\n' * 5 + '{"text": 4}\n')
    assert read_texts(str(file), characters=7).texts == ("abc", "abc", "a")


def test_a_digest_names_the_texts_and_where_each_ends() -> None:
    digests = {
        Texts("", texts).digest for texts in (("ab", "c"), ("a", "bc"), ("c", "ab"), ("abc",))
    }
    assert len(digests) == 4
    assert Texts("x", TEXTS).digest == Texts("y", TEXTS).digest


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.txt", "", "holds no texts"),
        ("blank.txt", "\n\n \n", "holds no texts"),
        ("empty.jsonl", "", "holds no texts"),
        ("none.jsonl", '{"text": null}\n', "holds no texts"),
        ("other.jsonl", '{"body": "x", "id": 3}\n', "has body, id, expected a column called text"),
        ("number.jsonl", '{"text": 4}\n', "has 4 as text"),
        ("broken.jsonl", '{"text": ', "cannot be read as texts"),
        ("broken.parquet", "no", "cannot be read as texts"),
        ("notes.doc", "text", "is not a file of texts"),
    ],
)
def test_what_holds_no_texts_is_one_clear_line(
    name: str, content: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=expected) as refusal:
        read_texts(str(tmp_path / name))
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_missing_is_not_taken_for_a_dataset() -> None:
    with pytest.raises(InputError, match=r"notes\.txt does not exist"):
        read_texts("notes.txt")
