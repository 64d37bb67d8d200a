import io
import json
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file

from fixtures.checkpoint.moves import Move, move
from fixtures.checkpoint.tensors import checkpoint_digest, read_checkpoint
from fixtures.display import Display
from fixtures.errors import InputError, ProofError
from fixtures.variants import Variant, build_padded, build_trimmed, main, verify
from suites.selftest import oracles
from suites.selftest.tiny import Arrays, Tiny, arrays_in, flip

DOWN = "model.layers.1.mlp.down_proj"
MLP = ("gate_proj", "up_proj", "down_proj")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Tiny().write(tmp_path / "source")


@pytest.fixture
def padded(source: Path) -> Path:
    return build_padded(source, source.with_name("padded"), to=128).directory


def leftovers(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("quant", ["awq", "none"])
@pytest.mark.parametrize("shape", [{}, {"nested": True, "bias": True, "shards": 3}])
def test_a_padded_checkpoint_computes_exactly_the_same(
    tmp_path: Path, quant: str, shape: dict[str, Any]
) -> None:
    tiny = Tiny(quant=quant, hidden=32, intermediate=48, group=16, layers=1, **shape)
    source = tiny.write(tmp_path / "source")
    variant = build_padded(source, tmp_path / "padded", to=64)
    before, after = arrays_in(source), arrays_in(variant.directory)
    mlp = "model.language_model.layers.0.mlp" if tiny.nested else "model.layers.0.mlp"
    x = np.random.default_rng(1).normal(size=32).tolist()
    answers = [
        oracles.mlp(x, *(oracles.weights(arrays, f"{mlp}.{role}", 16) for role in MLP))
        for arrays in (before, after)
    ]
    assert answers[0] == answers[1]
    assert read_checkpoint(variant.directory).config.intermediate_size == 64
    verify(variant.directory)


def test_only_the_text_mlp_changes(tmp_path: Path) -> None:
    source = Tiny(nested=True, bias=True).write(tmp_path / "source")
    variant = build_padded(source, tmp_path / "padded", to=128)
    before, after = arrays_in(source), arrays_in(variant.directory)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name].shape != after[name].shape}
    assert sorted(changed) == sorted(variant.manifest["tensors_changed"])  # type: ignore[call-overload]
    assert all(".language_model.layers." in name and ".mlp." in name for name in changed)
    assert all(np.array_equal(before[name], after[name]) for name in before.keys() - changed)


def test_files_that_need_no_change_are_the_source_s_own(tmp_path: Path) -> None:
    source = Tiny(shards=3).write(tmp_path / "source")
    (source / "pytorch_model.bin").write_text("stale")
    (source / "templates").mkdir()
    (source / "templates" / "chat.jinja").write_text("x")
    before = checkpoint_digest(source)
    out = build_padded(source, tmp_path / "padded", to=128).directory
    shards = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
    same = {name: (out / name).samefile(source / name) for name in [*shards, "tokenizer.json"]}
    assert same == {shards[0]: True, shards[1]: False, shards[2]: False, "tokenizer.json": True}
    assert (out / "templates" / "chat.jinja").samefile(source / "templates" / "chat.jinja")
    assert not (out / "pytorch_model.bin").exists()
    assert checkpoint_digest(source) == before


def test_the_index_agrees_with_the_shards(tmp_path: Path) -> None:
    source = Tiny(shards=3).write(tmp_path / "source")
    out = build_padded(source, tmp_path / "padded", to=128).directory
    index = json.loads((out / "model.safetensors.index.json").read_text())
    arrays = arrays_in(out)
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in arrays.values())
    assert index["weight_map"].keys() == arrays.keys()


def test_the_config_changes_in_its_width_only(source: Path, padded: Path) -> None:
    before = (source / "config.json").read_text().splitlines()
    after = (padded / "config.json").read_text().splitlines()
    assert [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]] == [
        ('  "intermediate_size": 96,', '  "intermediate_size": 128,')
    ]


@pytest.mark.parametrize("quant", ["awq", "none"])
def test_trimming_drops_the_least_important_groups(tmp_path: Path, quant: str) -> None:
    tiny = Tiny(quant=quant)
    source = tiny.write(tmp_path / "source")
    variant = build_trimmed(source, tmp_path / "trimmed", to=64)
    before, after = arrays_in(source), arrays_in(variant.directory)
    for mlp, kept in variant.manifest["kept_groups"].items():  # type: ignore[attr-defined]
        gate, up, down = (np.array(oracles.weights(before, f"{mlp}.{role}", 32)) for role in MLP)
        norms = [np.linalg.norm(gate, axis=0), np.linalg.norm(up, axis=0)]
        scores = (norms[0] * norms[1] * np.linalg.norm(down, axis=1)).reshape(3, 32).sum(axis=1)
        assert kept == sorted(set(range(3)) - {int(scores.argmin())})
        rows = [32 * group + channel for group in kept for channel in range(32)]
        found = np.array(oracles.weights(after, f"{mlp}.down_proj", 32))
        assert np.array_equal(found, down[rows])
    verify(variant.directory)


