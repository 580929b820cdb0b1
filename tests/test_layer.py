import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "squad_lit"
ROOT = Path(__file__).parents[1] / "src" / PACKAGE

MATHS = {"quantizer", "loss", "anomaly", "metric", "visual", "generator", "discriminator", "synthesis", "defect"}
MATHS |= {"augmentation", "table", "threshold", "region", "tile", "seen"}
WIRING = {"dataset", "detector", "module", "memory", "callback", "logger", "panel", "backbone", "evaluation"}
WIRING |= {"predictor", "inference", "runtime", "quantization"}
ENTRY = {"command", "option", "train", "check", "predict", "export", "calibrate", "report", "view", "job", "sweep"}
ENTRY |= {"search"}
KNOW_HYDRA = {"command", "option", "train", "check", "job", "sweep", "search", "report"}

LIGHTNING = {"lightning", "pytorch_lightning", "lightning_fabric"}
HYDRA = {"hydra", "omegaconf"}


class Import(NamedTuple):
    """One imported dotted name: ``a.b.c`` for both ``import a.b.c`` and ``from a.b import c``."""

    name: str
    line: int
    top_level: bool

    @property
    def library(self) -> str:
        return self.name.partition(".")[0]


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Every import in the source of `module`, relative ones resolved, wherever it is written.

    `import_module("name")` and `__import__("name")` count when the name is a literal.
    """

    def visit(node: ast.AST, top_level: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, top_level)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno, top_level)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if function in {"import_module", "__import__"} and isinstance(node.args[0].value, str):
                yield Import(node.args[0].value, node.lineno, top_level)
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, top_level and not lazy)

    yield from visit(ast.parse(source), True)


def read_package(root: Path) -> dict[str, list[Import]]:
    """Dotted module name -> its imports, for every file of the package."""
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        modules[name] = list(imports(path.read_text(encoding="utf-8"), name, is_package=is_package))
    return modules


def layer_of(module: str) -> str:
    """The file or folder right below the package that decides the layer of a module."""
    return module.split(".")[1] if "." in module else ""


def target_of(imported: Import, modules: dict[str, list[Import]]) -> str | None:
    """The module of the package that an import names (``squad_lit.metric.aupro`` -> ``squad_lit.metric``)."""
    name = imported.name
    while name:
        if name in modules:
            return name
        name = name.rpartition(".")[0]
    return None


def reached_from(module: str, modules: dict[str, list[Import]]) -> Iterator[tuple[str, Import]]:
    """Each import of a module and of what it imports within the package, with the module where it is written."""
    seen, queue = {module}, [module]
    while queue:
        here = queue.pop()
        for imported in modules[here]:
            yield here, imported
            target = target_of(imported, modules)
            if target is not None and target not in seen:
                seen.add(target)
                queue.append(target)


def violations(modules: dict[str, list[Import]]) -> list[str]:
    """The layer rule of the architecture, broken where and how."""
    found = []

    def forbid(where: str, imported: Import, rule: str) -> None:
        found.append(f"{where}:{imported.line} imports {imported.name}: {rule}")

    for module, its_imports in modules.items():
        layer = layer_of(module)
        for imported in its_imports:
            library, target = imported.library, target_of(imported, modules)
            if library == "timm" and layer != "backbone":
                forbid(module, imported, "only backbone.py imports timm")
            if library in HYDRA and layer not in KNOW_HYDRA:
                forbid(module, imported, "only commands that run or read configurations know Hydra")
            if library == "wandb" and layer != "logger":
                forbid(module, imported, "only logger.py imports wandb")
            if library == "wandb" and imported.top_level:
                forbid(module, imported, "wandb is imported inside the function that needs it")
            if target is not None and layer_of(target) in ENTRY and layer not in ENTRY:
                forbid(module, imported, "only entry points import entry points")
        if layer in MATHS:
            for where, imported in reached_from(module, modules):
                target = target_of(imported, modules)
                if imported.library in LIGHTNING | HYDRA | {"wandb", "timm"}:
                    forbid(where, imported, f"{layer} is maths, which imports no framework")
                if target is not None and layer_of(target) in WIRING | ENTRY:
                    forbid(where, imported, f"{layer} is maths, which imports neither wiring nor entry points")
    return sorted(set(found))


def test_package_keeps_the_layer_rule():
    modules = read_package(ROOT)
    assert PACKAGE in modules, f"no package at {ROOT}"
    assert violations(modules) == []


def test_package_itself_imports_nothing_heavy():
    code = "import sys, squad_lit; print(sorted({'torch', 'numpy', 'PIL', 'lightning', 'hydra'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_imports_of_every_form():
    source = """
