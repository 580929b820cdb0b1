"""Image files: which there are, how they are read, and the one resize of the project."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags
from torch import Tensor
from torch.nn import functional

from squad_lit.image.file import is_image, open_header, read_marked, read_pixels

# Where a PNG may say how it is to be turned.
_ORIENTATION_NOTES = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}

# What may stand between the stem of an image and the extension of its mask.
_MASK_SUFFIXES = ("", "_mask", "_gt", "_GT")


def list_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name, hidden ones left out; empty if there is no such folder."""
    return sorted(path for path in folder.iterdir() if is_image(path)) if folder.is_dir() else []


def list_folders(folder: Path) -> list[Path]:
    """The folders directly in a folder, sorted by name, hidden ones left out; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def pair_masks(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """The mask of each image that has one in a folder, by stem: of ``a.jpg`` ``a.png``, ``a_mask.png`` or ``a_GT.png``.

    Args:
        images: Image files.
        folder: Folder of mask files; it may lack some.

    Returns:
        Mask by image; images without a mask are not in it.

    Raises:
        ValueError: Several masks for an image, or several images for a mask; lists them.
    """
    masks: dict[str, list[Path]] = {}
    for path in list_images(folder):
        masks.setdefault(path.stem, []).append(path)
    found: dict[Path, Path] = {}
    owners: dict[Path, list[Path]] = {}
    faults = []
    for image in images:
        candidates = [mask for suffix in _MASK_SUFFIXES for mask in masks.get(image.stem + suffix, [])]
        if len(candidates) > 1:
            faults.append(f"several masks for {image}: {', '.join(map(str, candidates))}; keep one of them")
        elif candidates:
            found[image] = candidates[0]
            owners.setdefault(candidates[0], []).append(image)
    for mask, several in owners.items():
        if len(several) > 1:
            names = " and ".join(map(str, several))
            faults.append(f"mask {mask} fits several images: {names}; put masks into a folder by kind")
    if faults:
        raise ValueError("\n".join(faults))
    return found


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width of an image file, turned as its EXIF orientation says; only the header is read.

    Raises:
        OSError: The file cannot be read; the message names it.
    """
    try:
        with open_header(path) as image:
            width, height = image.size
            # Of a PNG without such a note Pillow would decode all pixels, to look for one behind them.
            noted = image.format != "PNG" or not image.info.keys().isdisjoint(_ORIENTATION_NOTES)
            lies = noted and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # 5 to 8: turned by a quarter
    except Exception as error:
        raise OSError(f"cannot read image {path}: {error}") from error
    return (width, height) if lies else (height, width)


def read_image(path: Path | str, intensity_range: Sequence[float] | None = None) -> Tensor:
    """An image file as a float tensor, RGB in [0, 1]; see :func:`squad_lit.image.file.read_pixels`.

    Args:
        path: The file.
        intensity_range: The grey values that become 0 and 1, for files of more than 8 bits. ``None``: the range of the
            type.

    Returns:
        ``(3, H, W)``, float32.

    Raises:
        OSError: The file cannot be read; the message names it.
        ValueError: Pixels without a range to scale by, or a range that cannot apply.
    """
    pixels = torch.from_numpy(read_pixels(path, intensity_range)).permute(2, 0, 1).contiguous()
    return pixels.float().div_(255.0) if pixels.dtype == torch.uint8 else pixels


def read_mask(path: Path | str) -> Tensor:
    """A ground-truth mask as 0 and 1: any non-zero pixel is anomalous.

    Masks hold 255 (MVTec AD, MPDD) or class indices 1, 2, ... (VisA), so no threshold in between is right. Of a palette
    image the indices count, of a colour image any channel; alpha is ignored.

    Args:
        path: The mask file.

    Returns:
        ``(H, W)``, uint8.

    Raises:
        OSError: The file cannot be read; the message names it.
    """
    return torch.from_numpy(read_marked(path).astype(np.uint8))


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The resize of the project: bilinear, antialiased, in float; training, prediction and export all use this one.

    Without antialiasing a reduced texture aliases, and a hair-thin defect comes and goes with its position.

    Args:
        image: ``(C, H, W)`` or ``(N, C, H, W)``, float.
        size: ``(height, width)`` of the result. An image of that size is returned as it is.

    Returns:
        The resized image, as many dimensions as before.

    Example:
        >>> resize(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), (1, 1))
        tensor([[[0.5000]]])
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return resize_batch(image, size) if image.ndim == 4 else resize_batch(image[None], size)[0]


def resize_batch(image: Tensor, size: Sequence[int]) -> Tensor:
    """As :func:`resize`, of ``(N, C, H, W)``, computed also at equal size: an exported graph has one path for all."""
    return functional.interpolate(image, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask resized by nearest neighbour, pixel centres aligned with those of :func:`resize`.

    Args:
        mask: ``(H, W)``, uint8.
        size: ``(height, width)`` of the result.

    Returns:
        ``(height, width)``, uint8, only values that the mask had.
    """
    if tuple(mask.shape) == tuple(size):
        return mask
    # Not "nearest": that one reproduces an old OpenCV bug and is half a pixel off.
    return functional.interpolate(mask[None, None], size=size, mode="nearest-exact")[0, 0]
