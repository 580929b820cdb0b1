"""Packages that only some features need: imported when they are used, and named with their command when missing."""

from __future__ import annotations

import importlib
import re
from typing import Any

# Modules whose package has another name.
_NAMES = {
    "PIL": "pillow",
    "hydra": "hydra-core",
    "mlflow": "mlflow-skinny",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic",
    "python_multipart": "python-multipart",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
}


def version() -> str:
    """The version of the installed squad_lit."""
    from importlib import metadata  # slow, and rarely needed

    try:
        return metadata.version("squad_lit")
    except metadata.PackageNotFoundError:  # a checkout on PYTHONPATH, not installed
        return "0.0.0+uninstalled"


def require(module: str) -> Any:
    """Import a module.

    Raises:
        ImportError: It cannot be imported; the message says what installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(explain(error), name=error.name) from error


def explain(error: ImportError) -> str:
    """What an import error says; if a package of squad_lit is missing, its name and the command that installs it."""
    module = (error.name or "").partition(".")[0]
    package = _NAMES.get(module, module)
    if not isinstance(error, ModuleNotFoundError) or (extra := _extra(package)) is None:
        return str(error)
    return f"this needs the package {package}: pip install " + (f"'squad_lit[{extra}]'" if extra else package)


def _extra(package: str) -> str | None:
    """The smallest extra of squad_lit that has a package; empty if every install has it; None if no install has it."""
    from importlib import metadata

    try:
        lines = metadata.requires("squad_lit") or []
    except metadata.PackageNotFoundError:
        return None
    packages: dict[str, set[str]] = {}
    for line in lines:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"""extra == ["']([\w-]+)""", line)
        packages.setdefault(extra.group(1) if extra else "", set()).add(_normal(name.group() if name else ""))
    having = [extra for extra, names in packages.items() if _normal(package) in names]
    return min(having, key=lambda extra: (extra != "", len(packages[extra])), default=None)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