import torch.nn as nn, numpy
from . import loss
from .dataset import core
from .. import timm_not
try:
    from hydra.utils import instantiate
except ImportError:
    instantiate = None
class A:
    import lightning
    def f(self):
        import wandb
        importlib.import_module("omegaconf")
        return lambda: __import__("timm")
"""
    found = {imported.name: (imported.line, imported.top_level) for imported in imports(source, "squad_lit.a.b")}
    assert found == {
        "torch.nn": (2, True),
        "numpy": (2, True),
        "squad_lit.a.loss": (3, True),
        "squad_lit.a.dataset.core": (4, True),
        "squad_lit.timm_not": (5, True),
        "hydra.utils.instantiate": (7, True),
        "lightning": (11, True),
        "wandb": (13, False),
        "omegaconf": (14, False),
        "timm": (15, False),
    }


def test_relative_import_in_a_package_file_starts_at_the_package():
    (imported,) = imports("from .core import Sample", "squad_lit.dataset", is_package=True)
    assert imported.name == "squad_lit.dataset.core.Sample"


@pytest.mark.parametrize(
    ("file", "source", "complaint"),
    [
        ("metric", "import lightning", "imports no framework"),
        ("metric", "def f():\n    from pytorch_lightning import Callback", "imports no framework"),
        ("loss", "from squad_lit.dataset.core import Sample", "neither wiring nor entry points"),
        ("loss", "from squad_lit import train", "neither wiring nor entry points"),
        ("anomaly", "from . import helper", "helper:1 imports lightning"),
        ("visual", "import wandb", "only logger.py imports wandb"),
        ("generator", "import timm", "only backbone.py imports timm"),
        ("module", "from omegaconf import DictConfig", "only commands that run or read configurations know Hydra"),
        ("predict", "import hydra", "only commands that run or read configurations know Hydra"),
        ("dataset/visa", "from ..train import main", "only entry points import entry points"),
        ("logger", "import wandb", "inside the function that needs it"),
        ("logger", "class A:\n    try:\n        import wandb\n    except ImportError: ...", "inside the function"),
    ],
)
def test_rule_can_fail(tmp_path, file, source, complaint):
    root = write_package(tmp_path, {file: source})
    found = violations(read_package(root))
    assert any(complaint in line for line in found), found


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("metric", "import numpy\nimport torch\nfrom torchmetrics import Metric\nfrom .loss import dice"),
        ("backbone", "import timm"),
        ("module", "import lightning\nfrom squad_lit import loss, metric"),
        ("train", "import hydra\nfrom omegaconf import OmegaConf\nfrom . import callback, module, report"),
        ("logger", "def log(logger):\n    import wandb"),
        ("dataset/visa", "import lightning\nfrom .core import Sample\nfrom ..synthesis import perlin"),
    ],
)
def test_rule_allows(tmp_path, file, source):
    assert violations(read_package(write_package(tmp_path, {file: source}))) == []


def write_package(folder: Path, changed: dict[str, str]) -> Path:
    """A package with an empty file for each layer, but for `changed`, and a helper that imports Lightning."""
    root = folder / PACKAGE
    files = dict.fromkeys([*MATHS, *WIRING - {"dataset"}, *ENTRY, "dataset/core", "dataset/visa"], "")
    files |= {"__init__": "", "dataset/__init__": "", "helper": "import lightning"} | changed
    for name, source in files.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return root
