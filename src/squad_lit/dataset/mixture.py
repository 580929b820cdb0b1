"""What differs among the images of a category that should not: colour, camera, resolution and shape."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from squad_lit.dataset.problem import Problem
from squad_lit.image.file import to_uint8

# Largest difference between the channels of a grey image, of 255; JPEG rounds.
_GREY = 3
# Logarithm of the factor by which one side of an image may be stretched against the other without a word.
_DISTORTION = 0.1
# Factor between the sides of images from which their sharpness differs.
_RESOLUTION = 1.5


@dataclass(frozen=True)
class Properties:
    """What should be the same in all images of a category.

    Args:
        path: The file.
        size: Height and width in pixels.
        is_grey: Whether all channels are equal.
        camera: Maker and model by the EXIF data; empty if they do not say it.
    """

    path: Path
    size: tuple[int, int]
    is_grey: bool
    camera: str

    @classmethod
    def of(cls, path: Path, image: Image.Image, pixels: NDArray[Any]) -> Self:
        """The properties of a file: ``image`` is opened from it, and ``pixels`` ``(H, W, 3)`` is its content."""
        content = to_uint8(pixels)
        spread = max(int(np.ptp(rows, axis=-1).max()) for rows in np.array_split(content, 8) if rows.size)
        # In a PNG Pillow would decode all pixels to look for EXIF data behind them.
        exif = image.getexif() if image.format != "PNG" else {}
        camera = " ".join(str(exif.get(tag, "")).strip("\0 ") for tag in (ExifTags.Base.Make, ExifTags.Base.Model))
        return cls(path, (pixels.shape[0], pixels.shape[1]), spread <= _GREY, camera.strip())


def mixtures(folder: Path, images: Sequence[Properties]) -> Iterable[Problem]:
    """A warning for each property in which the images of a category differ."""
    if not images:
        return
    texts = [
        _mixture(images, lambda p: "grey" if p.is_grey else "in colour", "a model takes the difference for a defect"),
        _mixture([p for p in images if p.camera], lambda p: f"of {p.camera}", "each camera needs good images"),
        *_sizes(images),
    ]
    yield from (Problem(folder, text, is_error=False) for text in texts if text)


def _mixture(images: Sequence[Properties], of: Callable[[Properties], str], so: str) -> str:
    """How many images have each value of a property, with an example of each but the most frequent one."""
    counts = Counter(map(of, images))
    if len(counts) < 2:
        return ""
    parts: list[str] = []
    for value, count in counts.most_common():
        example = next(p.path.name for p in images if of(p) == value)
        parts.append(f"{count} {value}" + (f", such as {example}" if parts else ""))
    return f"the images are mixed: {'; '.join(parts)}; {so}"


def _sizes(images: Sequence[Properties]) -> Iterable[str]:
    """Images that are distorted, or of another sharpness, because all of them are resized to one size."""
    shape = {p.path: p.size[1] / p.size[0] for p in images}
    usual = statistics.median_low(shape.values())
    other = [path for path, found in shape.items() if abs(math.log(found / usual)) > _DISTORTION]
    if other:
        yield (
            f"{len(other)} of {len(shape)} images have another shape than the others, such as {other[0].name}, and are "
            f"distorted when all are resized to one; width / height is {shape[other[0]]:.2f} there and mostly "
            f"{usual:.2f}"
        )
    area = {p.path: math.sqrt(math.prod(p.size)) for p in images}
    typical = statistics.median_low(area.values())
    far = [p for p in images if not 1 / _RESOLUTION <= area[p.path] / typical <= _RESOLUTION]
    if far:
        (height, width), (h, w) = far[0].size, next(p.size for p in images if area[p.path] == typical)
        yield (
            f"{len(far)} of {len(images)} images have another resolution than the others, such as {far[0].path.name}, "
            f"and another sharpness when all are resized to one; {height}x{width} there and mostly {h}x{w}"
        )
