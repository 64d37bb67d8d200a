"""The planner's output: a table a person can act on, a document a program can."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures import planner
from suites.selftest.configs import GEMMA_4B, QWEN2_VL_72B, Config, quantized
from suites.selftest.runs import ROOT
from suites.selftest.tiny import Tiny


def written(tmp_path: Path, config: Config, name: str = "model") -> Path:
    directory = tmp_path / name
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    return directory


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return written(tmp_path, quantized(QWEN2_VL_72B, "awq"), "72b")


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_table_says_what_binds_and_what_to_do(
    large: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planner.main([str(large)]) == 1
    shown = capsys.readouterr().out
    assert "cuts 29568 features into 3696 per rank, not a multiple of group size 128" in shown
    assert f"python -m fixtures.variants pad {large} --out {large}-padded-29696 --to 29696" in shown
    assert f"vllm serve {large} --tensor-parallel-size 1 --pipeline-parallel-size 2" in shown
    assert "One width for all of them: pad to 29696." in shown
    assert "another model's" in shown
    assert "\x1b[" not in shown


def test_a_command_is_never_broken_over_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    directory = written(tmp_path, quantized(QWEN2_VL_72B, "awq"), "long-name-" * 12)
    planner.main([str(directory), "--tp", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.endswith("--to 29696") and "variants pad" in line for line in lines)


def test_the_document_has_every_obstacle_repair_and_command(
    large: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planner.main([str(large), "--json", "--capability", "8.0"]) == 1
    found = document(capsys)
    assert found["engine"] == {
        "name": "vllm",
        "version": "0.32.0",
        "platform": "cuda",
        "compute_capability": "8.0",
    }
    cells = {cell["tp"]: cell for cell in found["cells"]}
    assert cells[1]["serves"] is True
    assert cells[1]["command"] == f"vllm serve {large} --tensor-parallel-size 1"
    assert cells[2]["command"] is None
    obstacle = cells[2]["obstacles"][0]
    assert (obstacle["size"], obstacle["per_rank"], obstacle["granule"]) == (29568, 14784, 128)
    repairs = {repair["kind"]: repair for repair in cells[2]["repairs"]}
    assert list(repairs) == ["pad", "regroup", "pipeline_parallel", "smaller_tp", "trim"]
    assert repairs["regroup"]["command"].endswith("72b-regrouped-64 --to 64")
    assert repairs["trim"]["exact"] is False


@pytest.mark.parametrize("given", [".", "config.json", "./"])
def test_a_path_without_a_name_is_spelt_out(
    given: str, large: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(large)
    planner.main([given, "--tp", "2"])
    assert f"--out {large}-padded-29696 --to 29696" in capsys.readouterr().out


def test_with_gpus_the_exit_code_says_whether_one_can_deploy(large: Path) -> None:
    box = ["--gpus", "4", "--gpu-memory", "24"]
    assert planner.main([str(large), *box]) == 0
    assert planner.main([str(large), "--gpus", "1", "--gpu-memory", "24"]) == 1


def test_several_checkpoints_are_planned_at_once(
    large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gemma = written(tmp_path, GEMMA_4B)
    assert planner.main([str(large), str(gemma), "--tp", "1", "--json"]) == 0
    found = document(capsys)
    assert [one["checkpoint"] for one in found] == [str(large), str(gemma)]
    assert "num_attention_heads = 8" in found[1]["assumed"]


def test_one_bad_checkpoint_does_not_hide_the_others(
    large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert planner.main([str(large), str(tmp_path / "absent")]) == 2
    shown = capsys.readouterr()
    assert "29696" in shown.out
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("capability", ["9", "nine", "9.0.1", "", "x" * 5000])
def test_a_capability_that_is_none_is_refused(
    capability: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        planner.main(["DIR", "--capability", capability])
    assert left.value.code == 2
    assert "such as 9.0 (H100)" in capsys.readouterr().err


def test_how_to_deploy_is_said_with_its_commands(
    large: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planner.main([str(large), "--tp", "2", "--gpus", "4", "--gpu-memory", "24"])
    shown = capsys.readouterr().out
    assert "Recommended: padded-29696 at tp=4" in shown
    served = f"{large}-padded-29696 --tensor-parallel-size 4 --gpu-memory-utilization"
    assert f"vllm serve {served}" in shown
    assert f"python -m vllm.entrypoints.openai.api_server --model {served}" in shown


def test_how_to_deploy_is_part_of_the_document(
    large: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planner.main([str(large), "--gpus", "1", "--gpu-memory", "24", "--json"])
    found = document(capsys)["strategy"]
    assert found["recommended"] is None
    assert "are missing" in found["reason"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--gpus", "4"], "give the two"),
        (["--concurrency", "4"], "give the two"),
        (["--gpus", "0", "--gpu-memory", "24"], "'0' is not a whole number from 1"),
        (["--gpus", "4", "--gpu-memory", "nan"], "'nan' is not the memory of a GPU"),
        (["--gpus", "4", "--gpu-memory", "24", "--platform", "cpu"], "planned for CUDA GPUs"),
        (["--gpus", "9" * 5000, "--gpu-memory", "24"], "is not a whole number"),
    ],
)
def test_a_deployment_that_cannot_be_meant_is_refused(
    options: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        planner.main(["DIR", *options])
    assert left.value.code == 2
    assert says in capsys.readouterr().err


def test_a_config_that_lies_is_held_against_the_headers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Tiny(intermediate=128).write(tmp_path / "tiny")
    config = Tiny(intermediate=128).config()
    (directory / "config.json").write_text(json.dumps(config))
    assert planner.main([str(directory), "--tp", "1"]) == 0
    assert "held against the headers of 1 file, 55 tensors" in capsys.readouterr().out
    (directory / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    assert planner.main([str(directory), "--tp", "1"]) == 1
    shown = capsys.readouterr().out
    assert "holds 128 input features, and config.json promises 96" in shown
    assert "the engine drops 25.0% of it without a word, in 2 of 2 layers" in shown
    assert "Make config.json and weights agree" in shown


def test_a_shard_that_is_listed_and_absent_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = Tiny(shards=3).write(tmp_path / "tiny")
    (directory / "model-00002-of-00003.safetensors").unlink()
    assert planner.main([str(directory)]) == 2
    error = capsys.readouterr().err
    assert "names model-00002-of-00003.safetensors, which does not exist" in error
    assert error.count("\n") == 1


def test_planning_imports_no_tensor_library_and_no_engine() -> None:
    code = (
        "import sys, fixtures.planner; "
        "print([m for m in ('torch', 'transformers', 'vllm', 'datasets') if m in sys.modules])"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert shown.stdout.strip() == "[]"
