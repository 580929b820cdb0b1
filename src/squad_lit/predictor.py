"""A trained model for new images of any size: ``squad_lit.load(path).predict(image)``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from squad_lit import checkpoint
from squad_lit.anomaly import resize_map
from squad_lit.dataset.image import read_image, resize
from squad_lit.threshold import Threshold, from_normals


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
    regions: list[tuple[int, int, int, int, int]]


class Predictor:
    """A trained model, ready for images of any size.

    Args:
        path: A checkpoint that a run wrote.
        false_alarm_rate: Share of normal images that may be called anomalous. The threshold of the score, and that of
            the map's highest pixel, come from the normal images that were held out of the training.

    Raises:
        FileNotFoundError: No such checkpoint.
        ValueError: A damaged or foreign one, or a rate out of range.
    """

    def __init__(self, path: str | Path, *, false_alarm_rate: float = 0.01) -> None:
        self.module = checkpoint.load(path)
        self.image_size = (self.module.image_size[0], self.module.image_size[1])
        self.intensity_range = self.module.data.get("intensity_range")
        self.threshold: Threshold = from_normals(self.module.normal["score"], false_alarm_rate)
        self.pixel_threshold: Threshold = from_normals(self.module.normal["maximum"], false_alarm_rate)

    def read(self, path: str | Path) -> Tensor:
        """An image file as the training reads it: ``(3, H, W)`` float32 in [0, 1]."""
        return read_image(path, self.intensity_range)

    @torch.inference_mode()
    def predict(self, image: Tensor | NDArray[Any] | Image.Image | str | Path) -> Result:
        """Look at one image.

        Args:
            image: A file; a PIL image; an array ``(H, W)`` or ``(H, W, 3)``, uint8 or float in [0, 1]; or a tensor
                ``(3, H, W)`` in [0, 1].

        Raises:
            OSError: A file that cannot be read.
            ValueError: Another shape or type.
        """
        whole = self.read(image) if isinstance(image, str | Path) else _to_tensor(image)
        size = whole.shape[-2:]
        small, score = self.module.predict(resize(whole, self.image_size)[None])
        anomaly_map = resize_map(small[None], size)[0, 0].numpy()
        mask = anomaly_map > self.pixel_threshold.value
        value = float(score[0])
        return Result(anomaly_map, value, int(value > self.threshold.value), mask, _regions(mask))


def _to_tensor(image: Tensor | NDArray[Any] | Image.Image) -> Tensor:
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if isinstance(image, np.ndarray):
        array = np.repeat(image[..., None], 3, -1) if image.ndim == 2 else image
        if array.ndim != 3 or array.shape[-1] != 3:
            raise ValueError(f"image: expected an array (H, W) or (H, W, 3), got shape {image.shape}")
        if array.dtype == np.uint8:
            array = array.astype(np.float32) / 255
        image = torch.from_numpy(np.ascontiguousarray(array, np.float32)).permute(2, 0, 1)
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(f"image: expected a float tensor (3, H, W), got {tuple(image.shape)} of {image.dtype}")
    if image.min() < 0 or image.max() > 1:
        raise ValueError(
            f"image: expected values in [0, 1], got {float(image.min()):.3g} to {float(image.max()):.3g}; divide by "
            f"the largest value that the camera gives"
        )
    return image.float()


def _regions(mask: NDArray[np.bool_]) -> list[tuple[int, int, int, int, int]]:
    labelled, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(labelled)
    found = [
        (rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start, int(area))
        for (rows, cols), area in zip(boxes, areas, strict=True)
    ]
    return sorted(found, key=lambda region: -region[-1])
