"""A trained model for new images of any size: ``squad_lit.load(path).predict(image)``. No torch of its own."""

from __future__ import annotations

import hashlib
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from squad_lit.deploy.runtime import Output, Runtime
from squad_lit.deploy.threshold import choose
from squad_lit.image.file import read_marked, read_pixels, resize_pixels, resize_plane, to_pixels
from squad_lit.image.region import Region, connected_regions
from squad_lit.image.tile import AT_ONCE, Grid

if TYPE_CHECKING:
    from torch import Tensor


class Result(NamedTuple):
    """What is known of one image.

    Args:
        anomaly_map: ``(H, W)`` float32 at the image's own resolution, in deviations from normal; NaN outside of the
            region of interest, if there is one.
        anomaly_score: Of the image, or of the region of interest, in the same unit.
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
        false_alarm_rate: Share of normal images that may be called anomalous; None: the threshold that tells known
            defects best (``squad_lit.calibrate``) or, without them, the rate of the training or of the export. The
            threshold of the score, and that of the map's highest pixel, come from normal images that were not trained
            on.
        roi: Region of interest: an image file, or an array ``(H, W)``. What is not zero is judged; the rest is looked
            at, but counts for nothing. It is scaled to the size of each image by nearest neighbour. The score is the
            mean of as many pixels as without a region, so that it is never higher, and the thresholds of whole images
            let at most the stated share of false alarms through; ``squad_lit.calibrate`` finds those of the region.

    Raises:
        ValueError: A rate out of range, or a region that is empty or of another shape.
        OSError: The file of the region cannot be read.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        false_alarm_rate: float | None = None,
        roi: NDArray[Any] | str | Path | None = None,
    ) -> None:
        self.runtime = runtime
        self.roi = None if roi is None else _to_region(roi)
        about = runtime.metadata
        rate = about["false_alarm_rate"] if false_alarm_rate is None else false_alarm_rate
        known = (about["normal_scores"], about["normal_maxima"], about["defective_scores"])
        self.threshold, self.pixel_threshold = choose(*known, rate)
        if about["roi"] and about["roi"] != self.roi_digest:
            warnings.warn(
                "the thresholds come from a region of interest (calibrate --roi), and this is not it: expect other "
                "false-alarm rates than stated",
                stacklevel=3,
            )

    @property
    def roi_digest(self) -> str:
        """Tells regions of interest apart; empty without one."""
        if self.roi is None:
            return ""
        return hashlib.sha256(str(self.roi.shape).encode() + np.packbits(self.roi).tobytes()).hexdigest()[:12]

    def read(self, path: str | Path) -> NDArray[Any]:
        """An image file as the training reads it: ``(H, W, 3)`` uint8, or float32 in [0, 1]."""
        return read_pixels(path, self.runtime.metadata["intensity_range"])

    def predict(self, image: Tensor | NDArray[Any] | Image.Image | str | Path) -> Result:
        """Look at one image.

        Args:
            image: A file; a PIL image, which is treated as a file is; an array ``(H, W)`` or RGB ``(H, W, 3)``, uint8
                or float in [0, 1]; or a tensor ``(3, H, W)`` in [0, 1].

        Raises:
            OSError: A file that cannot be read.
            ValueError: Another shape or type.
        """
        if isinstance(image, str | Path):
            pixels = self.read(image)
        elif isinstance(image, Image.Image):
            pixels = to_pixels(ImageOps.exif_transpose(image), "image", self.runtime.metadata["intensity_range"])
        else:
            pixels = _to_array(image)
        anomaly_map, score, model_map = self._look(pixels)
        if self.roi is not None:
            shown = np.asarray(Image.fromarray(self.roi).resize(pixels.shape[1::-1], Image.Resampling.NEAREST))
            if not shown.any():  # it lies between the pixels of a smaller image
                shown = _scaled(self.roi, pixels.shape[:2])
            anomaly_map = np.where(shown, anomaly_map, np.float32(np.nan))
            score = self._score(model_map, _scaled(self.roi, model_map.shape))
        mask = anomaly_map > self.pixel_threshold.value
        return Result(anomaly_map, score, int(score > self.threshold.value), mask, connected_regions(mask))

    def _look(self, pixels: NDArray[Any]) -> tuple[NDArray[np.float32], float, NDArray[np.float32]]:
        """Map at the image's own resolution, score, and map at the model's size, of a whole image ``(H, W, 3)``."""
        about = self.runtime.metadata
        if about["tile"] is None:
            found = Output(*(part[0] for part in self.runtime.run(pixels[None])))
            return found.anomaly_map, float(found.anomaly_score), found.model_map
        image = resize_pixels(pixels, about["image_size"])
        grid = Grid(about["image_size"], **about["tile"])
        model_map = np.zeros(grid.size, np.float32)
        for start in range(0, len(grid), AT_ONCE):
            windows = grid.windows[start : start + AT_ONCE]
            maps = self.runtime.run(np.stack([image[window] for window in windows])).model_map
            for number, (window, tile) in enumerate(zip(windows, maps, strict=True), start):
                model_map[window] += grid.weight(number) * tile
        return resize_plane(model_map, pixels.shape[:2]), self._score(model_map, np.ones(grid.size, bool)), model_map

    def _score(self, model_map: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
        """Mean of the highest pixels inside, as many as ``top_mean`` in ``network/anomaly.py`` takes of the whole map.

        As many, and not the same share: so no region that large raises the score of an image, and the thresholds hold.
        """
        values = model_map[inside]
        count = min(len(values), max(1, round(self.runtime.metadata["top"] * model_map.size)))
        return float(np.partition(values, -count)[-count:].mean())


def _to_region(roi: NDArray[Any] | str | Path) -> NDArray[np.bool_]:
    """``(H, W)``: what is to be judged."""
    marked = read_marked(roi) if isinstance(roi, str | Path) else np.asarray(roi) != 0
    name = f"--roi {roi}" if isinstance(roi, str | Path) else "roi"
    if marked.ndim != 2:
        raise ValueError(f"{name}: expected an array (H, W), got shape {marked.shape}")
    if not marked.any():
        raise ValueError(f"{name}: the region of interest is empty; expected pixels that are not 0 where to look")
    return marked


def _scaled(roi: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """What of ``size`` pixels lies inside by half or, of a region thinner than they are, comes nearest to it."""
    share = resize_plane(roi, size)
    return share >= min(0.5, share.max())


def _to_array(image: Tensor | NDArray[Any]) -> NDArray[Any]:
    """``(H, W, 3)``: uint8, or float32 in [0, 1]."""
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is not None and isinstance(image, torch.Tensor):
        if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
            raise ValueError(f"image: expected a float tensor (3, H, W), got {tuple(image.shape)} of {image.dtype}")
        image = image.detach().permute(1, 2, 0).cpu().numpy()
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, -1)
    if array.ndim != 3 or array.shape[-1] != 3 or array.size == 0:
        raise ValueError(f"image: expected an array (H, W) or (H, W, 3), got shape {array.shape}")
    if array.dtype.kind not in "uif":
        raise ValueError(f"image: expected numbers, uint8 or float in [0, 1], got {array.dtype}")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)  # torch takes no array that is read backwards, as BGR turned to RGB is
    if not (array.min() >= 0 and array.max() <= 1):  # neither holds of NaN
        raise ValueError(
            f"image: expected values in [0, 1], got {array.min():.3g} to {array.max():.3g}; divide by the largest "
            f"value that the camera gives"
        )
    return np.ascontiguousarray(array, np.float32)
