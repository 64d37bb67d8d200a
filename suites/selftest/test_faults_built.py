"""Seeded faults as they are asked for: by name, strength and seed, cached, refused, listed."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fixtures.checkpoint.tensors import MANIFEST, checkpoint_digest
from fixtures.errors import InputError
from fixtures.faults import (
    CATALOGUE,
    LADDER,
    TRIALS,
    Fault,
    Unseeded,
    cached_fault,
    passing_fault,
    read_fault,
    seed_fault,
)
from fixtures.faults.__main__ import main
from fixtures.faults.build import NOTE
from fixtures.faults.subject import read_subject
from fixtures.ledger import LEDGER
from suites.selftest import small_configs
from suites.selftest.drawn import write_drawn
from suites.selftest.faulty import (
    Checkpoints,
    changed,
    config,
    seeded,
)
from suites.selftest.tiny import flip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("sources"))


def test_the_ladder_climbs_at_one_place(checkpoints: Checkpoints, tmp_path: Path) -> None:
    padded = checkpoints("awq")[1]
    found = [seeded(padded, tmp_path / str(x), "one_scale", strength=x) for x in LADDER]
    assert len({fault.spans for fault in found}) == len({fault.tensors for fault in found}) == 1
    share = found[-1].relative / LADDER[-1]
    # Half precision moves by steps of up to 0.001 of a scale.
    for fault, strength in zip(found, LADDER, strict=True):
        assert fault.relative == pytest.approx(strength * share, rel=0.3)
    one = seeded(padded, tmp_path / "one", "one_scale_1pct")
    assert changed(one.directory, found[2].directory) == set()


def test_the_same_seed_gives_the_same_fault_and_others_others(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    padded = checkpoints("gptq")[1]
    made = [seeded(padded, tmp_path / f"{n}", "groups_swapped", seed=n // 2) for n in range(8)]
    for one, again in zip(made[::2], made[1::2], strict=True):
        assert checkpoint_digest(one.directory) == checkpoint_digest(again.directory)
    assert len({(fault.tensors, fault.spans) for fault in made}) > 1


def test_the_source_stays_and_what_is_unchanged_is_linked(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    padded = checkpoints("awq")[1]
    before = checkpoint_digest(padded)
    fault = seeded(padded, tmp_path / "out", "head_permuted")
    assert checkpoint_digest(padded) == before == fault.source_digest
    for name in ("tokenizer.json", "config.json", MANIFEST):
        assert (fault.directory / name).samefile(padded / name)
    assert read_fault(fault.directory) == fault


def test_a_cached_fault_is_built_once_and_again_when_it_or_its_source_changed(
    tmp_path: Path,
) -> None:
    source, cached = write_drawn(tmp_path / "source", config("awq")), {}
    for strength in (0.01, 0.03):
        found = cached_fault(source, "one_scale", strength=strength)
        again = cached_fault(source, "one_scale", strength=strength)
        assert isinstance(found, Fault)
        assert isinstance(again, Fault)
        assert (found.reused, again.reused, again.directory) == (False, True, found.directory)
        cached[strength] = found.directory
    flip(cached[0.01] / "model.safetensors", -1)
    mended = cached_fault(source, "one_scale", strength=0.01)
    assert isinstance(mended, Fault)
    assert not mended.reused
    (source / "tokenizer.json").write_text("{}")
    other = cached_fault(source, "one_scale", strength=0.01)
    assert isinstance(other, Fault)
    assert len({other.directory, *cached.values()}) == 3


def test_a_passing_fault_lies_where_it_is_told_and_is_gone_after_its_block(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    padded, root = checkpoints("awq")[1], tmp_path / "root"
    beside = sorted(padded.parent.iterdir())
    with passing_fault(padded, "one_scale", root=root, strength=0.03) as fault:
        assert isinstance(fault, Fault)
        assert changed(padded, fault.directory) == set(fault.tensors) != set()
        assert root in fault.directory.parents
        assert not (fault.directory / LEDGER).exists()  # nobody comes back to check it
    assert not list(root.iterdir())
    assert sorted(padded.parent.iterdir()) == beside


def test_where_files_cannot_be_linked_hard_they_are_not_copied(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On another filesystem, or beside files of another user."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    padded = checkpoints("awq")[1]
    fault = seeded(padded, tmp_path / "out", "head_permuted")
    for name in ("tokenizer.json", "config.json", MANIFEST):
        assert (fault.directory / name).is_symlink()
        assert (fault.directory / name).samefile(padded / name)
    assert changed(padded, fault.directory) == set(fault.tensors)


def test_a_run_seeds_each_fault_once_and_the_control_first() -> None:
    assert TRIALS[0].control
    labels = [trial.label for trial in TRIALS]
    assert len(set(labels)) == len(labels)
    assert {f"one_scale-{step:g}" for step in LADDER} <= set(labels)
    # 1 % is a step of the ladder, and the one that must be seen.
    listed = {trial.label for trial in TRIALS if trial.listed}
    assert listed == {*CATALOGUE, "one_scale-0.01"} - {"identity", "one_scale", "one_scale_1pct"}


@pytest.mark.parametrize(
    ("quant", "padded", "name", "reason"),
    [
        ("none", True, "pad_zero_point_off_by_one", "stored without zero points"),
        ("awq", False, "pad_zero_point_off_by_one", "not padded"),
        ("awq", True, "blind_trim", "it is padded"),
        ("awq", True, "expert_permuted", "no experts"),
    ],
)
def test_what_a_checkpoint_cannot_have_is_a_value_with_the_reason(
    checkpoints: Checkpoints, tmp_path: Path, quant: str, padded: bool, name: str, reason: str
) -> None:  # fmt: skip
    found = seed_fault(checkpoints(quant)[int(padded)], tmp_path / "out", name)
    assert isinstance(found, Unseeded)
    assert reason in found.reason
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "name", "strength", "reason"),
    [
        (
            config("awq", attention_bias=False, mlp_bias=False),
            "bias_shifted",
            None,
            "no attention or MLP",
        ),
        (config("none", torch_dtype="bfloat16"), "one_scale", 1e-3, "becomes 0"),
        (small_configs.config("llama", "fp8_tensor"), "one_scale", None, "there are no groups"),
        (small_configs.config("llama", "fp8_tensor"), "gate_up_swapped", None, "weight_scale"),
        (small_configs.config("gpt2", "none"), "gate_up_swapped", None, "has no gate"),
    ],
)
def test_so_is_what_a_format_or_a_family_cannot_have(
    tmp_path: Path, config: dict[str, Any], name: str, strength: float | None, reason: str
) -> None:
    source = write_drawn(tmp_path / "source", config)
    found = seed_fault(source, tmp_path / "out", name, strength=strength)
    assert isinstance(found, Unseeded)
    assert reason in found.reason


@pytest.mark.parametrize("quant", ["none", "awq"])
@pytest.mark.parametrize("model", small_configs.MODELS)
def test_every_family_has_each_fault_or_a_reason(tmp_path: Path, model: str, quant: str) -> None:
    if (model, quant) == ("gpt2", "awq"):
        pytest.skip("nobody quantizes it: its layers are stored the other way round")
    subject = read_subject(write_drawn(tmp_path / "source", small_configs.config(model, quant)))
    possible = set()
    for name, kind in CATALOGUE.items():
        sown = kind.sow(subject, np.random.default_rng(0), kind.strength or 0)
        if not isinstance(sown, Unseeded):
            possible.add(name)
    always = {"one_scale", "one_scale_1pct", "groups_swapped", "rank_group_zeroed", "blind_trim"}
    gated = {"gate_up_swapped"} if model != "gpt2" else set()
    assert possible >= always | gated | {"head_permuted", "identity"}
    assert ("expert_permuted" in possible) == (subject.checkpoint.config.experts is not None)


@pytest.mark.parametrize(
    ("name", "chosen", "said"),
    [
        ("one_scal", {}, "Did you mean one_scale"),
        ("identity", {"strength": 0.1}, "has one strength"),
        ("one_scale", {"strength": 0.0}, "more than 0 and at most 1"),
        ("one_scale", {"strength": float("nan")}, "more than 0 and at most 1"),
        ("identity", {"seed": -1}, "seed -1 is negative"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    checkpoints: Checkpoints, tmp_path: Path, name: str, chosen: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        seed_fault(checkpoints("awq")[1], tmp_path / "out", name, **chosen)
    assert not list(tmp_path.iterdir())


def test_a_place_that_is_taken_or_inside_the_source_is_refused(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    padded = checkpoints("awq")[1]
    with pytest.raises(InputError, match="already exists"):
        seed_fault(padded, tmp_path, "identity")
    with pytest.raises(InputError, match="lies inside it"):
        seed_fault(padded, padded / "out", "identity")
    with pytest.raises(InputError, match="is not a directory"):
        seed_fault(tmp_path / "nothing", tmp_path / "out", "identity")


def test_the_command_builds_and_says_what_it_did(
    checkpoints: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    padded, out = str(checkpoints("awq")[1]), str(tmp_path / "out")
    asked = [padded, "--fault", "one_scale", "--strength", "0.03", "--out", out, "--json"]
    assert main(asked) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["strength"], said["directory"]) == ("one_scale", 0.03, out)
    note = json.loads((tmp_path / "out" / NOTE).read_text())
    assert note.items() <= said.items()
    assert main(asked) == 2
    assert "already exists" in capsys.readouterr().err


def test_the_command_lists_the_catalogue_and_refuses_what_cannot_be(
    checkpoints: Checkpoints, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--list"]) == 0
    assert set(CATALOGUE) <= set(capsys.readouterr().out.split())
    assert main(["--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [kind["name"] for kind in listed] == list(CATALOGUE)
    assert not any("shows_at" in kind for kind in listed)
    assert main([str(checkpoints("awq")[1]), "--fault", "expert_permuted"]) == 2
    error = capsys.readouterr().err
    assert "it has no experts" in error
    assert error.count("\n") == 1
    assert main([]) == 2
