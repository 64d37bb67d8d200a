"""The house's layers, read off the imports: a module imports only its own or a smaller layer."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PURE, EFFECTS, CLAIMS, GLUE = 0, 1, 2, 3

# Module prefix → layer; the longest prefix decides.
LAYERS = {
    "conftest": GLUE,
    "fixtures": EFFECTS,
    "fixtures.boxes": PURE,
    "fixtures.checkpoint": PURE,
    "fixtures.checkpoint.moves": EFFECTS,
    "fixtures.checkpoint.projections": EFFECTS,
    "fixtures.checkpoint.streams": EFFECTS,
    "fixtures.checkpoint.tensors": EFFECTS,
    "fixtures.checkpoint.weights": EFFECTS,
    "fixtures.checkpoint.writing": EFFECTS,
    "fixtures.commands": PURE,
    "fixtures.coverage": PURE,
    "fixtures.dry_findings": PURE,
    "fixtures.errors": PURE,
    "fixtures.kernels": PURE,
    "fixtures.layer_rules": PURE,
    "fixtures.objections": PURE,
    "fixtures.serving.conditions": PURE,
    "fixtures.share": PURE,
    "fixtures.load.bench_results": PURE,
    "fixtures.load.instrument": EFFECTS,
    "fixtures.load.prompts": PURE,
    "fixtures.load.streams": PURE,
    "fixtures.loaders": PURE,
    "fixtures.memory": PURE,
    "fixtures.options": PURE,
    "fixtures.miniature_grid": PURE,
    "fixtures.platforms": PURE,
    "fixtures.plugin": GLUE,
    "fixtures.prediction": PURE,
    "fixtures.recommendation": PURE,
    "fixtures.reality": PURE,
    "fixtures.repairs": PURE,
    "fixtures.rules": PURE,
    "fixtures.stages": PURE,
    "fixtures.sizing": PURE,
    "fixtures.strategy": PURE,
    "fixtures.tokenizer": PURE,
    "fixtures.verdicts": PURE,
    "reports": PURE,
    "reports.plugin": GLUE,
    "suites": CLAIMS,
    "suites.benchmarks": GLUE,
    "suites.conftest": GLUE,
    "suites.oracles.test_bench": GLUE,
    "suites.selftest": GLUE,
    "suites.selftest.small_configs": CLAIMS,
}
# What runs inside the engine's processes, and nothing else, may import the engine.
INSIDE = (
    "fixtures/serving/audit.py",
    "fixtures/serving/inside/",
    "fixtures/autoawq.py",
    "suites/oracles/inside/",
)
# A program of its own, started as a process: what it measures itself against needs torch.
EXECUTED = (
    "suites/benchmarks/recipe.py",
    "suites/training/accuracy.py",
    "suites/training/model.py",
    "suites/training/train.py",
)
OWN = ("fixtures", "suites", "reports", "conftest")


def sources() -> list[Path]:
    folders = ("fixtures", "suites", "reports")
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [ROOT / "conftest.py", *found]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> int:
    prefixes = [known for known in LAYERS if module == known or module.startswith(f"{known}.")]
    return LAYERS[max(prefixes, key=len)]


def imports(path: Path) -> set[str]:
    """Every module a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found.add(module)
            # `from fixtures import plugin` imports a module, not a name of the package.
            inside = ROOT / module.replace(".", "/")
            found |= {
                f"{module}.{a.name}" for a in node.names if (inside / f"{a.name}.py").exists()
            }
    return found


def breaches(path: Path) -> list[str]:
    """The rules one file breaks, in words."""
    name, here = module_name(path), path.relative_to(ROOT).as_posix()
    inside = here.startswith(INSIDE)
    found = []
    for imported in sorted(imports(path)):
        top = imported.partition(".")[0]
        if not top:
            found.append(f"{name} imports {imported} relatively: its layer would not be read")
        if top in OWN:
            if inside:
                found.append(f"{name} runs inside the engine and imports {imported}")
            elif layer(imported) > layer(name):
                found.append(f"{name} (layer {layer(name)}) imports {imported}")
            if {top, name.partition(".")[0]} == {"fixtures", "reports"}:
                found.append(f"{name} imports {imported}: fixtures and reports never meet")
        if top in ("vllm", "torch", "torchvision") and not inside and here not in EXECUTED:
            found.append(f"{name} imports {imported}: the engine is executed, not imported")
        if top == "pytest" and layer(name) < CLAIMS:
            found.append(f"{name} imports pytest below the claims")
    return found


@pytest.mark.parametrize("path", sources(), ids=module_name)
def test_no_module_imports_from_a_higher_layer(path: Path) -> None:
    assert breaches(path) == []


def test_a_breach_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "fixtures").mkdir()
    wrong = tmp_path / "fixtures" / "planner.py"
    (tmp_path / "fixtures" / "plugin.py").touch()
    lines = (
        "import vllm",
        "import pytest",
        "from fixtures import plugin",
        "import reports.html",
        "from . import matrix",
    )
    wrong.write_text("\n".join(lines))
    assert len(breaches(wrong)) == len(lines)
