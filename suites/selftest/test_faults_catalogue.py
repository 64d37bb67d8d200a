"""Seeded faults: each changes exactly what it says, by how much it says, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fixtures.errors import ProofError
from fixtures.faults import CATALOGUE
from fixtures.faults.build import NOTE
from fixtures.ledger import LEDGER
from fixtures.variants import verify
from suites.selftest.drawn import write_drawn
from suites.selftest.faulty import (
    FORMATS,
    GROUP,
    HEAD,
    INPUTS_FIRST,
    PADDED,
    WIDTH,
    Checkpoints,
    Weights,
    changed,
    config,
    seeded,
    weights,
    with_biases,
)
from suites.selftest.forged import Variant
from suites.selftest.tiny import arrays_in

CASES = [
    (quant, name)
    for quant in FORMATS
    for name in CATALOGUE
    if name not in ("identity", "blind_trim", "expert_permuted")
    if (quant, name) != ("none", "pad_zero_point_off_by_one")
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    return Checkpoints(tmp_path_factory.mktemp("sources"))


def expected(name: str, old: Weights, spans: list[slice]) -> Weights:
    """The weights a fault should leave, from those before and the spans it names."""
    new = {module: matrix.copy() for module, matrix in old.items()}
    (module, *_), first = sorted(new), spans[0]
    if name == "rank_group_zeroed":
        new[module][:, first] = 0
    if name.startswith("one_scale"):
        new[module][:, first] *= 1.01
    if name == "head_permuted":
        new[module][spans[0]], new[module][spans[1]] = old[module][spans[1]], old[module][spans[0]]
    if name == "bias_shifted":
        bias = old[module][:, -1]
        new[module][:, -1] = [*bias[-HEAD:], *bias[:-HEAD]]
    if name == "gate_up_swapped":
        gate, up = sorted(new)
        new[gate][first], new[up][first] = old[up][first], old[gate][first]
    return new


@pytest.mark.parametrize(("quant", "name"), CASES)
def test_a_fault_changes_exactly_what_it_says(
    checkpoints: Checkpoints, tmp_path: Path, quant: str, name: str
) -> None:
    padded = checkpoints(quant)[1]
    fault = seeded(padded, tmp_path / "out", name)
    assert changed(padded, fault.directory) == set(fault.tensors) != set()
    modules = {tensor.rpartition(".")[0] for tensor in fault.tensors}
    old, new = (with_biases(directory, modules) for directory in (padded, fault.directory))
    spans = [slice(first, end) for _, first, end in fault.spans]
    if name in ("pad_zero_point_off_by_one", "groups_swapped"):
        for module, matrix in old.items():
            touched = np.zeros(matrix.shape, bool)
            for span in spans:
                touched[(slice(None), span) if "down" in module else span] = True
            np.testing.assert_array_equal(new[module][~touched], matrix[~touched])
            assert (new[module][touched] != matrix[touched]).mean() > 0.9
        return
    wanted = expected(name, old, spans)
    # A scale times 1.01 is rounded to half precision, and its error goes to every weight.
    rounding = 6e-4 if name.startswith("one_scale") else 0
    for module, matrix in wanted.items():
        np.testing.assert_allclose(new[module], matrix, rtol=rounding)
    assert any((new[one] != old[one]).any() for one in old)


@pytest.mark.parametrize("quant", FORMATS[:-1])
def test_added_channels_become_one_step_of_a_typical_group(
    checkpoints: Checkpoints, tmp_path: Path, quant: str
) -> None:
    source, padded = checkpoints(quant)
    fault = seeded(padded, tmp_path / "out", "pad_zero_point_off_by_one")
    modules = {tensor.rpartition(".")[0] for tensor in fault.tensors}
    assert fault.spans == (("channels", WIDTH, PADDED),)
    assert len(modules) == 3
    before = weights(padded, modules)
    original = arrays_in(source)
    for module, matrix in weights(fault.directory, modules).items():
        added = np.s_[:, WIDTH:] if ".down_" in module else np.s_[WIDTH:]
        assert not before[module][added].any()
        part = "scales" if quant in INPUTS_FIRST else "weight_scale"
        scales = set(np.abs(original[f"{module}.{part}"].astype(float)).reshape(-1))
        assert set(np.abs(matrix[added]).reshape(-1)) <= scales


def test_a_share_of_the_added_channels_is_wrong_where_one_is_asked_for(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    padded = checkpoints("awq")[1]
    name = "pad_zero_point_off_by_one"
    fault = seeded(padded, tmp_path / "out", name, strength=0.25)
    assert fault.spans == (("channels", WIDTH, WIDTH + 8),)
    live = np.ones(PADDED - WIDTH, bool)
    for module, matrix in weights(fault.directory, set(fault.layers)).items():
        added = matrix[:, WIDTH:].T if ".down_" in module else matrix[WIDTH:]
        live &= added.any(axis=1)
    np.testing.assert_array_equal(np.flatnonzero(live), np.arange(8))


@pytest.mark.parametrize("quant", FORMATS[:-1])
def test_swapped_groups_have_each_others_scales(
    checkpoints: Checkpoints, tmp_path: Path, quant: str
) -> None:
    padded = checkpoints(quant)[1]
    fault = seeded(padded, tmp_path / "out", "groups_swapped")
    axis = 0 if quant in INPUTS_FIRST else 1
    (name,), groups = fault.tensors, [first // GROUP for _, first, _ in fault.spans]
    old, new = arrays_in(padded)[name], arrays_in(fault.directory)[name]
    np.testing.assert_array_equal(new.take(groups, axis), old.take(groups[::-1], axis))


def test_unquantized_groups_are_swapped_whole(checkpoints: Checkpoints, tmp_path: Path) -> None:
    padded = checkpoints("none")[1]
    fault = seeded(padded, tmp_path / "out", "groups_swapped")
    one, other = (slice(first, end) for _, first, end in fault.spans)
    old, new = (arrays_in(path)[fault.tensors[0]] for path in (padded, fault.directory))
    np.testing.assert_array_equal(new[:, one], old[:, other])
    np.testing.assert_array_equal(new[:, other], old[:, one])


@pytest.mark.parametrize("quant", FORMATS)
@pytest.mark.parametrize("name", ["one_scale", "rank_group_zeroed", "gate_up_swapped"])
def test_its_relative_size_is_that_of_the_dequantized_weights(
    checkpoints: Checkpoints, tmp_path: Path, quant: str, name: str
) -> None:
    padded = checkpoints(quant)[1]
    fault = seeded(padded, tmp_path / "out", name)
    old, new = (weights(path, set(fault.layers)) for path in (padded, fault.directory))
    moved = sum(np.square(new[module] - old[module]).sum() for module in old)
    whole = sum(np.square(old[module]).sum() for module in old)
    assert fault.relative == pytest.approx(np.sqrt(moved / whole), rel=1e-6)
    assert fault.relative > 0


@pytest.mark.parametrize(("model", "quant"), [("mixtral", "none"), ("mixtral", "awq")])
def test_two_experts_are_exchanged_whole(tmp_path: Path, model: str, quant: str) -> None:
    source = write_drawn(tmp_path / "source", config(quant, model))
    fault = seeded(source, tmp_path / "out", "expert_permuted")
    one, other = sorted(fault.layers)
    old, new = arrays_in(source), arrays_in(fault.directory)
    for tensor in fault.tensors:
        module, _, part = tensor.rpartition(".")
        theirs = f"{other if module == one else one}.{part}"
        np.testing.assert_array_equal(new[tensor], old[theirs])
    assert changed(source, fault.directory) == set(fault.tensors)


@pytest.mark.parametrize("quant", FORMATS)
def test_the_control_changes_no_number_and_passes_the_proof(
    checkpoints: Checkpoints, tmp_path: Path, quant: str
) -> None:
    padded = checkpoints(quant)[1]
    fault = seeded(padded, tmp_path / "out", "identity")
    written = fault.directory / fault.files[0]
    assert not written.samefile(padded / fault.files[0])
    assert changed(padded, fault.directory) == set()
    assert fault.relative == 0
    forge(fault.directory, quant)
    verify(fault.directory)


def forge(directory: Path, quant: str) -> None:
    """Without its notes, and with digests that agree: only the claims of a proof are left."""
    (directory / NOTE).unlink()
    (directory / LEDGER).unlink()
    Variant(directory, quant, "pad").forge()


@pytest.mark.parametrize(("quant", "name"), CASES)
def test_a_fault_of_a_padded_variant_fails_its_proof(
    checkpoints: Checkpoints, tmp_path: Path, quant: str, name: str
) -> None:
    fault = seeded(checkpoints(quant)[1], tmp_path / "out", name)
    with pytest.raises(ProofError, match="SHA-256"):
        verify(fault.directory)
    forge(fault.directory, quant)
    with pytest.raises(ProofError) as caught:
        verify(fault.directory)
    assert "SHA-256" not in str(caught.value)
    assert any(tensor.rpartition(".")[0] in str(caught.value) for tensor in fault.tensors)


@pytest.mark.parametrize("quant", FORMATS)
def test_a_blind_trim_is_an_edit_of_the_config(
    checkpoints: Checkpoints, tmp_path: Path, quant: str
) -> None:
    source = checkpoints(quant)[0]
    fault = seeded(source, tmp_path / "out", "blind_trim")
    old, new = (
        json.loads((path / "config.json").read_text()) for path in (source, fault.directory)
    )
    assert new.pop("intermediate_size") < old.pop("intermediate_size") == WIDTH
    assert old == new
    assert fault.files == ("config.json",)
    file = "model.safetensors"
    assert (fault.directory / file).samefile(source / file)
    ((_, kept, end),) = fault.spans
    module = next(iter(fault.layers))
    matrix = weights(source, {module})[module]
    lost = np.linalg.norm(matrix[:, kept:end]) / np.linalg.norm(matrix)
    assert fault.layers[module] == pytest.approx(lost, rel=1e-5)
