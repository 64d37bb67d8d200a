"""The float32 reference up to the process that runs the model: torch is not needed.

`suites/oracles/test_independent.py` holds that process against whole models.
"""

import importlib.util
import math
from pathlib import Path

import pytest

from fixtures import independent, layer_process
from fixtures.errors import InputError, UnsupportedError
from fixtures.independent import TokenizedDocument, main, score, summary
from fixtures.serving.client import Position, Scored
from suites.selftest.tiny import Tiny

STUB = """
import json, sys
from multiprocessing.connection import Connection

connection = Connection(int(sys.argv[1]))
request = json.loads(connection.recv_bytes())
connection.send_bytes(json.dumps({"tower": {}, "layers": [], "norm": {}}).encode())
connection.recv_bytes()
connection.send_bytes(json.dumps({"refused": "cannot be shown a picture. Convert it."}).encode())
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Tiny().write(tmp_path / "source")


@pytest.fixture
def _stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setattr(independent, "SCRIPT", tmp_path / "stub.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)


def test_without_torch_the_environment_that_has_it_is_named(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else name)
    assert layer_process.NEEDS == ("torch", "transformers")
    assert main([str(source), "--text", "Nine."]) == 2
    said = capsys.readouterr().err
    assert "torch is not installed for" in said
    assert "`.tox/cpu/bin/python -m fixtures.independent DIR --text ...`" in said


def test_a_family_that_was_not_held_against_a_whole_model_is_refused(source: Path) -> None:
    config = (source / "config.json").read_text()
    (source / "config.json").write_text(config.replace("Qwen2ForCausalLM", "Glm4ForCausalLM"))
    said = "is a Glm4ForCausalLM, expected one of LlamaForCausalLM"
    with pytest.raises(UnsupportedError, match=said):
        score(source, [TokenizedDocument("text", (1, 2))])


@pytest.mark.usefixtures("_stub")
@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (TokenizedDocument("d", ()), "d has no tokens, expected at least one"),
        (TokenizedDocument("d", (1, 1 << 30)), "d has token 1073741824, expected 0 to "),
        (TokenizedDocument("d", (1, -1)), "d has token -1, expected 0 to "),
        (TokenizedDocument("d", (1, 2), b"PNG"), "d has a picture, and .* is a Qwen2ForCausalLM"),
        # The process has refused, and gone, while it is still being fed.
        (TokenizedDocument("d", (1, 2)), r"source cannot be shown a picture\. Convert it\."),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(
    document: TokenizedDocument, expected: str, source: Path
) -> None:
    with pytest.raises(InputError, match=expected) as refusal:
        score(source, [document])
    assert isinstance(refusal.value, UnsupportedError) is (document.image is not None)


@pytest.mark.usefixtures("_stub")
def test_a_process_that_died_is_not_taken_for_a_model_that_is_not_supported(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "stub.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    with pytest.raises(InputError, match="ended with exit code -9") as refusal:
        score(source, [TokenizedDocument("d", (1, 2))])
    assert not isinstance(refusal.value, UnsupportedError)


@pytest.mark.usefixtures("_stub")
def test_a_document_of_one_token_has_no_position(source: Path) -> None:
    assert score(source, [TokenizedDocument("d", (7,))]) == {"d": Scored((7,), ())}


def test_a_summary_is_of_the_positions() -> None:
    positions = tuple(
        Position(index, 5, math.log(p), rank, {5: math.log(p)})
        for index, (p, rank) in enumerate([(0.5, 1), (0.125, 3)], start=1)
    )
    found = summary(Scored((4, 5, 5), positions))
    assert found.pop("mean_logprob") == pytest.approx(math.log(0.25))
    assert found.pop("perplexity") == pytest.approx(4)
    assert found == {"tokens": 3, "positions": 2, "expected": 0.5}
    assert summary(Scored((4,), ())) == {"tokens": 1, "positions": 0}
