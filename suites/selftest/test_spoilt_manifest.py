"""A variant.json that contradicts itself or its variant: one line, whatever it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures.errors import ProofError
from fixtures.variants import build_padded, build_regrouped, build_trimmed, main, verify
from suites.selftest.tiny import Tiny

KEY = "intermediate_size"
MLP = "model.layers.0.mlp"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("variants")
    source = Tiny().write(root / "source")
    build_padded(source, root / "pad", to=128)
    build_trimmed(source, root / "trim", to=64)
    build_regrouped(source, root / "regroup", to=16)
    return root


@contextmanager
def spoilt(directory: Path, change: Change) -> Iterator[None]:
    path = directory / "variant.json"
    text = path.read_text()
    manifest = json.loads(text)
    change(manifest)
    path.write_text(json.dumps(manifest))
    try:
        yield
    finally:
        path.write_text(text)


def keep(*groups: object) -> Change:
    return lambda manifest: manifest["kept_groups"].update({MLP: list(groups)})


def size(key: str, **sizes: object) -> Change:
    return lambda manifest: manifest["sizes"].setdefault(key, {}).update(sizes)


OTHERS = "has 64 of 96 channels, and its kept groups of"


@pytest.mark.parametrize(
    ("operation", "change", "code", "words"),
    [
        ("trim", lambda m: m["kept_groups"].pop(MLP), 1, f"do not agree in {MLP}"),
        ("trim", lambda m: m.update(kept_groups={}), 1, f"do not agree in {MLP}"),
        ("trim", keep(), 1, f"{MLP} {OTHERS}"),
        ("trim", keep(0), 1, f"{MLP} {OTHERS}"),
        ("trim", keep(0, 1, 2), 1, f"{MLP} {OTHERS}"),
        ("trim", keep(0, 3), 1, f"{MLP} {OTHERS}"),
        ("trim", keep(0, 10**18), 1, f"{MLP} {OTHERS}"),
        ("trim", keep(0, 10**30), 1, f"{MLP} {OTHERS}"),
        ("trim", keep(float("inf")), 2, "inf is no size"),
        ("trim", keep(float("nan")), 2, "nan is no size"),
        ("trim", keep(0.5, 1.5), 2, "0.5 is no size"),
        ("trim", keep("0", "1"), 2, "'0' is no size"),
        ("trim", lambda m: m.update(granule=8), 1, f"{MLP} {OTHERS} 8 are others"),
        ("trim", lambda m: m.update(granule=10**18), 2, f"a size of {10**18}"),
        ("trim", lambda m: m.update(granules={MLP: 8}), 1, f"{MLP} {OTHERS} 8 are others"),
        ("trim", lambda m: m.update(granules={MLP: 0}), 2, f"groups of 0 channels in {MLP}"),
        ("trim", lambda m: m.update(granules={MLP: 2**31}), 2, f"a size of {2**31}"),
        ("trim", lambda m: m.update(granules={"x": 8}), 2, "groups of 8 channels in x"),
        ("trim", size(KEY, **{"from": 2**31}), 2, f"a size of {2**31}"),
        ("pad", size(KEY, **{"from": 2**30, "to": 2**31}), 2, f"a size of {2**31}"),
        ("pad", lambda m: m.update(granule=10**18), 2, f"a size of {10**18}"),
        ("pad", lambda m: m.update(layout="interleaved"), 1, "added output channel 1 dequantizes"),
        ("pad", lambda m: m["source"].update(path=None), 2, "None is no text"),
        ("pad", lambda m: m["files"].update({"\ud800\n": "x"}), 2, "of other files"),
        ("pad", lambda m: m["tensors"].update({"\ud800\n": "x"}), 1, r"agree in \ud800\n"),
        ("pad", size("x" * 10_000, **{"from": 8, "to": 16}), 2, "padded in intermediate_size, xxx"),
        ("regroup", size("group_size", **{"from": 16 * 10**30}), 2, f"a size of {16 * 10**30}"),
    ],
)
def test_a_manifest_that_cannot_be_true_is_one_line(
    variants: Path,
    capsys: pytest.CaptureFixture[str],
    operation: str,
    change: Change,
    code: int,
    words: str,
) -> None:
    with spoilt(variants / operation, change):
        assert main(["verify", str(variants / operation)]) == code
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert words in captured.err
    assert len(captured.err) < 2500


def test_channels_that_a_manifest_tears_apart_are_a_finding(variants: Path) -> None:
    def eighths(manifest: dict[str, Any]) -> None:
        # As many channels, in groups of 8 where words and scales have 32.
        manifest["granule"] = 8
        manifest["kept_groups"] = {mlp: [0, *range(2, 9)] for mlp in manifest["kept_groups"]}

    with (
        spoilt(variants / "trim", eighths),
        pytest.raises(ProofError, match="stores 32 channels together"),
    ):
        verify(variants / "trim")


def test_a_source_that_cannot_be_looked_up_is_not_compared_with(variants: Path) -> None:
    with spoilt(variants / "pad", lambda m: m["source"].update(path="/" + "a" * 5000)):
        (reason,) = verify(variants / "pad").not_proven
    assert "cannot be read: File name too long" in reason
