"""The machine observed: real processes, a driver that is pretended, and every way to end."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest

from fixtures.serving import cpu
from fixtures.serving.conditions import Limits
from fixtures.serving.cpu import read_cpu
from fixtures.serving.gpus import decoded, read_settings
from fixtures.serving.observing import observe
from suites.selftest.test_machine import NVMLError, fake_nvml

MIB = 2**20
STRICT = Limits(foreign_cores=0.0, foreign_share=0.0)


def test_what_a_look_takes_is_never_taken_for_a_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a starved machine a look at every process takes long, and our own load goes on meanwhile.
    order: list[str] = []
    every, processes = psutil.cpu_times, cpu._processes

    def counters(**asked: Any) -> Any:
        order.append("all cores")
        return every(**asked)

    def looked(own: Collection[int]) -> Any:
        order.append("processes")
        return processes(own)

    monkeypatch.setattr(psutil, "cpu_times", counters)
    monkeypatch.setattr(cpu, "_processes", looked)
    with observe():
        order.append("block")
    assert order == ["processes", "all cores", "block", "all cores", "processes"]


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def samplers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "observing"]


def test_a_process_that_is_not_ours_is_seen_and_named_and_one_of_ours_is_not() -> None:
    sleeping, spinning = "import time; time.sleep(60)", "while True: pass"
    with child(sleeping) as alone, child(spinning) as spinner:
        # The same second twice: once all of this process is foreign, once it is ours.
        with observe(own=[alone.pid], limits=STRICT) as foreign, observe(limits=STRICT) as ours:
            time.sleep(1.0)
        pids = [spender.pid for spender in foreign.conditions.cpu.foreign]
        assert spinner.pid in pids
        assert spinner.pid not in [spender.pid for spender in ours.conditions.cpu.foreign]
    seen, known = foreign.conditions.cpu, ours.conditions.cpu
    assert seen.foreign_cores is not None
    assert known.foreign_cores is not None
    assert seen.foreign_cores - known.foreign_cores > 0.2  # a whole core, on a quiet machine
    assert "other processes used" in (foreign.verdict() or "")


def test_a_child_that_ended_meanwhile_was_ours_all_the_same() -> None:
    burn = "import time; t = time.process_time()\nwhile time.process_time() < t + 0.4: pass"
    with observe() as observed:
        subprocess.run([sys.executable, "-c", burn], check=True)
        time.sleep(0.6)
    cpu = observed.conditions.cpu
    assert cpu.ours_cores is not None
    assert cpu.ours_cores * observed.conditions.seconds > 0.35


@pytest.mark.parametrize("end", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_sampler_ends_however_the_block_does(
    monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    seen = []

    def block() -> None:
        with observe() as observed:
            seen.append(observed)
            assert samplers()
            raise end

    with pytest.raises(end):
        block()
    assert samplers() == []
    assert seen[0].to_json()["samples"]


def test_without_a_driver_gpus_are_null_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with observe() as observed:
        pass
    told: dict[str, Any] = json.loads(json.dumps(observed.to_json()))
    assert told["gpus"] is None
    assert "no NVIDIA driver" in told["absent"]["gpus"]
    assert told["cpu"]["foreign_cores"] is None  # too short to tell, and that is said
    assert "too short" in told["absent"]["cpu.foreign_cores"]


def driver(*, gpus: int = 2, **changed: Any) -> ModuleType:
    """NVML as a loaded box has it; `changed` replaces functions by their names."""

    def answers(value: object) -> Any:
        return lambda *_: value

    fake = fake_nvml(gpus=gpus)
    told = {
        "CurrentClocksEventReasons": 0x4,
        "UtilizationRates": SimpleNamespace(gpu=90),
        "ComputeRunningProcesses": [],
        "ApplicationsClock": 1980,
        "MaxClockInfo": 1980,
        "ClockInfo": 1700,
        "Temperature": 70,
        "EnforcedPowerLimit": 700_000,
        "PersistenceMode": 1,
        "TopologyCommonAncestor": 50,
        "P2PStatus": 0,
    }
    functions = {f"nvmlDeviceGet{name}": answers(value) for name, value in told.items()}
    vars(fake).update(functions | changed)
    return fake


def refuses(*_: object) -> Any:
    raise NVMLError("Not Supported")


def test_a_gpu_under_load_is_sampled_and_its_company_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with child("import time; time.sleep(60)") as other, child("import time; time.sleep(60)") as own:
        held = [SimpleNamespace(pid=p.pid, usedGpuMemory=300 * MIB) for p in (other, own)]
        fake = driver(gpus=1, nvmlDeviceGetComputeRunningProcesses=lambda _: held)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        with observe(own=[own.pid], every_s=0.02) as observed:
            time.sleep(1.0)
    (gpu,) = observed.conditions.gpus or ()
    assert gpu.samples >= 3
    assert (gpu.sm_mhz, gpu.reference_mhz, gpu.temperature_c) == (1700, 1980, 70)
    assert gpu.reason_shares == {"power cap": 1.0}
    assert f"(pid {other.pid}) holds 300 MiB of memory on GPU 0" in (observed.verdict() or "")
    assert str(own.pid) not in (observed.verdict() or "")


def test_what_a_gpu_does_not_answer_is_null_with_the_drivers_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent = ("CurrentClocksEventReasons", "CurrentClocksThrottleReasons", "Temperature")
    changed = {f"nvmlDeviceGet{name}": refuses for name in silent}
    monkeypatch.setitem(sys.modules, "pynvml", driver(gpus=1, **changed))
    with observe() as observed:
        pass
    (gpu,) = observed.conditions.gpus or ()
    assert (gpu.reason_shares, gpu.temperature_c) == (None, None)
    assert observed.conditions.absent["gpus.0.temperature_c"] == "Not Supported"


def test_a_driver_that_breaks_meanwhile_is_a_gap_and_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(*_: object) -> Any:
        raise RuntimeError("GPU has fallen off the bus")

    fake = driver(gpus=1, nvmlDeviceGetTemperature=gone)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    with observe() as observed:
        pass
    assert "fallen off the bus" in observed.conditions.absent["samples"]
    assert observed.conditions.gpus is None


def test_reasons_are_told_in_words() -> None:
    assert decoded(0) == ()
    assert decoded(0x1 | 0x20) == ("idle", "thermal slowdown")
    assert decoded(0x4000) == ("unknown reason 0x4000",)


def test_settings_and_links_of_gpus_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    nvlink = {"nvmlDeviceGetP2PStatus": lambda *a: 0 if a[2] == 0 else 5}
    monkeypatch.setitem(sys.modules, "pynvml", driver(gpus=3, **nvlink))
    told: dict[str, Any] = json.loads(json.dumps(read_settings("0,2")))
    assert [gpu["index"] for gpu in told["gpus"]] == [0, 2]
    assert told["gpus"][0]["power_limit_w"] == 700.0
    (link,) = told["links"]
    assert (link["gpus"], link["path"]) == ([0, 2], "SYS")
    assert (link["nvlink"], link["peer_reads"]) == (False, True)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert read_settings()["gpus"] is None


def root_with(root: Path, files: dict[str, str]) -> Path:
    files = {"proc/self/cgroup": "0::/job\n"} | files
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_cpus_setting_is_read(tmp_path: Path) -> None:
    system = "sys/devices/system"
    files = {
        f"{system}/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        f"{system}/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
        f"{system}/cpu/smt/active": "1\n",
        f"{system}/cpu/intel_pstate/no_turbo": "1\n",
        f"{system}/node/node0/meminfo": "",
        f"{system}/node/node1/meminfo": "",
        "sys/fs/cgroup/cpu.max": "800000 100000\n",
        "sys/fs/cgroup/job/cpu.max": "max 100000\n",
    }
    cpu = read_cpu(root_with(tmp_path, files))
    assert (cpu.governor, cpu.smt, cpu.boost) == ("performance", True, False)
    assert (cpu.numa_nodes, cpu.quota_cores, cpu.absent) == (2, 8.0, {})


def test_a_governor_that_differs_between_cores_is_told_of_each(tmp_path: Path) -> None:
    names = ("powersave", "performance", "powersave")
    files = {
        f"sys/devices/system/cpu/cpu{n}/cpufreq/scaling_governor": f"{name}\n"
        for n, name in enumerate(names)
    }
    cpu = read_cpu(root_with(tmp_path, files))
    assert cpu.governor == "2 × powersave, 1 × performance"


def test_a_container_that_tells_nothing_gets_nulls_with_reasons(tmp_path: Path) -> None:
    cpu = read_cpu(root_with(tmp_path, {"proc/self/cgroup": "3:cpu,cpuacct:/\n"}))
    unknown = ("governor", "smt", "numa_nodes", "boost", "quota_cores")
    assert [getattr(cpu, name) for name in unknown] == [None] * 5
    assert set(cpu.absent) >= set(unknown)
