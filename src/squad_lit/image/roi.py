"""The region of interest: where images are looked at, the same in training, calibration and prediction."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from squad_lit.image.file import finite, read_marked, resize_plane

Roi = NDArray[np.bool_]
"""``(H, W)``, true where images are looked at; it is scaled to each image."""


def to_roi(roi: NDArray[Any] | str | Path, name: str) -> Roi:
    """A region from a picture, or an array ``(H, W)``, that is not 0 inside.

    Args:
        roi: The file, or the array.
        name: What errors call it.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is empty, has another shape, or values that are not finite.
    """
    marked = read_marked(roi) if isinstance(roi, str | Path) else finite(np.asarray(roi), name) != 0
    if marked.ndim != 2:
        raise ValueError(f"{name}: expected an array (H, W), got shape {marked.shape}")
    if not marked.any():
        raise ValueError(f"{name}: the region of interest is empty; expected pixels that are not 0 where to look")
    return marked


def encode(roi: Roi | None) -> str:
    """A region as text, a PNG in base64; without one an empty text."""
    if roi is None:
        return ""
    buffer = io.BytesIO()
    Image.fromarray(roi).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def decode(text: str) -> Roi | None:
    """The region that :func:`encode` made a text of.

    Raises:
        ValueError: The text is damaged.
    """
    if not text:
        return None
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True)), formats=["PNG"]) as image:
            roi = np.array(image.convert("1"))
    except Exception as error:  # Pillow raises half a dozen types
        raise ValueError("the region of interest of the model is damaged") from error
    if not roi.any():
        raise ValueError("the region of interest of the model is empty: it is damaged")
    return roi


def identify(roi: Roi | None) -> str:
    """Tells regions apart, in 12 hexadecimal digits; an empty text without one."""
    if roi is None:
        return ""
    return hashlib.sha256(str(roi.shape).encode() + np.packbits(roi).tobytes()).hexdigest()[:12]


def common(one: Roi | None, other: Roi | None) -> Roi | None:
    """Where two regions overlap, at the finer resolution of both; it may be empty."""
    if one is None or other is None:
        return other if one is None else one
    size = np.maximum(one.shape, other.shape).tolist()
    return _nearest(one, size) & _nearest(other, size)


def shown(roi: Roi, size: Sequence[int]) -> Roi:
    """The pixels of an image that lie inside, by nearest neighbour; at least one."""
    found = _nearest(roi, size)
    return found if found.any() else scaled(roi, size)  # it lies between the pixels of a smaller image


def scaled(roi: Roi, size: Sequence[int]) -> Roi:
    """The pixels of a smaller grid that lie inside by half; of a region thinner than they are, those nearest to it."""
    share = resize_plane(roi, size)
    return np.asarray(share >= min(0.5, share.max()))


def _nearest(roi: Roi, size: Sequence[int]) -> Roi:
    return np.asarray(Image.fromarray(roi).resize((size[1], size[0]), Image.Resampling.NEAREST))
