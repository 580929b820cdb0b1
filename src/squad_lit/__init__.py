"""Reconstruction-based visual anomaly detection with finite scalar quantisation, on PyTorch Lightning and Hydra.

A frozen backbone describes an image, a generator reconstructs the normal part of that description through discrete
codes, a discriminator learns from synthetic anomalies where the reconstruction differs in a way that matters, and the
two are combined into an anomaly map and an anomaly score. Independent implementation of the idea in the abstract of
SQUAD (Lin and Lai, ECCV Workshops 2024). ``import squad_lit`` alone imports neither torch nor NumPy.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found,unused-ignore]  # signal imports more
import os
import sys

# While a command of ours is imported, which takes seconds from a cold disk, Ctrl-C ends it without a stack trace;
# squad_lit.system.console.exit_status handles it from then on. A program that imports us has its own way.
_is_command = sys.argv[:1] == ["-m"] and any(text.partition(".")[0] == "squad_lit" for text in sys.orig_argv)
_is_command |= os.path.basename((sys.argv or [""])[0]) in ("squad-lit", "squad-lit.exe")
if _is_command and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import importlib  # noqa: E402
from typing import TYPE_CHECKING, Any  # noqa: E402

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor as Predictor
    from squad_lit.deploy.predictor import Result as Result
    from squad_lit.deploy.predictor import load as load
    from squad_lit.run.fit import fit as fit

    __version__: str

__all__ = ["Predictor", "Result", "__version__", "fit", "load"]

# Where the public names are; they are imported when they are asked for.
_MODULES = {
    "Predictor": "squad_lit.deploy.predictor",
    "Result": "squad_lit.deploy.predictor",
    "fit": "squad_lit.run.fit",
    "load": "squad_lit.deploy.predictor",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from squad_lit.system.package import version

        return version()
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
