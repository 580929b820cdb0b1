"""A trained model for new images of any size: ``squad_lit.load(path).predict(image)``, without torch of its own."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from io import IOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from squad_lit.deploy.runtime import Runtime, open_runtime
from squad_lit.deploy.threshold import choose
from squad_lit.deploy.verdict import decide
from squad_lit.image.file import read_pixels, resize_pixels, resize_plane
from squad_lit.image.input import to_pixels
from squad_lit.image.region import Region
from squad_lit.image.roi import common, decode, identify, scaled, shown, to_roi
from squad_lit.image.tile import AT_ONCE, Grid

if TYPE_CHECKING:
    import os
    from typing import TypeAlias

    from torch import Tensor

    ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | NDArray[Any] | Tensor

# Pixels per image of a batch that fit into memory; of larger images fewer go through a model together.
_PIXELS = 2**18


class Result(NamedTuple):
    """The result for one image.

    Args:
        anomaly_map: ``(H, W)`` float32 at the resolution of the image, in deviations from normal. Outside of a region
            of interest it is NaN.
        anomaly_score: Mean of the highest pixels of the map at the model's own size, in the same unit.
        label: 1 is anomalous, 0 is normal; see :func:`squad_lit.deploy.verdict.decide`.
        mask: ``(H, W)`` bool, true in the regions.
        regions: ``(row, column, height, width, area)`` in pixels for each connected part of the mask, the largest
            first. An anomalous image has at least one, and a normal image none.
    """

    anomaly_map: NDArray[np.float32]
    anomaly_score: float
    label: int
    mask: NDArray[np.bool_]
    regions: list[Region]


class Predictor:
    """A trained model, ready for images of any size; :func:`squad_lit.load` makes one.

    Args:
        runtime: The model on its runtime.
        false_alarm_rate: Share of normal images that may be called anomalous, in (0, 1). With None, known defects
            choose the threshold (``squad_lit.calibrate``) or, without them, the rate of the training or of the export.
        threshold: Scores above it are anomalous, in the place of a rate. With neither, the one that was chosen with
            ``squad_lit.calibrate --threshold`` counts, if there is one.
        extrapolate: Whether the threshold of a rate that the normal images are too few for is extrapolated, which
            assumes that scores are normally distributed; see :func:`squad_lit.deploy.threshold.extrapolated`.
        roi: Region of interest, an image file or an array ``(H, W)``. An image is judged only where it is not zero and,
            if the model was trained (``dataset.roi``) or calibrated in a region, inside of that. It is scaled to each
            image by nearest neighbour. The score is the mean of as many pixels as without a region, all inside. A
            region of at least that many pixels (0.1 % of the map by default) therefore never raises a score, and
            thresholds of whole images, or of larger regions, let at most the stated share of false alarms through.
            ``squad_lit.calibrate`` finds the thresholds that fit the region.
        min_area: Least area of a region in pixels of the image. Smaller ones are left out, and an image with no other
            one is normal.

    Attributes:
        runtime: The model; ``runtime.metadata`` describes it.
        threshold: Scores above ``threshold.value`` are labelled anomalous; see
            :class:`squad_lit.deploy.threshold.Threshold`.
        pixel_threshold: The same for pixels of the map.
        roi: ``(H, W)`` bool, where images are judged, or None.

    Raises:
        ValueError: The rate or the area is out of range, or the region is empty or has another shape.
        OSError: The file of the region cannot be read.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        extrapolate: bool = False,
        roi: NDArray[Any] | str | Path | None = None,
        min_area: int = 0,
    ) -> None:
        if min_area != int(min_area) or min_area < 0:
            raise ValueError(f"min_area: expected a whole number of pixels, at least 0, got {min_area}")
        self.runtime, self.min_area = runtime, int(min_area)
        about = runtime.metadata
        name = f"--roi {roi}" if isinstance(roi, str | Path) else "roi"
        self.roi = common(decode(about["roi"]), None if roi is None else to_roi(roi, name))
        if self.roi is not None and not self.roi.any():
            raise ValueError(
                f"{name} lies outside of the region of interest that the model was trained or calibrated in, where it "
                f"cannot judge"
            )
        rate = about["false_alarm_rate"] if false_alarm_rate is None else false_alarm_rate
        if threshold is not None and (false_alarm_rate is not None or extrapolate):
            raise ValueError("threshold: give it, or a false-alarm rate, but not both")
        if threshold is None and false_alarm_rate is None:
            threshold = about["chosen_threshold"]
        known = (about["normal_scores"], about["normal_maxima"], about["defective_scores"])
        limits = choose(*known, rate, threshold=threshold, extrapolate=extrapolate)
        self.threshold, self.pixel_threshold = limits
        if self.threshold.shortfall:
            warnings.warn(self.threshold.shortfall, stacklevel=3)  # whoever calls load

    @property
    def roi_digest(self) -> str:
        """Digest that tells regions of interest apart; empty without one."""
        return identify(self.roi)

    def read(self, path: str | Path) -> NDArray[Any]:
        """Read an image file as the training does: ``(H, W, 3)`` uint8, or float32 in [0, 1]."""
        return read_pixels(path, self.runtime.metadata["intensity_range"])

    @overload
    def predict(self, image: ImageLike, *, channels: str = "RGB") -> Result: ...  # type: ignore[overload-overlap]  # a str is iterable, too

    @overload
    def predict(self, image: Iterable[ImageLike], *, channels: str = "RGB") -> list[Result]: ...

    def predict(self, image: Any, *, channels: str = "RGB") -> Result | list[Result]:
        """Judge one image, or several.

        Args:
            image: A file; a PIL image; an array ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)``, whose alpha
                is dropped; or a tensor ``(H, W)`` or ``(C, H, W)``. Arrays and tensors are uint8, uint16, bool or float
                in [0, 1]. The same values give the same result in each form. Or a list, tuple or other iterable of
                these, or an array or tensor with one dimension more.
            channels: Order of the colours in arrays and tensors, ``RGB`` or, as ``cv2.imread`` gives them, ``BGR``.

        Returns:
            The result, or a list of results in the order of the images. Neighbours of one size go through the model
            together, which is faster, and equal to one by one up to rounding.

        Raises:
            OSError: A file cannot be read.
            TypeError: An image is another kind of object, which the message names.
            ValueError: An image has another shape, type or range of values, or a score is not finite, as of a damaged
                model.
        """
        if channels not in ("RGB", "BGR"):
            raise ValueError(f"channels: expected RGB or BGR, got {channels!r}")
        if _is_several(image):
            return list(self.stream(image, channels=channels))
        pixels = to_pixels(image, "image", self.runtime.metadata["intensity_range"], channels)
        return self._judge(pixels[None])[0]

    def stream(self, images: Iterable[ImageLike], *, channels: str = "RGB") -> Iterator[Result]:
        """Judge images as they come, a few at a time, as :meth:`predict` does with several.

        Args:
            images: As of :meth:`predict`; none is taken before its turn.
            channels: As of :meth:`predict`.

        Returns:
            The results in the order of the images.
        """
        given = self.runtime.metadata["intensity_range"]
        pixels = (to_pixels(one, f"images[{number}]", given, channels) for number, one in enumerate(images))
        return (result for batch in _batches(pixels, self.runtime.batch) for result in self._judge(batch))

    def _judge(self, pixels: NDArray[Any]) -> list[Result]:
        """Results of images ``(N, H, W, 3)``."""
        size = pixels.shape[1:3]
        if self.roi is not None:
            inside = shown(self.roi, size)
        results = []
        for anomaly_map, score, model_map in self._run(pixels):
            if not np.isfinite(score):
                raise ValueError(f"the score of an image is {score}: the file of the model is damaged, or it diverged")
            if self.roi is not None:
                anomaly_map = np.where(inside, anomaly_map, np.float32(np.nan))
                score = self._score(model_map, scaled(self.roi, model_map.shape))
            limits = self.threshold.value, self.pixel_threshold.value
            results.append(Result(anomaly_map, score, *decide(anomaly_map, score, *limits, min_area=self.min_area)))
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

        Because the number is fixed and not the share, no region of that many pixels raises a score.
        """
        values = model_map[inside]
        count = min(len(values), max(1, round(self.runtime.metadata["top"] * model_map.size)))
        return float(np.partition(values, -count)[-count:].mean())


def load(
    path: str | Path,
    *,
    runtime: str | None = None,
    false_alarm_rate: float | None = None,
    threshold: float | None = None,
    extrapolate: bool = False,
    roi: NDArray[Any] | str | Path | None = None,
    min_area: int = 0,
    trust: Sequence[str] = (),
    device: str = "auto",
) -> Predictor:
    """A trained model for new images, from one file alone.

    Args:
        path: ``last.ckpt`` of a run, or a file that ``squad_lit.export`` made of it.
        runtime: ``torch``, ``onnx`` or ``openvino``; None chooses by the file's suffix.
        false_alarm_rate: See :class:`Predictor`.
        threshold: See :class:`Predictor`.
        extrapolate: See :class:`Predictor`.
        roi: See :class:`Predictor`.
        min_area: See :class:`Predictor`.
        trust: Packages of your own parts, whose classes a checkpoint may name beside those of squad_lit.
        device: ``auto`` (a CUDA device if the runtime has one, else the CPU), ``cpu``, ``cuda`` or ``cuda:1``; of ONNX
            files also ``tensorrt``, ``directml`` and ``coreml``, of OpenVINO's also ``gpu`` and ``npu``. The
            attribute ``runtime.device`` says what is used.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, for another runtime, or exported by another version; the device is not there;
            or the rate or the area is out of range.
        TypeError: ``path`` is no path, or ``trust`` is one text.
        ImportError: The package that runs the model is not installed; the message says what installs it.

    Example:
        ::

            detector = squad_lit.load("runs/demo/last.ckpt")
            result = detector.predict("part.png")
            print(result.anomaly_score, result.label, result.regions)
            results = detector.predict(["a.png", "b.png"])
    """
    if not isinstance(path, str | Path):
        raise TypeError(f"path: expected the file of a model, got {type(path).__name__}")
    if isinstance(trust, str):
        raise TypeError(f"trust: expected a list of packages, such as ['my_package'], got {trust!r}")
    model = open_runtime(path, runtime, trust=trust, device=device)
    return Predictor(
        model,
        false_alarm_rate=false_alarm_rate,
        threshold=threshold,
        extrapolate=extrapolate,
        roi=roi,
        min_area=min_area,
    )


def _is_several(image: Any) -> bool:
    """Whether this is an iterable of images, and neither an image itself nor an iterable of other things."""
    if hasattr(image, "__array__") or hasattr(image, "__array_interface__"):
        return getattr(image, "ndim", 0) == 4
    return isinstance(image, Iterable) and not isinstance(
        image, str | bytes | bytearray | memoryview | Mapping | Set | IOBase
    )


def _batches(images: Iterable[NDArray[Any]], limit: int) -> Iterator[NDArray[Any]]:
    """Neighbours of one size and type ``(N, H, W, 3)``, at most ``limit``."""
    for (shape, _), alike in itertools.groupby(images, key=lambda image: (image.shape, image.dtype)):
        most = max(1, min(limit, limit * _PIXELS // (shape[0] * shape[1])))
        while batch := list(itertools.islice(alike, most)):
            yield np.stack(batch)
