"""The requantized road without AutoAWQ: what is asked of it, what is kept, and what is refused."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from fixtures import requantize, requantized
from fixtures.autoawq import MAX_SEQUENCE
from fixtures.checkpoint.config import parse_config
from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.errors import InputError
from fixtures.ledger import LEDGER, intact, seal
from fixtures.miniature import Recipe, config_json
from fixtures.requantize import calibration_texts, flattened
from fixtures.requantized import home, located
from fixtures.tokenizer import tokenizer_files
from suites.corpus import read_corpus

# Stands for an interpreter that has AutoAWQ: `-P SCRIPT SOURCE OUT --texts FILE`.
QUANTIZER = """#!{python}
import json, pathlib, shutil, sys
source, out, texts = (pathlib.Path(sys.argv[at]) for at in (3, 4, 6))
assert all(json.loads(texts.read_text()))
for file in source.glob("*.safetensors"):
    shutil.copyfile(file, out / file.name)
shutil.copyfile(source / "config.json", out / "config.json")
(out / "vocab.json").write_text("another spelling")
(out / "quantizer.json").write_text('{{"autoawq": "0"}}')
{last}
"""


@pytest.fixture
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and where the two checkpoints belong in it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return home()


def quantizer(tmp_path: Path, last: str = "") -> str:
    file = tmp_path / "python"
    file.write_text(QUANTIZER.format(python=sys.executable, last=last))
    file.chmod(0o755)
    return str(file)


# ------------------------------------------------------------------ where they lie


def small(directory: Path) -> Path:
    directory.mkdir(parents=True)
    (directory / "config.json").write_text("{}")
    seal(directory)
    return directory


@pytest.mark.parametrize("checkpoint", ["/models/requantize:original", "miniature:awq", "mini"])
def test_what_is_not_of_this_road_is_itself(checkpoint: str) -> None:
    assert located(checkpoint) == checkpoint


def test_a_name_stands_for_its_directory(at_home: Path) -> None:
    directory = small(at_home / "original")
    assert located("requantize:original") == str(directory)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="requantize:original, requantize:requantized"):
        located("requantize:padded")


@pytest.mark.usefixtures("at_home")
def test_what_is_not_built_names_the_command() -> None:
    with pytest.raises(InputError, match=r"not built yet.*`tox -e requantize`"):
        located("requantize:requantized")


def test_what_was_changed_is_refused_and_left_alone(at_home: Path) -> None:
    file = small(at_home / "original") / "config.json"
    file.write_text("{ }")
    with pytest.raises(InputError, match="does not match its digests"):
        located("requantize:original")
    assert file.read_text() == "{ }"


@pytest.mark.parametrize("source", requantized.SOURCES)
def test_another_way_to_make_them_has_another_home(
    source: str, at_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kept in requantized.SOURCES:
        file = tmp_path / "root" / kept
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((requantized.ROOT / kept).read_bytes() + b"\n" * (kept == source))
    monkeypatch.setattr(requantized, "ROOT", tmp_path / "root")
    assert home() != at_home
    assert home().parent == at_home.parent


# ------------------------------------------------------------------ the ledger


def written(directory: Path) -> None:
    (directory / "config.json").write_text("[]")


def added(directory: Path) -> None:
    (directory / "more.json").write_text("{}")


def lost(directory: Path) -> None:
    (directory / "config.json").unlink()


def unsealed(directory: Path) -> None:
    (directory / LEDGER).unlink()


@pytest.mark.parametrize("change", [written, added, lost, unsealed])
def test_a_sealed_directory_tells_of_every_change(change: object, tmp_path: Path) -> None:
    assert callable(change)
    directory = small(tmp_path / "sealed")
    assert intact(directory)
    change(directory)
    assert not intact(directory)


# ------------------------------------------------------------------ what AutoAWQ is given


def test_the_older_spelling_is_the_same_model() -> None:
    config = config_json(Recipe(quant="none"))
    flat = flattened(config)
    assert "text_config" not in flat
    assert flat["intermediate_size"] == 896
    assert (flat["rope_theta"], flat["torch_dtype"]) == (1_000_000.0, "bfloat16")
    assert flat["rope_scaling"] == {"mrope_section": [8, 12, 12], "type": "mrope"}
    found = parse_config(flat, source="flat")
    assert replace(found, text_key="text_config") == parse_config(config, source="nested")


def test_no_calibration_text_is_one_that_autoawq_drops() -> None:
    tokenizer = Tokenizer.from_str(tokenizer_files()["tokenizer.json"])
    lengths = [len(tokenizer.encode(text).ids) for text in calibration_texts()]
    assert 0 < min(lengths) <= max(lengths) <= MAX_SEQUENCE
    assert sum(lengths) >= MAX_SEQUENCE


def test_calibration_is_apart_from_what_is_judged() -> None:
    judged = "\n".join(document.text for document in read_corpus("full").documents)
    assert not any(text[:64] in judged for text in calibration_texts())


# ------------------------------------------------------------------ what is made of its answer


def test_both_are_built_once_with_the_sources_own_tokenizer(
    at_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = quantizer(tmp_path)
    assert requantize.main(["--python", python]) == 0
    assert capsys.readouterr().out.split() == [str(at_home / name) for name in requantized.NAMES]
    found = {name: read_checkpoint(at_home / name) for name in requantized.NAMES}
    widths = {name: one.config.intermediate_size for name, one in found.items()}
    assert widths == {"unquantized": 896, "original": 896, "requantized": 1024}
    for one in found.values():
        assert intact(one.directory)
        assert (one.directory / "vocab.json").read_text() == tokenizer_files()["vocab.json"]
        assert not (one.directory / "variant.json").exists()
    provenance = json.loads((at_home / "original" / "quantized.json").read_bytes())
    assert provenance["quantizer"] == {"autoawq": "0"}
    assert requantize.main(["--python", "none"]) == 0
    assert capsys.readouterr().err.count("there already, intact") == 3


def test_a_quantizer_that_fails_is_quoted_and_leaves_nothing(
    at_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    python = quantizer(tmp_path, last="sys.exit('no module named awq')")
    assert requantize.main(["--python", python]) == 1
    said = capsys.readouterr().err
    assert "no module named awq" in said
    assert "`tox -e requantize`" in said
    assert [path.name for path in at_home.iterdir()] == ["unquantized"]


@pytest.mark.usefixtures("at_home")
def test_a_directory_that_is_not_ours_is_neither_taken_nor_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "models" / "original" / "config.json"
    mine.parent.mkdir(parents=True)
    mine.write_text(json.dumps({"mine": True}))
    assert requantize.main(["--out", str(tmp_path / "models"), "--python", "none"]) == 2
    assert "does not match its digests" in capsys.readouterr().err
    assert json.loads(mine.read_text()) == {"mine": True}