def test_layers_may_lose_different_groups(tmp_path: Path) -> None:
    tiny = Tiny()
    source = tiny.write(tmp_path / "source")
    arrays = load_file(source / "model.safetensors")
    for layer, group in ((0, 2), (1, 0)):
        arrays[f"model.layers.{layer}.mlp.down_proj.scales"][group] = 0.001
    save_file(arrays, source / "model.safetensors", {"format": "pt"})
    variant = build_trimmed(source, tmp_path / "trimmed", to=64)
    assert variant.manifest["kept_groups"] == {
        "model.layers.0.mlp": [0, 1], "model.layers.1.mlp": [1, 2],
    }  # fmt: skip


def test_a_wrong_builder_is_caught_before_anything_has_a_name(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(info: Any, *configs: Any) -> Move | None:
        made = move(info, *configs)
        if made is not None and info.name.endswith("up_proj.qweight"):
            made.fill[:] = 0x11111111
        return made

    monkeypatch.setattr("fixtures.resized.move", wrong)
    with pytest.raises(ProofError, match=r"0\.mlp\.up_proj: added output channel 96 dequantizes"):
        build_padded(source, source.with_name("padded"), to=128)
    assert leftovers(source.parent) == ["source"]


def test_an_intact_variant_is_reused_and_says_so(source: Path) -> None:
    out = source.with_name("padded")
    first = build_padded(source, out, to=128)
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    second = build_padded(source, out, to=128)
    assert (first.reused, second.reused) == (False, True)
    assert second == Variant("padded", out, first.manifest, reused=True)
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda _, out: out.mkdir(), "padded already exists .*no variant.json"),
        (lambda _, out: out.write_text(""), "padded already exists"),
        (lambda source, out: build_padded(source, out, to=160), "a variant padded to 160"),
        (lambda source, out: build_trimmed(source, out, to=64), "a variant trimmed to 64"),
        (
            lambda source, out: flip(
                build_padded(source, out, to=128).directory / "tokenizer.json", 0
            ),
            r"changed since it was proven \(tokenizer.json\)",
        ),
        (
            lambda source, out: flip(
                build_padded(source, out, to=128).directory.with_name("source") / "tokenizer.json",
                0,
            ),
            "was made of .* when its content was another",
        ),
    ],
)
def test_anything_else_that_is_there_is_refused(
    source: Path, prepare: Callable[[Path, Path], object], words: str
) -> None:
    out = source.with_name("padded")
    prepare(source, out)
    with pytest.raises(InputError, match=words):
        build_padded(source, out, to=128)
    assert out.exists()


@pytest.mark.parametrize("out", [".", "inside", "..", "../../away/padded"])
def test_the_target_must_lie_beside_the_source(source: Path, out: str) -> None:
    with pytest.raises(
        InputError, match=r"is .*source or lies on its path|away is not a directory"
    ):
        build_padded(source, source / out, to=128)
    assert leftovers(source.parent) == ["source"]


def rewrite(source: Path, change: Callable[[Arrays], None]) -> None:
    arrays = load_file(source / "model.safetensors")
    change(arrays)
    save_file(arrays, source / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop(f"{DOWN}.qzeros"), rf"{DOWN}.qzeros is missing, expected it"),
        (lambda a: a.update({"model.layers.0.mlp.experts": np.zeros(1)}), "tensor .*experts"),
        (
            lambda a: a.update({f"{DOWN}.scales": a[f"{DOWN}.scales"][:2]}),
            r"scales is \[2, 64\] .* promises \[3, 64\]",
        ),
        (
            lambda a: a.update({f"{DOWN}.scales": a[f"{DOWN}.scales"].astype(np.float64)}),
            "is F64, expected F16 or BF16 or F32",
        ),
    ],
)
def test_a_source_that_does_not_agree_with_itself_is_refused(
    source: Path, change: Callable[[Arrays], None], words: str
) -> None:
    rewrite(source, change)
    with pytest.raises(InputError, match=words):
        build_padded(source, source.with_name("padded"), to=128)
    assert leftovers(source.parent) == ["source"]


def test_groups_that_cannot_be_ranked_are_refused(source: Path) -> None:
    rewrite(source, lambda arrays: arrays[f"{DOWN}.scales"].fill(np.inf))
    with pytest.raises(InputError, match=rf"{DOWN} .* not finite"):
        build_trimmed(source, source.with_name("trimmed"), to=64)


