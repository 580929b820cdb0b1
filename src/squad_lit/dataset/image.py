"""Image files: which there are, how they are read, and the one resize of the project."""

from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.nn import functional

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")


def list_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name; empty if there is no such folder.

    Hidden files are left out: archives made on a Mac carry a ``._000.png`` beside each ``000.png``, which ends like an
    image and is none.
    """
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.suffix.lower() in IMAGE_EXTENSIONS and path.is_file()
    )


def list_folders(folder: Path) -> list[Path]:
    """The folders directly in a folder, sorted by name, hidden ones left out; empty if there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir())


def _open(path: Path) -> Image.Image:
    """Decode a file and turn it as its EXIF orientation says; an ``OSError`` that names the file if that fails."""
    try:
        with Image.open(path) as image:
            image.load()
            # A viewer turns the picture too: without this, a photo and its mask would lie across each other.
            return ImageOps.exif_transpose(image)
    # Pillow reports a broken file by any of a dozen types, depending on the format and on where it breaks.
    except Exception as error:
        raise OSError(f"cannot read image {path}: {error}") from error


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width of an image file, turned as its EXIF orientation says; only the header is read.

    Raises:
        OSError: The file cannot be read; the message names it.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            lies = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # 5 to 8: turned by a quarter
    except Exception as error:
        raise OSError(f"cannot read image {path}: {error}") from error
    return (width, height) if lies else (height, width)


def read_image(path: Path | str) -> Tensor:
    """An image file as float RGB in [0, 1], turned as its EXIF orientation says.

    Grey images get three equal channels, palettes their colours; alpha is dropped, not blended. The scale is that of
    the file's type, never of its content: 255 for 8 bits, 65,535 for 16-bit grey (a 12-bit camera that writes 16-bit
    files thus gives dark images, all alike). 16-bit colour is decoded by Pillow to 8 bits.

    Args:
        path: PNG, JPEG, BMP, TIFF, WebP or what else Pillow reads.

    Returns:
        ``(3, H, W)``, float32.

    Raises:
        OSError: The file cannot be read; the message names it.
        ValueError: 32-bit integer or float pixels, which have no range to scale by.
    """
    image = _open(Path(path))
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.float32) / 65535.0
        return torch.from_numpy(grey).expand(3, -1, -1).contiguous()
    if image.mode in ("I", "F"):
        kind = "32-bit integer" if image.mode == "I" else "float"
        raise ValueError(f"image {path} has {kind} pixels, which have no fixed range; save it as 8 or 16 bits")
    array = np.array(image.convert("RGB"))  # (H, W, 3) uint8
    return torch.from_numpy(array).permute(2, 0, 1).contiguous().float().div_(255.0)


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
    image = _open(Path(path))
    if image.mode in ("LA", "La", "PA"):
        image = image.getchannel(0)
    elif image.mode in ("RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    array = np.asarray(image) != 0
    if array.ndim == 3:
        array = array.any(axis=2)
    return torch.from_numpy(array.astype(np.uint8))


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
    batch = image if image.ndim == 4 else image[None]
    batch = functional.interpolate(batch, size=size, mode="bilinear", align_corners=False, antialias=True)
    return batch if image.ndim == 4 else batch[0]


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
