"""The matrix: what belongs to a run, what it is called, and what is built how often."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures import matrix as module
from fixtures.errors import InputError
from fixtures.manifest import read_manifest
from fixtures.matrix import Matrix, given_variants
from fixtures.platforms import Platform
from suites.selftest.tiny import Tiny


def matrix_of(checkpoint: str | Path, *tps: int, platform: Platform = "cuda") -> Matrix:
    variants = ["padded", "trimmed", "regrouped"]
    return Matrix(str(checkpoint), variants, tps, platform, {}, lambda _: None)


def unneeded(found: Matrix) -> dict[str, str | None]:
    return {name: variant.unneeded for name, variant in found.variants.items()}


def test_sizes_are_in_order_and_each_is_there_once() -> None:
    found = matrix_of("miniature:awq", 8, 1, 2, 8)
    assert found.tps == (1, 2, 8)
    assert [cell.id for cell in found.cells][:3] == ["original-tp1", "original-tp2", "original-tp8"]


def staged(tps: tuple[int, ...], pps: tuple[int, ...]) -> Matrix:
    return Matrix("miniature:awq", ["padded"], tps, "cpu", {}, lambda _: None, pps=pps)


@pytest.mark.parametrize(
    ("tps", "pps", "ids"),
    [
        ((1, 2), (1, 2), ["original-tp1", "original-tp2", "original-pp2"]),
        ((2, 4), (1, 2), ["original-tp2", "original-tp4", "original-tp2-pp2"]),
        ((1, 2), (2, 4), ["original-pp2", "original-pp4"]),
    ],
)
def test_stages_are_for_the_original_at_the_smallest_tp(
    tps: tuple[int, ...], pps: tuple[int, ...], ids: list[str]
) -> None:
    found = staged(tps, pps)
    assert [cell.id for cell in found.cells if cell.variant == "original"] == ids
    padded = [cell for cell in found.cells if cell.variant == "padded"]
    assert {cell.pp for cell in padded} <= {1}
    assert bool(padded) is (1 in pps)


def test_a_staged_cell_has_a_mark_for_each_way_it_is_split() -> None:
    marks = {cell.id: cell.marks for cell in (*staged((1,), (2,)).cells, *staged((2,), (2,)).cells)}
    assert marks == {
        "original-pp2": ("original", "pp2"),
        "original-tp2-pp2": ("original", "tp2", "pp2"),
    }
    assert staged((2,), (2,)).cells[0].ranks == 4
    assert staged((2,), (1, 2)).baseline.id == "original-tp1"


def test_the_header_names_rows_and_columns_that_have_a_cell() -> None:
    assert staged((1, 2), (2,)).axes_json() == {"variants": ["original"], "tps": [], "pps": [2]}
    assert staged((1, 2), (1, 2)).axes_json() == {
        "variants": ["original", "padded"],
        "tps": [1, 2],
        "pps": [1, 2],
    }


def test_a_width_that_shards_needs_no_variant() -> None:
    assert "shards as it is" in str(unneeded(matrix_of("miniature:none", 1, 2))["padded"])
    assert unneeded(matrix_of("miniature:awq", 1, 2)) == dict.fromkeys(
        ("original", "padded", "trimmed", "regrouped")
    )


def widened(**widths: int) -> Matrix:
    return Matrix("miniature:none", ["padded"], (1, 2), "cpu", {}, lambda _: None, widths=widths)


def test_a_width_that_shards_is_padded_where_the_deployment_says_so() -> None:
    padded = widened(padded=1024).variants["padded"]
    assert (padded.unneeded, padded.sizes) == (None, {"intermediate_size": 1024})


@pytest.mark.parametrize(
    ("widths", "words"), [({"regrouped": 64}, "widths names regrouped"), ({"padded": 900}, "900")]
)
def test_a_width_no_variant_can_have_is_refused(widths: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        widened(**widths)


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("tps", "size", "refused"),
    [((1, 2), 64, []), ((1, 2, 4), 32, []), ((1, 4), 32, []), ((2, 4, 8), 32, [8])],
)
def test_groups_are_split_to_the_largest_size_that_gains_most(
    tps: tuple[int, ...], size: int, refused: list[int], platform: Platform
) -> None:
    # 7 groups of 128 are 14 of 64, which two ranks share, and 28 of 32, which four do; eight do not
    found = matrix_of("miniature:awq", *tps, platform=platform)
    cells = [cell for cell in found.cells if cell.variant == "regrouped"]
    assert found.variants["regrouped"].sizes == {"group_size": size}
    assert found.variants["regrouped"].model.quant.group_size == size
    assert [cell.tp for cell in cells if not cell.plan.serves] == refused


@pytest.mark.parametrize(
    ("quant", "tps", "says"),
    [
        ("none", (1, 2), "weights stored as 'none' have no groups"),
        ("fp8", (1, 2), "weights stored as 'fp8' have no groups"),
        ("gptq-act", (1, 2), "ordered by activation"),
        ("compressed-tensors-channel", (1, 8), "one group a channel"),
        ("awq", (1,), "serves at every asked tp"),
        ("awq", (1, 8), "groups of 64 or 32 serve at no further tp: "),
    ],
)
def test_groups_that_cannot_help_are_a_reason_and_no_crash(
    quant: str, tps: tuple[int, ...], says: str
) -> None:
    found = matrix_of(f"miniature:{quant}", *tps)
    assert says in str(unneeded(found)["regrouped"])
    assert [cell.tp for cell in found.cells if cell.variant == "regrouped"] == list(tps)


def test_groups_are_not_split_below_what_engines_take(tmp_path: Path) -> None:
    found = matrix_of(Tiny().write(tmp_path / "source"), 1, 2, 4)
    assert "no groups smaller than the original's 32" in str(unneeded(found)["regrouped"])


def test_a_regrouped_variant_is_built_beside_the_original(tmp_path: Path) -> None:
    source = Tiny(hidden=256, intermediate=896, group=128).write(tmp_path / "source")
    found = matrix_of(source, 1, 2)
    assert found.directory("regrouped") == tmp_path / "source-regrouped-64"
    assert read_manifest(found.directory("regrouped")).to == {"group_size": 64}


def test_a_vision_tower_that_does_not_shard_is_not_repaired_by_a_width(tmp_path: Path) -> None:
    source = Tiny(quant="none", intermediate=256, nested=True).write(tmp_path / "source")
    found = matrix_of(source, 16)
    assert "visual.blocks.*.mlp.down_proj" in {
        obstacle.layer for cell in found.cells for obstacle in cell.plan.obstacles
    }
    assert "shards as it is" in str(unneeded(found)["padded"])


def test_a_width_that_cannot_be_repaired_ends_a_variant_and_not_the_run(tmp_path: Path) -> None:
    one_group = Tiny(intermediate=32).write(tmp_path / "one-group")
    found = unneeded(matrix_of(one_group, 1, 2))
    assert found["padded"] is None
    assert "32 cannot be trimmed" in str(found["trimmed"])
    source = Tiny(intermediate=128).write(tmp_path / "torn-group")
    (source / "config.json").write_text(json.dumps(Tiny(intermediate=128, group=96).config()))
    assert "not a multiple of group size 96" in str(unneeded(matrix_of(source, 1, 2))["padded"])


def test_sizes_that_no_width_can_serve_together_do_not_end_the_run() -> None:
    found = matrix_of("miniature:awq", 1, 1013, 1019, 1021)
    assert "Ask for fewer sizes" in str(unneeded(found)["padded"])


@pytest.mark.parametrize("error", [InputError("no space"), PermissionError("read-only")])
def test_a_build_that_failed_is_not_tried_again(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []

    def fails(_: Path, out: Path, *, to: dict[str, int]) -> None:
        assert to == {"intermediate_size": 128}
        tried.append(out)
        raise error

    monkeypatch.setattr(module, "build_padded", fails)
    found = matrix_of(Tiny().write(tmp_path / "source"), 1, 2, 4)
    for _ in range(2):
        with pytest.raises(type(error), match=str(error)):
            found.directory("padded")
    assert len(tried) == 1


def test_given_variants_are_named_directories() -> None:
    assert given_variants(["mine=/a", "padded=b=c"]) == {"mine": Path("/a"), "padded": Path("b=c")}


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("mine", "expected NAME=DIR"),
        ("mine=", "expected NAME=DIR"),
        ("a-b=/a", "expected NAME=DIR"),
        ("original=/a", "--checkpoint"),
        *(
            (f"{name}=/a", f"{name} means something else")
            for name in (
                "_mine",
                "skip",
                "skipif",
                "xfail",
                "parametrize",
                "usefixtures",
                "filterwarnings",
                "plan",
                "sharding",
                "numerics",
                "latency",
                "throughput",
                "tp2",
                "tp16",
                "pp2",
                "not",
            )
        ),
    ],
)
def test_names_that_select_something_else_are_refused(option: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        given_variants([option])


def test_a_name_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="given twice"):
        given_variants(["mine=/a", "mine=/b"])
