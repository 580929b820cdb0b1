"""Reconstruction-based visual anomaly detection with finite scalar quantisation, on PyTorch Lightning and Hydra.

A frozen backbone describes an image, a generator reconstructs the normal part of that description through discrete
codes, a discriminator learns from synthetic anomalies where the reconstruction differs in a way that matters, and the
two are combined into an anomaly map and an anomaly score. Independent implementation of the idea in the abstract of
SQUAD (Lin and Lai, ECCV Workshops 2024). This module imports nothing heavy: ``import squad_lit`` costs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("squad_lit")
except PackageNotFoundError:  # run from a checkout by PYTHONPATH=src, not installed
    __version__ = "0.0.0+uninstalled"

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from squad_lit.deploy.predictor import Predictor

__all__ = ["__version__", "load"]


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
        false_alarm_rate: Share of normal images that may be called anomalous; None: known defects decide
            (``squad_lit.calibrate``) or, without them, the rate of the training or of the export.
        roi: Region of interest, an image file or an array ``(H, W)``: only where it is not zero images are judged.
        trust: Packages, beside squad_lit, whose classes a checkpoint may name: those of your own parts.

    Example:
        .. code-block:: python

            detector = squad_lit.load("runs/demo/last.ckpt")
            result = detector.predict("part.png")
            print(result.anomaly_score, result.label, result.regions)
    """
    from squad_lit.deploy.predictor import Predictor  # NumPy is imported here, and not by "import squad_lit"
    from squad_lit.deploy.runtime import open_runtime

    return Predictor(open_runtime(path, runtime, trust=trust), false_alarm_rate=false_alarm_rate, roi=roi)
