"""An image in whatever form a program has it, as the pixels that it has as a file."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from squad_lit.image.file import decode, deep_colour_error, finite, read_pixels, scale_grey


def to_pixels(
    image: Any, name: str = "image", intensity_range: Sequence[float] | None = None, channels: str = "RGB"
) -> NDArray[Any]:
    """The pixels of one image, the same in each form as from a file with these values.

    Args:
        image: A file; a PIL image of any mode; an array ``(H, W)`` or ``(H, W, C)`` with 1 (grey), 3 (colour) or 4
            channels, whose alpha is dropped; or a tensor ``(H, W)`` or ``(C, H, W)``. Arrays and tensors are uint8,
            uint16, bool (true is white) or float in [0, 1].
        name: What errors call it.
        intensity_range: The grey values that become 0 and 1 in images of more than 8 bits; see
            :func:`squad_lit.image.file.read_pixels`. Floats in arrays and tensors are in [0, 1] already.
        channels: Order of the colours in arrays and tensors, ``RGB`` or, as of OpenCV, ``BGR``. Files and PIL images
            know their own.

    Returns:
        ``(H, W, 3)``, RGB: uint8, or float32 in [0, 1].

    Raises:
        OSError: The file cannot be read.
        TypeError: Another kind of object; the message names it.
        ValueError: Another shape, type or range of values, or values that are not finite.
    """
    if isinstance(image, str | os.PathLike):
        return read_pixels(Path(image), intensity_range)
    if isinstance(image, Image.Image):
        return decode(ImageOps.exif_transpose(image), name, intensity_range)
    torch = sys.modules.get("torch")  # whoever has a tensor has imported it
    if torch is not None and isinstance(image, torch.Tensor):
        if image.ndim == 3 and image.shape[0] not in (1, 3, 4):
            raise ValueError(
                f"{name}: expected a tensor (H, W) or (C, H, W) with 1, 3 or 4 channels, got shape "
                f"{tuple(image.shape)}; channels that come last are those of an array"
            )
        image = image.detach().cpu()
        image = (image.float() if image.dtype == torch.bfloat16 else image).numpy()
        image = np.moveaxis(image, 0, -1) if image.ndim == 3 else image
    if hasattr(image, "__array__") or hasattr(image, "__array_interface__"):
        return _from_array(np.asarray(image), name, intensity_range, channels)
    hint = "; decode it with PIL.Image.open(io.BytesIO(...))" if isinstance(image, bytes | bytearray) else ""
    raise TypeError(
        f"{name}: expected a file name, a PIL image, an array or a tensor, got {type(image).__name__}{hint}"
    )


def _from_array(array: NDArray[Any], name: str, intensity_range: Sequence[float] | None, channels: str) -> NDArray[Any]:
    kind, shape = array.dtype.kind, array.shape
    if kind not in "buif":
        raise ValueError(f"{name}: expected numbers, uint8, uint16, bool or float in [0, 1], got {array.dtype}")
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or array.size == 0:
        hint = "; several images are a list" if array.ndim == 4 else ""
        if array.ndim == 3 and shape[0] in (1, 3, 4):
            hint = "; where the channels come first, use image.transpose(1, 2, 0)"
        raise ValueError(
            f"{name}: expected an array (H, W) or (H, W, C) with 1, 3 or 4 channels, got shape {shape}{hint}"
        )
    finite(array, name)
    is_grey = array.shape[-1] == 1
    is_16_bits = kind == "u" and array.itemsize == 2
    if is_grey and (is_16_bits or (kind in "ui" and array.itemsize > 1 and intensity_range is not None)):
        return scale_grey(array[..., 0], intensity_range)
    array = array.repeat(3, axis=-1) if is_grey else array[..., :3] if channels == "RGB" else array[..., 2::-1]
    if is_16_bits:
        if intensity_range is not None:
            raise deep_colour_error(name)
        array = (array >> 8).astype(np.uint8)  # as Pillow decodes files of 16-bit colour
    if kind == "b":
        array = array * np.uint8(255)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)  # torch takes no array that is read backwards, as BGR turned to RGB is
    if not (array.min() >= 0 and array.max() <= 1):
        advice = "divide by the largest value that the camera gives"
        if kind in "ui" and array.min() >= 0 and array.max() <= 255:
            advice = "if 255 is white, use image.astype('uint8')"
        raise ValueError(
            f"{name}: expected values in [0, 1], got {array.min():.3g} to {array.max():.3g} of {array.dtype}; {advice}"
        )
    return np.ascontiguousarray(array, np.float32)
