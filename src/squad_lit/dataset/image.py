"""Image files: list them, pair them with masks, read them, and resize them in the one way of the project."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags
from torch import Tensor
from torch.nn import functional

from squad_lit.image.file import is_image, open_header, read_marked, read_pixels

# Entries of a PNG that may hold an EXIF orientation.
_ORIENTATION_NOTES = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}

# Names of mask folders in the root, used unless mask_dir names another folder.
MASK_FOLDERS = ("ground_truth", "masks")
# What a mask's file name may add to the stem of its image.
MASK_SUFFIXES = ("", "_mask", "_gt", "_GT")


def list_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name, without hidden ones. A missing folder has none."""
    return sorted(path for path in folder.iterdir() if is_image(path)) if folder.is_dir() else []


def list_folders(folder: Path) -> list[Path]:
    """The folders directly in a folder, sorted by name, without hidden ones. A missing folder has none."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def pair_masks(images: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """The masks in a folder, by image, of those images that have one.

    The stem decides, so ``a.jpg`` takes ``a.png``, ``a_mask.png``, ``a_gt.png`` or ``a_GT.png``.

    Raises:
        ValueError: An image has several masks, or a mask fits several images. The message lists all of them.
    """
    masks: dict[str, list[Path]] = {}
    for path in list_images(folder):
        masks.setdefault(path.stem, []).append(path)
    found: dict[Path, Path] = {}
    owners: dict[Path, list[Path]] = {}
    faults = []
    for image in images:
        candidates = [mask for suffix in MASK_SUFFIXES for mask in masks.get(image.stem + suffix, [])]
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


def mask_files(path: Path) -> list[Path]:
    """The files of a mask: a file is itself, and a folder, as MVTec LOCO AD has, is the union of what is in it."""
    return list_images(path) if path.is_dir() else [path]


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width of an image file in pixels, after its EXIF orientation; reads the header only.

    Raises:
        OSError: The file cannot be read; the message names it.
    """
    try:
        with open_header(path) as image:
            width, height = image.size
            # In a PNG without these entries, Pillow would decode all pixels to look for one behind them.
            noted = image.format != "PNG" or not image.info.keys().isdisjoint(_ORIENTATION_NOTES)
            lies = noted and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # 5 to 8 swap the sides
    except Exception as error:
        raise OSError(f"cannot read image {path}: {error}") from error
    return (width, height) if lies else (height, width)


def read_image(path: Path | str, intensity_range: Sequence[float] | None = None) -> Tensor:
    """:func:`squad_lit.image.file.read_pixels` as a tensor ``(3, H, W)``, float32 RGB in [0, 1]."""
    pixels = torch.from_numpy(read_pixels(path, intensity_range)).permute(2, 0, 1).contiguous()
    return pixels.float().div_(255.0) if pixels.dtype == torch.uint8 else pixels


def read_mask(path: Path | str) -> Tensor:
    """A ground-truth mask ``(H, W)``, uint8, with 1 where the file is not zero; see :func:`read_marked`.

    A folder is the union of the masks in it. Masks hold 255 (MVTec AD, MPDD) or class indices 1, 2, ... (VisA), so no
    threshold in between is right.
    """
    return torch.from_numpy(read_marked(path).astype(np.uint8))


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize bilinearly with antialiasing, in float. Training, prediction and export all use this function.

    Without antialiasing, a shrunken texture aliases, and a hair-thin defect comes and goes with its position.

    Args:
        image: ``(C, H, W)`` or ``(N, C, H, W)``, float.
        size: ``(height, width)`` of the result in pixels. An image of that size is returned unchanged.

    Example:
        >>> resize(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]), (1, 1))
        tensor([[[0.5000]]])
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    return resize_batch(image, size) if image.ndim == 4 else resize_batch(image[None], size)[0]


def resize_batch(image: Tensor, size: Sequence[int]) -> Tensor:
    """As :func:`resize`, for ``(N, C, H, W)`` and without the shortcut, because an exported graph needs one path."""
    return functional.interpolate(image, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)


def resize_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a mask ``(H, W)``, uint8, by nearest neighbour, with pixel centres aligned as in :func:`resize`."""
    if tuple(mask.shape) == tuple(size):
        return mask
    # Not "nearest", which reproduces an old OpenCV bug and is half a pixel off.
    return functional.interpolate(mask[None, None], size=size, mode="nearest-exact")[0, 0]
