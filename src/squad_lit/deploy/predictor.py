"""A trained model for new images of any size: ``squad_lit.load(path).predict(image)``. No torch of its own."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Set
from io import IOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from squad_lit.deploy.runtime import Runtime
from squad_lit.deploy.threshold import choose
from squad_lit.image.file import read_marked, read_pixels, resize_pixels, resize_plane
from squad_lit.image.input import to_pixels
from squad_lit.image.region import Region, connected_regions
from squad_lit.image.tile import AT_ONCE, Grid

if TYPE_CHECKING:
    import os
    from typing import TypeAlias

    from torch import Tensor

    ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor

# Pixels of all images that a model takes together: what bounds the memory of a list of large ones.
_PIXELS = 2**21


class Result(NamedTuple):
    """What a model says about one image.

    Args:
        anomaly_map: ``(H, W)`` float32 at the resolution of the image, in deviations from normal. Outside of a region
            of interest it is NaN.
        anomaly_score: Mean of the highest pixels of the map at the model's own size, in the same unit.
        label: 1 = anomalous: the score exceeds the threshold.
        mask: ``(H, W)`` bool: where the map exceeds the pixel threshold.
        regions: ``(row, column, height, width, area)`` in pixels for each connected part of the mask, the largest
            first.
    """

    anomaly_map: NDArray[np.float32]
    anomaly_score: float
    label: int
    mask: NDArray[np.bool_]
    regions: list[Region]


class Predictor:
    """A trained model, ready for images of any size; :func:`squad_lit.load` makes one.

    Args:
        runtime: The model, on whatever it runs.
        false_alarm_rate: Share of normal images that may be called anomalous, in (0, 1). None: known defects choose the
            threshold (``squad_lit.calibrate``) or, without them, the rate of the training or of the export does.
        roi: Region of interest: an image file, or an array ``(H, W)``. Only where it is not zero is an image judged. It
            is scaled to each image by nearest neighbour. The score is the mean of the same number of pixels as without
            a region, but of pixels inside. A region of at least that many pixels (1 % of the map by default) therefore
            never raises a score, and the thresholds of whole images let at most the stated share of false alarms
            through. ``squad_lit.calibrate`` finds the thresholds that fit the region.

    Attributes:
        runtime: As given; ``runtime.metadata`` describes the model.
        threshold: Scores above ``threshold.value`` are labelled anomalous; see
            :class:`squad_lit.deploy.threshold.Threshold`.
        pixel_threshold: The same for pixels of the map.
        roi: ``(H, W)`` bool, or None.

    Raises:
        ValueError: A rate out of range, or a region that is empty or has another shape.
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
                "the thresholds come from a region of interest (calibrate --roi) other than this one: expect other "
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
        """Read an image file as the training does: ``(H, W, 3)`` uint8, or float32 in [0, 1]."""
        return read_pixels(path, self.runtime.metadata["intensity_range"])

    @overload
    def predict(self, image: ImageLike) -> Result: ...  # type: ignore[overload-overlap]  # a str is iterable, too

    @overload
    def predict(self, image: Iterable[ImageLike]) -> list[Result]: ...

    def predict(self, image: Any) -> Result | list[Result]:
        """Judge one image, or several.

        Args:
            image: A file; a PIL image; an array ``(H, W)``, ``(H, W, 1)``, RGB ``(H, W, 3)`` or ``(H, W, 4)``, whose
                alpha is dropped, uint8, uint16 or float in [0, 1]; or a float tensor ``(3, H, W)`` in [0, 1]. The
                same values give the same result in each form. Or a list, tuple or other iterable of these.

        Returns:
            The result of the image. For several a list in their order: neighbours of one size go through the model
            together, which is faster, and equal to one by one up to rounding.

        Raises:
            OSError: A file cannot be read.
            TypeError: Another kind of object; the message names it.
            ValueError: Another shape, type or range of values.
        """
        given = self.runtime.metadata["intensity_range"]
        if not _is_several(image):
            return self._judge(to_pixels(image, "image", given)[None])[0]
        pixels = (to_pixels(one, f"images[{number}]", given) for number, one in enumerate(image))
        return [result for batch in _batches(pixels) for result in self._judge(batch)]

    def _judge(self, pixels: NDArray[Any]) -> list[Result]:
        """Results of images ``(N, H, W, 3)``."""
        size = pixels.shape[1:3]
        if self.roi is not None:
            shown = np.asarray(Image.fromarray(self.roi).resize(size[::-1], Image.Resampling.NEAREST))
            if not shown.any():  # it lies between the pixels of a smaller image
                shown = _scaled(self.roi, size)
        results = []
        for anomaly_map, score, model_map in self._run(pixels):
            if self.roi is not None:
                anomaly_map = np.where(shown, anomaly_map, np.float32(np.nan))
                score = self._score(model_map, _scaled(self.roi, model_map.shape))
            mask = anomaly_map > self.pixel_threshold.value
            label = int(score > self.threshold.value)
            results.append(Result(anomaly_map, score, label, mask, connected_regions(mask)))
        return results

    def _run(self, pixels: NDArray[Any]) -> Iterator[tuple[NDArray[np.float32], float, NDArray[np.float32]]]:
        """Map at the image's own resolution, score, and map at the model's size, of whole images ``(N, H, W, 3)``."""
        if self.runtime.metadata["tile"] is None:
            for anomaly_map, score, model_map in zip(*self.runtime.run(pixels), strict=True):
                yield anomaly_map, float(score), model_map
            return
        for image in pixels:
            model_map = self._run_tiles(image)
            score = self._score(model_map, np.ones(model_map.shape, bool))
            yield resize_plane(model_map, image.shape[:2]), score, model_map

    def _run_tiles(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Map at the model's size of a whole image ``(H, W, 3)``."""
        about = self.runtime.metadata
        image = resize_pixels(pixels, about["image_size"])
        grid = Grid(about["image_size"], **about["tile"])
        model_map = np.zeros(grid.size, np.float32)
        for start in range(0, len(grid), AT_ONCE):
            windows = grid.windows[start : start + AT_ONCE]
            maps = self.runtime.run(np.stack([image[window] for window in windows])).model_map
            for number, (window, tile) in enumerate(zip(windows, maps, strict=True), start):
                model_map[window] += grid.weight(number) * tile
        return model_map

    def _score(self, model_map: NDArray[np.float32], inside: NDArray[np.bool_]) -> float:
        """Mean of the highest pixels inside, as many as ``top_mean`` in ``network/anomaly.py`` takes of the whole map.

        The number is fixed, not the share: no region of that many pixels raises a score, so the thresholds hold.
        """
        values = model_map[inside]
        count = min(len(values), max(1, round(self.runtime.metadata["top"] * model_map.size)))
        return float(np.partition(values, -count)[-count:].mean())


def _is_several(image: Any) -> bool:
    """Whether this is an iterable of images, and no image itself nor what holds none."""
    if hasattr(image, "__array__") or hasattr(image, "__array_interface__"):
        return False
    return isinstance(image, Iterable) and not isinstance(
        image, str | bytes | bytearray | memoryview | Mapping | Set | IOBase
    )


def _batches(images: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    """Neighbours of one size and type ``(N, H, W, 3)``."""
    batch: list[NDArray[Any]] = []
    for image in images:
        if batch:
            is_alike = (image.shape, image.dtype) == (batch[0].shape, batch[0].dtype)
            most = min(AT_ONCE, _PIXELS // (image.shape[0] * image.shape[1]))
            if not is_alike or len(batch) >= most:
                yield np.stack(batch)
                batch = []
        batch.append(image)
    if batch:
        yield np.stack(batch)


def _to_region(roi: NDArray[Any] | str | Path) -> NDArray[np.bool_]:
    """``(H, W)``: where images are judged."""
    marked = read_marked(roi) if isinstance(roi, str | Path) else np.asarray(roi) != 0
    name = f"--roi {roi}" if isinstance(roi, str | Path) else "roi"
    if marked.ndim != 2:
        raise ValueError(f"{name}: expected an array (H, W), got shape {marked.shape}")
    if not marked.any():
        raise ValueError(f"{name}: the region of interest is empty; expected pixels that are not 0 where to look")
    return marked


def _scaled(roi: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.bool_]:
    """The pixels of a smaller grid that lie inside by half; of a region thinner than they are, those nearest to it."""
    share = resize_plane(roi, size)
    return share >= min(0.5, share.max())
