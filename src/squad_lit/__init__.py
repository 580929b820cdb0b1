"""Reconstruction-based visual anomaly detection with finite scalar quantisation, on PyTorch Lightning and Hydra.

A frozen backbone describes an image, a generator reconstructs the normal part of that description through discrete
codes, a discriminator learns from synthetic anomalies where the reconstruction differs in a way that matters, and the
two are combined into an anomaly map and an anomaly score. Independent implementation of the idea in the abstract of
SQUAD (Lin and Lai, ECCV Workshops 2024). ``import squad_lit`` alone imports neither torch nor NumPy.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from squad_lit.deploy.predictor import Predictor as Predictor
    from squad_lit.deploy.predictor import Result as Result
    from squad_lit.run.fit import fit as fit

    __version__: str

__all__ = ["Predictor", "Result", "__version__", "fit", "load"]

# Where the public names come from that are imported when they are asked for.
_LAZY = {"Predictor": "squad_lit.deploy.predictor", "Result": "squad_lit.deploy.predictor", "fit": "squad_lit.run.fit"}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("squad_lit")
        except PackageNotFoundError:  # run from a checkout by PYTHONPATH=src, not installed
            return "0.0.0+uninstalled"
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def load(
    path: str | Path,
    *,
    runtime: str | None = None,
    false_alarm_rate: float | None = None,
    roi: NDArray[Any] | str | Path | None = None,
    trust: Sequence[str] = (),
) -> Predictor:
    """A trained model for new images, from one file alone.

    Args:
        path: ``last.ckpt`` of a run, or what ``squad_lit.export`` has made of it.
        runtime: ``torch``, ``onnx`` or ``openvino``; None: by the file's suffix.
        false_alarm_rate: Share of normal images that may be called anomalous, in (0, 1); None: known defects choose the
            threshold (``squad_lit.calibrate``) or, without them, the rate of the training or of the export does.
        roi: Region of interest, an image file or an array ``(H, W)``: only where it is not zero is an image judged.
        trust: Packages, beside squad_lit, whose classes a checkpoint may name: those of your own parts.

    Raises:
        FileNotFoundError: No such file.
        ValueError: A file of another runtime, damaged, or exported by another version; a rate out of range.
        ImportError: The package that runs the model is not installed; the message says what installs it.

    Example:
        ::

            detector = squad_lit.load("runs/demo/last.ckpt")
            result = detector.predict("part.png")
            print(result.anomaly_score, result.label, result.regions)
            results = detector.predict(["a.png", "b.png"])
    """
    from squad_lit.deploy.predictor import Predictor
    from squad_lit.deploy.runtime import open_runtime

    return Predictor(open_runtime(path, runtime, trust=trust), false_alarm_rate=false_alarm_rate, roi=roi)
