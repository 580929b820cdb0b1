"""What is said about a missing package, with the metadata that an install of pyproject.toml has."""

import ast
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from squad_lit.system.package import explain, require

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metadata as hatchling writes them: extras that are made of others are resolved."""
    extras = PROJECT["optional-dependencies"]

    def resolve(extra: str) -> list[str]:
        found = []
        for line in extras[extra]:
            parts = line.removeprefix("squad_lit[").rstrip("]").split(",") if line.startswith("squad_lit[") else []
            found += [other for part in parts for other in resolve(part)] or [line]
        return found

    lines = PROJECT["dependencies"] + [f"{line}; extra == '{extra}'" for extra in extras for line in resolve(extra)]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)


def said(module: str) -> str:
    return explain(ModuleNotFoundError(f"No module named {module!r}", name=module))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("torch", "this needs the package torch: pip install 'squad_lit[train]'"),
        ("torch.nn", "this needs the package torch: pip install 'squad_lit[train]'"),
        ("tqdm", "this needs the package tqdm: pip install 'squad_lit[train]'"),
        ("hydra", "this needs the package hydra-core: pip install 'squad_lit[train]'"),
        ("skimage", "this needs the package scikit-image: pip install 'squad_lit[train]'"),
        ("onnxruntime", "this needs the package onnxruntime: pip install 'squad_lit[onnx]'"),
        ("openvino", "this needs the package openvino: pip install 'squad_lit[openvino]'"),
        ("onnx", "this needs the package onnx: pip install 'squad_lit[export]'"),
        ("optuna", "this needs the package optuna: pip install 'squad_lit[sweep]'"),
        ("PIL", "this needs the package pillow: pip install pillow"),
        ("wandb_workspaces", "this needs the package wandb_workspaces: pip install 'squad_lit[workspace]'"),
    ],
)
def test_the_smallest_extra_that_has_the_package_is_named(module: str, words: str) -> None:
    assert said(module) == words


def test_of_foreign_modules_no_install_is_recommended() -> None:
    assert said("mypackage") == "No module named 'mypackage'"
    assert said("squad_lit.nothing") == "No module named 'squad_lit.nothing'"
    assert explain(ImportError("libGL.so.1: cannot open shared object file", name="torch")).startswith("libGL.so.1")


def test_each_package_that_the_source_imports_is_one_of_an_install() -> None:
    imported = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])
    foreign = imported - {*sys.stdlib_module_names, "squad_lit", "hydra_plugins"}
    assert len(foreign) > 15
    assert [module for module in sorted(foreign) if "pip install" not in said(module)] == []


def test_a_module_is_imported_or_what_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert require("json").loads("1") == 1
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"this needs the package onnxruntime: pip install 'squad_lit\[onnx\]'"):
        require("onnxruntime")


def test_without_metadata_the_error_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", fail)
    assert said("torch") == "No module named 'torch'"
