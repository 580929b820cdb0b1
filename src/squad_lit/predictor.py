"""A trained model for new images of any size: ``squad_lit.load(path).predict(image)``. No torch of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from squad_lit.image_file import read_pixels
from squad_lit.region import Region, connected_regions
from squad_lit.runtime import Runtime
from squad_lit.threshold import choose

if TYPE_CHECKING:
    from torch import Tensor


class Result(NamedTuple):
    """What is known of one image.

    Args:
        anomaly_map: ``(H, W)`` float32 at the image's own resolution, in deviations from normal.
        anomaly_score: Of the image, in the same unit.
        label: 1 = anomalous: the score exceeds the threshold.
        mask: ``(H, W)`` bool: where the map exceeds the pixel threshold.
        regions: ``(row, column, height, width, area)`` in pixels of each connected part of the mask, the largest first.
    """

    anomaly_map: NDArray[np.float32]
    anomaly_score: float
    label: int
    mask: NDArray[np.bool_]
    regions: list[Region]


class Predictor:
    """A trained model, ready for images of any size.

    Args:
        runtime: The model, on whatever it runs.
        false_alarm_rate: Share of normal images that may be called anomalous; None: what the model was exported with,
            of a checkpoint the threshold that tells known defects best (``squad_lit.calibrate``), else a rate of 0.01.
            The threshold of the score, and that of the map's highest pixel, come from normal images that were not
            trained on.

    Raises:
        ValueError: A rate out of range.
    """

    def __init__(self, runtime: Runtime, *, false_alarm_rate: float | None = None) -> None:
        self.runtime = runtime
        about = runtime.metadata
        rate = about["false_alarm_rate"] if false_alarm_rate is None else false_alarm_rate
        known = (about["normal_scores"], about["normal_maxima"], about["defective_scores"])
        self.threshold, self.pixel_threshold = choose(*known, rate)

    def read(self, path: str | Path) -> NDArray[Any]:
        """An image file as the training reads it: ``(H, W, 3)`` uint8, or float32 in [0, 1]."""
        return read_pixels(path, self.runtime.metadata["intensity_range"])

    def predict(self, image: Tensor | NDArray[Any] | Image.Image | str | Path) -> Result:
        """Look at one image.

        Args:
            image: A file; a PIL image; an array ``(H, W)`` or ``(H, W, 3)``, uint8 or float in [0, 1]; or a tensor
                ``(3, H, W)`` in [0, 1].

        Raises:
            OSError: A file that cannot be read.
            ValueError: Another shape or type.
        """
        pixels = self.read(image) if isinstance(image, str | Path) else _to_pixels(image)
        anomaly_map, score = (found[0] for found in self.runtime.run(pixels[None]))
        mask = anomaly_map > self.pixel_threshold.value
        value = float(score)
        return Result(anomaly_map, value, int(value > self.threshold.value), mask, connected_regions(mask))


def _to_pixels(image: Tensor | NDArray[Any] | Image.Image) -> NDArray[Any]:
    """``(H, W, 3)``: uint8, or float32 in [0, 1]."""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is not None and isinstance(image, torch.Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise ValueError(f"image: expected a float tensor (3, H, W), got {tuple(image.shape)} of {image.dtype}")
        image = image.detach().permute(1, 2, 0).cpu().numpy()
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, -1)
    if array.ndim != 3 or array.shape[-1] != 3:
        raise ValueError(f"image: expected an array (H, W) or (H, W, 3), got shape {array.shape}")
    if array.dtype == np.uint8:
        return array
    if array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"image: expected values in [0, 1], got {array.min():.3g} to {array.max():.3g}; divide by the largest "
            f"value that the camera gives"
        )
    return np.ascontiguousarray(array, np.float32)
