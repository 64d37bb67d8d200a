"""Whatever a loader makes of a checkpoint tensor on the way, the copy names the tensor's box."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any, TypeAlias

import pytest

from fixtures.dry import SCRIPT

pytestmark = pytest.mark.dry

Record: TypeAlias = tuple[list[dict[str, Any]], list[dict[str, Any]]]  # copies, fills

# `a` is a checkpoint tensor of shape 4 × 6, `b` another, `p` a parameter of shape 8 × 6. Expected
# of each copy: the tensor, begin and size of the box read, begin and size of the box written.
CASES: dict[str, tuple[str, list[list[object]]]] = {
    "a slice": ("p[2:4].copy_(a.narrow(0, 1, 2))", [["a", [1, 0], [2, 6], [2, 0], [2, 6]]]),
    "another dtype": (
        "p[:2].copy_(a[1:3].to(torch.float64))",
        [["a", [1, 0], [2, 6], [0, 0], [2, 6]]],
    ),
    "arithmetic": (
        "p[:4].copy_(-torch.exp(a.float() + 1))",
        [["a", [0, 0], [4, 6], [0, 0], [4, 6]]],
    ),
    "transposed twice": (
        "p[:3, :4].copy_(a.t().contiguous()[3:])",
        [["a", [0, 3], [4, 3], [0, 0], [3, 4]]],
    ),
    "two joined, one taken": (
        "p[:2].copy_(torch.cat([a, b])[5:7])",
        [["b", [1, 0], [2, 6], [0, 0], [2, 6]]],
    ),
    "two joined, both taken": (
        "p[:4].copy_(torch.cat([a, b])[2:6])",
        [["a", [2, 0], [2, 6], [0, 0], [2, 6]], ["b", [0, 0], [2, 6], [2, 0], [2, 6]]],
    ),
    "stacked": ("p[:4].copy_(torch.stack([a, b])[1])", [["b", [0, 0], [4, 6], [0, 0], [4, 6]]]),
    "a buffer between": (
        "t = torch.empty(8, 6, device='meta'); t[4:].copy_(a); p[:2].copy_(t[6:])",
        [["a", [2, 0], [2, 6], [0, 0], [2, 6]]],
    ),
    "a parameter that is the tensor": (
        "model.p.data = a[:, 2:].contiguous()",
        [["a", [0, 2], [4, 4], [0, 0], [4, 4]]],
    ),
    "a row repeated": ("p[:1].copy_(a[1])", [["a", [1, 0], [1, 6], [0, 0], [1, 6]]]),
    "each row twice, two rows taken": (
        "p[:2].copy_(a.repeat_interleave(2, dim=0)[2:4])",
        [["a", [1, 0], [1, 6], [0, 0], [2, 6]]],
    ),
    "reshaped": ("p[:6, :4].copy_(a.reshape(6, 4))", [["a", [0, 0], [4, 6], [0, 0], [6, 4]]]),
    "no box": ("p[0].copy_(a.flatten()[3:9])", [["a", None, None, [0, 0], [1, 6]]]),
    "nothing of the checkpoint": ("p.copy_(torch.zeros(8, 6, device='meta'))", []),
}
PROGRAM = """
import importlib.util, json, sys, torch
def load(path):
    spec = importlib.util.spec_from_file_location(path.rpartition("/")[2][:-3], path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return module
box_of, dry = load(sys.argv[1]).box_of, load(sys.argv[2])
for line in sys.stdin:
    lineage = dry.Lineage(box_of)
    a, b = (torch.empty(4, 6, device="meta") for _ in range(2))
    lineage.root("a", a)
    lineage.root("b", b)
    model = torch.nn.Module()
    model.p = torch.nn.Parameter(torch.empty(8, 6, device="meta"), requires_grad=False)
    with (watch := dry.Watch(lineage, model)):
        exec(json.loads(line), {"a": a, "b": b, "model": model, "p": model.p.data, "torch": torch})
    print(json.dumps(watch.records()))
"""


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("no torch is installed in this environment: `tox -e cpu -- suites/dry`")
    files = (SCRIPT.parents[1] / "audit.py", SCRIPT.with_name("dry_lineage.py"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, files)],
        input="".join(json.dumps(code) + "\n" for code, _ in CASES.values()),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return dict(zip(CASES, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_copy_is_traced_to_the_checkpoint(case: str, records: dict[str, Record]) -> None:
    copies, _ = records[case]
    keys = ("tensor", "begin", "size", "to_begin", "to_size")
    found = sorted([copy[key] for key in keys] for copy in copies)
    assert found == CASES[case][1]


def test_what_the_loader_writes_by_itself_is_kept_apart(
    records: dict[str, Record],
) -> None:
    _, fills = records["nothing of the checkpoint"]
    assert fills == [{"parameter": "p", "to_begin": [0, 0], "to_size": [8, 6]}]