def test_too_little_space_is_said_before_writing(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(InputError, match=r"0\.0 GB free, expected"):
        build_padded(source, source.with_name("padded"), to=128)
    assert leftovers(source.parent) == ["source"]


@pytest.mark.parametrize("stage", ["source digests", "writing", "proof"])
def test_an_interrupt_leaves_nothing(source: Path, stage: str) -> None:
    def interrupt(now: str, _done: int, _total: int) -> None:
        if now == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_padded(source, source.with_name("padded"), to=128, progress=interrupt)
    assert leftovers(source.parent) == ["source"]


KILLED = """
import sys, time, pathlib
from fixtures.variants import build_padded

def stop(stage, done, total):
    if stage == sys.argv[2]:
        print("here", flush=True)
        time.sleep(600)

source = pathlib.Path(sys.argv[1])
build_padded(source, source.with_name("padded"), to=128, progress=stop)
"""


@pytest.mark.parametrize("stage", ["writing", "proof"])
def test_a_kill_leaves_nothing_and_the_source_as_it_was(source: Path, stage: str) -> None:
    before = checkpoint_digest(source)
    victim = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), stage],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"here\n"
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    ends = time.monotonic() + 10
    while leftovers(source.parent) != ["source"] and time.monotonic() < ends:
        time.sleep(0.01)
    assert leftovers(source.parent) == ["source"]
    assert checkpoint_digest(source) == before


@pytest.mark.parametrize("quant", ["awq", "none"])
def test_memory_stays_near_the_largest_tensor(
    tmp_path: Path, quant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Tiny(quant=quant, hidden=512, intermediate=1536, layers=3).write(tmp_path / "source")
    largest = max(info.nbytes for info in read_checkpoint(source).tensors.values())
    monkeypatch.setattr("fixtures.checkpoint.weights.BLOCK_BYTES", largest // 8)
    tracemalloc.start()
    try:
        build_padded(source, tmp_path / "padded", to=2048)
        build_trimmed(source, tmp_path / "trimmed", to=1024)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The padded copy (4/3) of one tensor, plus blocks and whatever chunks digests read.
    assert peak < 2 * largest + 2**23


def test_the_command_pads_trims_verifies_and_reuses(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pad", str(source), "--for-tp", "1,2", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    out = source.with_name("source-padded-128")
    assert (result["directory"], result["kind"], result["reused"]) == (str(out), "padded", False)
    assert main(["pad", str(source), "--to", "128"]) == 0
    assert capsys.readouterr().out == f"{out}: padded, reused, intact\n"
    assert main(["trim", str(source), "--out", str(source.with_name("t"))]) == 0
    assert main(["verify", str(source.with_name("t")), "--json"]) == 0
    assert read_checkpoint(source.with_name("t")).config.intermediate_size == 64


def test_bad_input_is_exit_2_and_a_failed_proof_1(
    source: Path, padded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pad", str(source), "--to", "100"]) == 2
    assert "cannot be padded to 100" in capsys.readouterr().err
    assert main(["pad", str(source.with_name("nowhere"))]) == 2
    assert main(["pad", str(padded), "--for-tp", "2"]) == 2
    assert "groups already" in capsys.readouterr().err
    flip(padded / "model.safetensors", -1)
    assert main(["verify", str(padded)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1


def test_what_no_width_repairs_is_refused_with_the_layer(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pad", str(source), "--for-tp", "4"]) == 2
    said = capsys.readouterr().err
    assert "with intermediate_size 128 still model.layers.*.self_attn.o_proj cuts 64" in said
    assert leftovers(source.parent) == ["source"]


@pytest.mark.parametrize(
    "argv",
    [["pad"], ["pad", "x", "--for-tp", "0"], ["pad", "x", "--for-tp", "9999"], ["grow", "x"]],
)
def test_a_wrong_command_line_is_exit_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(argv)
    assert left.value.code == 2


def lines_after(seconds: float, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a log shows of work that has done half of 2 MB when `seconds` have passed."""
    clock = iter([0.0, 0.0, seconds])
    monkeypatch.setattr("fixtures.display.monotonic", lambda: next(clock))
    stream = io.StringIO()
    with Display(Console(file=stream, width=100)) as progress:
        progress("writing", 0, 2_000_000)
        progress("writing", 1_000_000, 2_000_000)
    return stream.getvalue()


def test_long_work_tells_a_log_its_speed_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = "writing: 1.0 MB of 2.0 MB, 200.0 kB/s, 5 s left\n"
    assert lines_after(5.0, monkeypatch) == expected


def test_short_work_leaves_no_line_in_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines_after(1.9, monkeypatch) == ""


def test_a_trim_for_a_size_it_cannot_serve_at_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Tiny(hidden=32).write(tmp_path / "source")
    assert main(["trim", str(source), "--for-tp", "2"]) == 2
    said = capsys.readouterr().err
    assert "no trimming makes it serve at tp 2: with intermediate_size 64 still" in said
    assert "--to trims all the same" in said
    assert main(["trim", str(source), "--for-tp", "1"]) == 2
    assert "serves at tp 1" in capsys.readouterr().err
    assert leftovers(tmp_path) == ["source"]
