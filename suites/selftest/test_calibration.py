"""Calibration up to the process that runs the model, which is a stub here: torch is not needed.

The stub says that what went into `down_proj` was its weight, so that its answer can be told.
`suites/oracles/test_calibration.py` holds the real one against whole models.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from fixtures import layer_runner
from fixtures.calibration import collect, statistics
from fixtures.checkpoint.tensors import read_checkpoint
from fixtures.errors import InputError
from fixtures.work import Work
from suites.selftest import oracles
from suites.selftest.tiny import Tiny, arrays_in

STUB = """
import json, sys
import numpy as np
from multiprocessing.connection import Connection

connection = Connection(int(sys.argv[1]))
request = json.loads(connection.recv_bytes())
what = request["texts"][0]

def receive(*shape):
    array = np.empty(shape, np.float32)
    view, first = array.data.cast("B"), 0
    while first < len(view):
        first += connection.recv_bytes_into(view, first)
    return array

def answer(**facts):
    connection.send_bytes(json.dumps(facts).encode())

if what == "refuse":
    answer(refused="has no tokenizer, expected one. Copy it.")
if what == "die":
    sys.exit("out of luck")
names = {"mlp.down_proj.weight": [64, 96], "input_layernorm.weight": [64]}
answer(used=[1, 5], shapes=[names] * 2, tokens=64, held=0)
table = receive(2, 64)
if what == "die later":
    sys.exit("out of memory")
for layer in range(2):
    down, norm = receive(64, 96), receive(64)
    squares = np.square(down, dtype=np.float64).sum(axis=0)
    squares[7] = np.nan if what == "nan" else squares[7]
    connection.send_bytes(squares.tobytes())
    for _ in range(2 * request["products"]):
        connection.send_bytes(bytes(8 * 96 * 96))
"""


@pytest.fixture
def _stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setattr(layer_runner, "SCRIPT", tmp_path / "stub.py")
    monkeypatch.setattr(layer_runner, "NEEDS", ())


@pytest.mark.usefixtures("_stub")
@pytest.mark.parametrize("quant", ["awq", "none"])
def test_each_layer_is_fed_the_weights_the_checkpoint_stands_for(
    quant: str, tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(Tiny(quant=quant, nested=True).write(tmp_path / "source"))
    stages: list[tuple[str, int, int]] = []
    found = collect(checkpoint, ["text"], work=Work(lambda *now: stages.append(now)))
    for layer in range(2):
        mlp = f"model.language_model.layers.{layer}.mlp"
        weights = oracles.weights(arrays_in(tmp_path / "source"), f"{mlp}.down_proj", 32)
        expected = np.square(np.array(weights)).mean(axis=1)
        np.testing.assert_allclose(found.pop(mlp).mean_square, expected, rtol=1e-6)
    assert not found
    assert stages[-1][0] == "calibration"
    assert stages[-1][1] == stages[-1][2]


@pytest.mark.usefixtures("_stub")
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("refuse", r"source has no tokenizer, expected one\. Copy it\."),
        ("die", r"ended with exit code 1 \(out of luck\)"),
        ("die later", r"ended with exit code 1 \(out of memory\)"),
        ("nan", r"what goes into model\.layers\.0\.mlp\.down_proj is not finite"),
    ],
)
def test_what_goes_wrong_in_the_process_is_one_line(
    what: str, expected: str, tmp_path: Path
) -> None:
    checkpoint = read_checkpoint(Tiny(hidden=64).write(tmp_path / "source"))
    with pytest.raises(InputError, match=expected):
        collect(checkpoint, [what], work=Work())


@pytest.mark.usefixtures("_stub")
def test_too_few_texts_to_hold_one_out_are_refused(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(Tiny().write(tmp_path / "source"))
    with pytest.raises(InputError, match="expected a fourth to judge a refit by"):
        list(statistics(checkpoint, ["text"], work=Work(), moments=True))


def test_without_torch_the_environment_that_has_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else spec(name)
    )
    monkeypatch.setattr(layer_runner, "NEEDS", ("torch", "numpy"))
    checkpoint = read_checkpoint(Tiny().write(tmp_path / "source"))
    with pytest.raises(InputError, match=r"torch is not installed for .*`tox -e cpu --notest`"):
        collect(checkpoint, ["text"], work=Work())


def test_a_family_that_was_not_held_against_a_whole_model_is_refused(tmp_path: Path) -> None:
    source = Tiny().write(tmp_path / "source")
    config = (source / "config.json").read_text()
    (source / "config.json").write_text(config.replace("Qwen2ForCausalLM", "Glm4ForCausalLM"))
    with pytest.raises(InputError, match="is a Glm4ForCausalLM, expected one of LlamaForCausalLM"):
        collect(read_checkpoint(source), ["text"], work=Work())


def test_a_layer_without_its_mlp_is_named(tmp_path: Path) -> None:
    source = Tiny(layers=1).write(tmp_path / "source")
    config = (source / "config.json").read_text()
    (source / "config.json").write_text(config.replace('_layers": 1', '_layers": 2'))
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.down_proj is missing"):
        collect(read_checkpoint(source), ["text"], work=Work())
