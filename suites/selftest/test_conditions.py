"""Which conditions make a time invalid, and which do not: figures in, one sentence out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fixtures.serving.conditions import (
    Conditions,
    CpuLook,
    CpuUse,
    GpuSample,
    Holder,
    Limits,
    Process,
    Spender,
    may_pass,
    use_of_cpu,
    use_of_gpus,
    why_invalid,
)

MIB = 2**20
LIMITS = Limits()
QUIET = CpuUse(
    cores=16,
    ours_cores=15.0,  # our own load is what is measured
    foreign_cores=0.05,
    foreign=(),
    steal_share=0.0,
    swap_bytes_per_s=0.0,
    quota_share=0.0,
)
H200 = GpuSample(
    index=0,
    name="NVIDIA H200",
    sm_mhz=1980,
    memory_mhz=3201,
    reference_mhz=1980,
    reasons=(),
    temperature_c=60,
    utilisation_percent=98,
    holders=(Holder(pid=10, name="VLLM::Worker", memory_bytes=120_000 * MIB, ours=True),),
)
MAKE = (Spender(pid=77, name="cc1plus", cores=0.9),)


def about_cpu(**changed: Any) -> str | None:
    cpu = replace(QUIET, **changed)
    return why_invalid(
        Conditions(seconds=10.0, cpu=cpu, gpus=None, samples=0, sampling_s=0.0, absent={}), LIMITS
    )


def about_gpus(*samples: list[GpuSample]) -> str | None:
    gpus = use_of_gpus(samples, LIMITS)
    return why_invalid(
        Conditions(
            seconds=10.0, cpu=QUIET, gpus=gpus, samples=len(samples), sampling_s=0.0, absent={}
        ),
        LIMITS,
    )


CPU = [
    ({}, None),
    ({"ours_cores": 16.0}, None),
    ({"foreign_cores": 0.79}, None),  # a twentieth of 16 cores
    (
        {"foreign_cores": 0.95, "foreign": MAKE},
        "other processes used 0.95 of 16 cores for 10.0 s (limit 0.80; the busiest: cc1plus, "
        "pid 77, 0.90)",
    ),
    ({"cores": 2, "foreign_cores": 0.3, "foreign": MAKE}, "limit 0.25"),
    ({"foreign_cores": 5.0}, "by none that can be seen from here"),
    ({"steal_share": 0.02}, None),
    ({"steal_share": 0.08}, "the hypervisor gave 8.0% of the CPU time wanted here to others"),
    ({"quota_share": 0.3}, "the cgroup's CPU quota stopped this run for 3.0 of 10.0 s"),
    ({"swap_bytes_per_s": 5.0 * MIB}, "the machine swapped 5.0 MiB/s"),
    ({"clock_step_s": -0.001}, None),
    ({"clock_step_s": -0.5}, "the wall clock was set by -0.500 s"),
    # what could not be read judges nothing
    ({"foreign_cores": None, "steal_share": None, "quota_share": None}, None),
    ({"swap_bytes_per_s": None}, None),
]


@pytest.mark.parametrize(("changed", "said"), CPU)
def test_a_cpu_is_judged_by_what_was_not_ours(changed: dict[str, Any], said: str | None) -> None:
    verdict = about_cpu(**changed)
    assert verdict == said if said is None else said in (verdict or "")


OTHER = Holder(pid=99, name="python", memory_bytes=500 * MIB, ours=False)
DAEMON = Holder(pid=98, name="nvidia-cuda-mps-server", memory_bytes=30 * MIB, ours=False)
UNSEEN = Holder(pid=123456, name=None, memory_bytes=500 * MIB, ours=None)


def seen(cpu: CpuUse = QUIET, gpu: GpuSample | None = None) -> Conditions:
    gpus = None if gpu is None else use_of_gpus([[gpu]], LIMITS)
    return Conditions(seconds=10.0, cpu=cpu, gpus=gpus, samples=1, sampling_s=0.0, absent={})


BUSY = replace(QUIET, foreign_cores=5.0)


@pytest.mark.parametrize(
    ("found", "passes"),
    [
        (seen(), False),  # nothing was wrong
        (seen(BUSY), True),
        (seen(replace(QUIET, steal_share=0.5)), True),
        (seen(replace(QUIET, clock_step_s=1.0)), True),
        (seen(replace(QUIET, quota_share=0.5)), False),
        (seen(replace(BUSY, swap_bytes_per_s=5.0 * MIB)), False),
        (seen(gpu=replace(H200, reasons=("thermal slowdown",))), False),
        (seen(BUSY, replace(H200, sm_mhz=1100)), False),
        (seen(gpu=replace(H200, holders=(*(H200.holders or ()), OTHER))), True),
    ],
)
def test_only_what_others_do_may_pass(found: Conditions, passes: bool) -> None:
    assert may_pass(found, LIMITS) is passes


GPU = [
    ({}, None),
    ({"reasons": ("power cap",)}, None),
    ({"reasons": ("clocks set for applications",)}, None),
    (
        {"reasons": ("thermal slowdown",), "temperature_c": 89},
        "GPU 0 was slowed down (thermal slowdown for about 10.0 s of 10.0 s, up to 89 °C)",
    ),
    ({"reasons": ("power brake", "hardware slowdown")}, "hardware slowdown for about 10.0 s"),
    ({"sm_mhz": 1200}, None),
    ({"sm_mhz": 1100}, "GPU 0 ran at 1100 of 1980 MHz under load (56%, limit 60%)"),
    ({"sm_mhz": 345, "utilisation_percent": 0}, None),  # idle, it sleeps
    ({"sm_mhz": 345, "utilisation_percent": None}, None),
    ({"sm_mhz": 345, "reference_mhz": None}, None),
    ({"holders": (OTHER,)}, "python (pid 99) holds 500 MiB of memory on GPU 0"),
    ({"holders": (*(H200.holders or ()), OTHER)}, "python (pid 99) holds 500 MiB"),
    ({"holders": (replace(OTHER, memory_bytes=None),)}, "an unknown amount of memory on GPU 0"),
    ({"holders": (DAEMON,)}, None),
    # in a container that shows the host's numbers, our own server looks like this
    ({"holders": (UNSEEN,)}, None),
    # ours are known by number: then this is somebody else
    ({"holders": (*(H200.holders or ()), UNSEEN)}, "a process that cannot be seen from here"),
    ({"holders": None, "reasons": None, "temperature_c": None}, None),
]


@pytest.mark.parametrize(("changed", "said"), GPU)
def test_a_gpu_is_judged_by_clocks_and_company(changed: dict[str, Any], said: str | None) -> None:
    verdict = about_gpus(*[[replace(H200, **changed)]] * 4)
    assert verdict == said if said is None else said in (verdict or "")


def test_one_hot_sample_of_many_is_within_the_limit_two_are_not() -> None:
    hot = replace(H200, reasons=("thermal slowdown",))
    assert about_gpus(*[[H200]] * 39, [hot]) is None
    assert "for about 0.8 s of 10.0 s" in str(about_gpus(*[[H200]] * 37, *[[hot]] * 3))


def test_gpus_that_serve_others_are_not_in_use() -> None:
    neighbour = replace(H200, index=1, holders=(OTHER,), reasons=("thermal slowdown",))
    assert about_gpus([H200, neighbour]) is None
    assert "GPU 1" in str(about_gpus([replace(H200, holders=()), neighbour]))


def test_a_worker_that_ends_meanwhile_does_not_become_a_stranger() -> None:
    going = Holder(pid=10, name=None, memory_bytes=120_000 * MIB, ours=None)
    assert about_gpus([H200], [replace(H200, holders=(going,))]) is None


def process(pid: int, cpu_s: float, *, ours: bool = False, started_s: float = 1.0) -> Process:
    return Process(pid=pid, started_s=started_s, name=f"p{pid}", cpu_s=cpu_s, ours=ours)


BEFORE = CpuLook(
    at_s=100.0,
    cores=4,
    busy_s=1000.0,
    steal_s=10.0,
    ours_s=50.0,
    processes=(process(1, 40.0, ours=True), process(2, 7.0), process(3, 500.0)),
    swapped_bytes=0,
    quota_stopped_s=2.0,
    clock_ahead_s=1e9,
)
AFTER = replace(
    BEFORE,
    at_s=110.0,
    busy_s=1025.0,
    steal_s=12.0,
    ours_s=65.0,
    processes=(
        process(1, 55.0, ours=True),
        process(2, 9.0),
        process(3, 4.0, started_s=105.0),  # the number of another, which has ended
    ),
    swapped_bytes=20 * MIB,
    quota_stopped_s=3.0,
    clock_ahead_s=1e9 + 0.5,
)


def test_use_is_the_difference_of_two_looks() -> None:
    use, absent = use_of_cpu(BEFORE, AFTER)
    assert use == CpuUse(
        cores=4,
        ours_cores=1.5,
        foreign_cores=1.0,
        foreign=(Spender(pid=3, name="p3", cores=0.4), Spender(pid=2, name="p2", cores=0.2)),
        steal_share=1.98 / 27.0,
        swap_bytes_per_s=2.0 * MIB,
        quota_share=0.025,  # of four cores
        clock_step_s=0.5,
    )
    assert absent == {}


def test_a_block_shorter_than_the_counters_resolve_is_not_judged() -> None:
    use, absent = use_of_cpu(BEFORE, replace(AFTER, at_s=100.2))
    assert (use.foreign_cores, use.steal_share) == (None, None)
    assert "0.20 s: too short" in absent["cpu.foreign_cores"]


def test_a_look_that_failed_leaves_nothing_to_judge() -> None:
    failed = CpuLook(at_s=110.0, cores=0, absent={"cpu": "cannot be read: too many open files"})
    use, absent = use_of_cpu(BEFORE, failed)
    assert (use.cores, use.ours_cores, use.foreign_cores, use.steal_share) == (4, None, None, None)
    assert "too many open files" in absent["cpu"]
