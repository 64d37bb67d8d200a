"""Files that say what config.json says, and folders that are only linked: changed, or named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures.carried import SETTINGS
from fixtures.errors import ProofError
from fixtures.variants import build_padded, build_regrouped, verify
from suites.selftest.tiny import Tiny

AUTOGPTQ = {"bits": 4, "group_size": 32, "dynamic": {"+:.*down": {"group_size": 32}}, "sym": True}
AUTOAWQ = {"w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"}
AFTER = (
    {"bits": 4, "group_size": 16, "dynamic": {"+:.*down": {"group_size": 16}}, "sym": True},
    {"w_bit": 4, "q_group_size": 16, "zero_point": True, "version": "GEMM"},
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = Tiny().write(tmp_path / "source")
    for name, said in zip(SETTINGS, (AUTOGPTQ, AUTOAWQ), strict=True):
        (made / name).write_text(json.dumps(said))
    return made


def test_a_quantizer_s_own_file_says_the_new_groups(source: Path) -> None:
    out = build_regrouped(source, source.with_name("out"), to=16).directory
    assert tuple(json.loads((out / name).read_text()) for name in SETTINGS) == AFTER
    assert json.loads((source / SETTINGS[0]).read_text()) == AUTOGPTQ
    verify(out)


def test_without_groups_of_its_own_it_is_the_source_s(source: Path) -> None:
    (source / SETTINGS[0]).write_text(json.dumps({"bits": 4, "group_size": -1}))
    regrouped = build_regrouped(source, source.with_name("regrouped"), to=16).directory
    padded = build_padded(source, source.with_name("padded"), to=128).directory
    for out in (regrouped, padded):
        assert (out / SETTINGS[0]).samefile(source / SETTINGS[0])


@pytest.mark.parametrize(
    ("said", "words", "gone"),
    [
        (AUTOAWQ, "does not say groups of 16", False),
        (AUTOAWQ, "does not say groups of 16", True),
        ({**AFTER[1], "w_bit": 8}, "differs from the source's in more than its groups", False),
    ],
)
def test_a_wrong_file_is_found(source: Path, said: object, words: str, gone: bool) -> None:
    out = build_regrouped(source, source.with_name("out"), to=16).directory
    (out / SETTINGS[1]).write_text(json.dumps(said))
    if gone:
        source.rename(source.with_name("gone"))
    with pytest.raises(ProofError, match=words):
        verify(out)


def test_a_linked_folder_is_named_as_left_out(source: Path) -> None:
    (source.with_name("elsewhere")).mkdir()
    (source.with_name("elsewhere") / "template.jinja").write_text("x")
    (source / "templates").symlink_to(source.with_name("elsewhere"))
    variant = build_padded(source, source.with_name("out"), to=128)
    assert variant.manifest["left_out"] == ["templates/"]
    assert not (variant.directory / "templates").exists()
    verify(variant.directory)
