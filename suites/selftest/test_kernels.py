"""Which kernel the engine takes, and what it makes of a group that straddles ranks."""

from __future__ import annotations

import pytest

from fixtures.checkpoint.schemes import Scheme
from fixtures.kernels import KERNELS, Shape, choose
from fixtures.platforms import Capability, FailureClass, Platform

AWQ = Scheme("awq", 4, 128, symmetric=False)
GPTQ = Scheme("gptq", 4, 128)
EIGHT = Scheme("gptq", 8, 128)


def shape(
    scheme: Scheme, per_rank: int, *, outputs: int = 8192, dtype: str = "float16", tp: int = 2
) -> Shape:
    return Shape(scheme, per_rank * tp, per_rank, outputs, dtype)


TAKEN: list[tuple[Shape, Platform, Capability, str | None]] = [
    (shape(GPTQ, 14848), "cuda", (9, 0), "Machete"),
    (shape(GPTQ, 14848, outputs=8200), "cuda", (9, 0), "Humming"),
    (shape(Scheme("gptq", 4, 32), 14848), "cuda", (9, 0), "Humming"),
    (shape(GPTQ, 14848), "cuda", (8, 0), "Marlin"),
    (shape(GPTQ, 14848), "cuda", (12, 0), "Marlin"),
    (shape(GPTQ, 14784), "cuda", (8, 0), "Exllama"),
    (shape(GPTQ, 14784, dtype="bfloat16"), "cuda", (8, 0), "Humming"),
    (shape(AWQ, 14848), "cpu", (9, 0), "CPUWNA16"),
    (shape(EIGHT, 14848), "cpu", (9, 0), None),
    (shape(AWQ, 112), "cpu", (9, 0), None),
    (shape(AWQ, 14848, outputs=8208), "cpu", (9, 0), None),
]


@pytest.mark.parametrize(("wanted", "platform", "capability", "name"), TAKEN)
def test_the_first_kernel_that_takes_the_shapes_is_taken(
    wanted: Shape, platform: Platform, capability: Capability, name: str | None
) -> None:
    kernel, refused = choose(wanted, platform, capability)
    assert (kernel.name if kernel else None) == name
    assert all(reason for reason in refused)


FAILS: list[tuple[Shape, Platform, Capability, FailureClass]] = [
    # 7 groups of 128 on 2, 4 and 8 ranks, as seen on the CPU build; then 6 groups on 8.
    (shape(AWQ, 448), "cpu", (9, 0), "first_request"),
    (shape(AWQ, 224), "cpu", (9, 0), "silent"),
    (shape(AWQ, 96), "cpu", (9, 0), "first_request"),
    (shape(GPTQ, 14784), "cuda", (9, 0), "warmup"),
    (shape(GPTQ, 3696), "cuda", (9, 0), "silent"),
    (shape(GPTQ, 14784), "cuda", (8, 0), "silent"),
    (shape(GPTQ, 96), "cuda", (8, 6), "warmup"),
]


@pytest.mark.parametrize(("wanted", "platform", "capability", "fails"), FAILS)
def test_what_a_straddled_group_comes_to_is_the_kernels_doing(
    wanted: Shape, platform: Platform, capability: Capability, fails: FailureClass
) -> None:
    kernel, _ = choose(wanted, platform, capability)
    assert kernel is not None
    assert kernel.straddled is not None
    assert kernel.straddled(wanted) == fails


def test_a_kernel_that_lets_a_group_straddle_says_how_its_failure_reads() -> None:
    assert all(kernel.says for kernel in KERNELS if kernel.straddled is not None)
    assert all(kernel.source for kernel in KERNELS)
