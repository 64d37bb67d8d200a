"""The repairs that run in the engine's processes, on packages that are broken in the same way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.serving.server import INSIDE

TORCH = """
defined = {}
class Library:
    def __init__(self, *_): pass
    def define(self, schema): defined[schema.partition("(")[0]] = self
    def __del__(self): defined.clear()
class library: Library = Library
def register(name):
    if name not in defined: raise RuntimeError(f"operator torchvision::{name} does not exist")
"""
VISION = """
import torch
from torchvision import registrations
from torchvision import ops
images = "work"
"""
REGISTRATIONS = "import torch\ntorch.register('nms')\ntorch.register('qnms')\n"
SOUND = "early = 1\nraise OSError('Could not load this library: x.so')\n"


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    for name, text in {
        "torch.py": TORCH,
        "torchvision/__init__.py": VISION,
        "torchvision/registrations.py": REGISTRATIONS,
        "torchvision/ops.py": "",
        "torchaudio/__init__.py": SOUND,
        "torchcodec/__init__.py": SOUND,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def run(packages: Path, code: str, *, repaired: bool = True) -> subprocess.CompletedProcess[str]:
    path = [str(INSIDE), str(packages)] if repaired else [str(packages)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30
    )


def said(packages: Path, code: str) -> str:
    done = run(packages, code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_fakes_are_broken_without_the_repair(packages: Path) -> None:
    broken = run(packages, "import torchvision", repaired=False)
    assert "operator torchvision::nms does not exist" in broken.stderr


def test_torchvision_imports_once_its_schemas_are_defined(packages: Path) -> None:
    code = "import torchvision, torch; print(torchvision.images, *sorted(torch.defined))"
    assert said(packages, code) == "work nms qnms"


def test_a_whole_torchvision_is_left_alone(packages: Path) -> None:
    (packages / "torchvision" / "registrations.py").write_text("")
    done = run(packages, "import torchvision, torch; print(len(torch.defined))")
    assert (done.stdout.strip(), done.stderr) == ("0", "")


def test_an_operator_nobody_knows_stays_an_error(packages: Path) -> None:
    (packages / "torchvision" / "registrations.py").write_text("torch.register('warp')")
    (packages / "torchvision" / "__init__.py").write_text("import torch; torch.register('warp')")
    broken = run(packages, "import torchvision")
    assert "operator torchvision::warp does not exist" in broken.stderr
    assert broken.returncode == 1


def test_torchaudio_is_imported_empty_where_its_extension_does_not_load(packages: Path) -> None:
    done = run(packages, "import torchaudio")
    assert done.returncode == 0
    assert "left torchaudio empty" in done.stderr


def test_torchcodec_counts_as_not_installed_where_its_extension_does_not_load(
    packages: Path,
) -> None:
    code = "try:\n    import torchcodec\nexcept ImportError as error: print(error)"
    assert "Could not load this library" in said(packages, code)


def test_a_shadowed_sitecustomize_is_run_as_well(packages: Path) -> None:
    (packages / "sitecustomize.py").write_text("import sys; sys.shadowed = True")
    assert said(packages, "import sys; print(sys.shadowed)") == "True"


def test_a_process_that_needs_no_repair_imports_nothing(packages: Path) -> None:
    code = "import sys; print('torch' in sys.modules, 'torchvision' in sys.modules)"
    assert said(packages, code) == "False False"
