"""Image files: which there are, how they are read, and the one resize of the project."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor
from torch.nn import functional

# The files are the user's own, and line-scan cameras make images that Pillow takes for an attack.
Image.MAX_IMAGE_PIXELS = None

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

# Where a PNG may say how it is to be turned.
_ORIENTATION_NOTES = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}

# What may stand between the stem of an image and the extension of its mask.
_MASK_SUFFIXES = ("", "_mask", "_gt", "_GT")


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
            # Of a PNG without such a note Pillow would decode all pixels, to look for one behind them.
            noted = image.format != "PNG" or not image.info.keys().isdisjoint(_ORIENTATION_NOTES)
            lies = noted and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5  # 5 to 8: turned by a quarter
    except Exception as error:
        raise OSError(f"cannot read image {path}: {error}") from error
    return (width, height) if lies else (height, width)


def read_image(path: Path | str, intensity_range: Sequence[float] | None = None) -> Tensor:
    """An image file as float RGB in [0, 1], turned as its EXIF orientation says.

    Grey images get three equal channels, palettes their colours; alpha is dropped, not blended. The scale is that of
    the file's type, never of its content: 255 for 8 bits, 65,535 for 16-bit grey (a 12-bit camera that writes 16-bit
    files thus gives dark images, all alike: give it the range 0 to 4095). 16-bit colour is decoded by Pillow to 8 bits.

    Args:
        path: PNG, JPEG, BMP, TIFF, WebP or what else Pillow reads.
        intensity_range: The grey values that become 0 and 1, for files of more than 8 bits; what lies beyond is cut.
            ``None``: the range of the type.

    Returns:
        ``(3, H, W)``, float32.

    Raises:
        OSError: The file cannot be read; the message names it.
        ValueError: 32-bit integer or float pixels, which have no range to scale by, and no ``intensity_range``; or such
            a range for 16-bit colour.
    """
    if intensity_range is not None and is_deep_colour(path):
        raise ValueError(
            f"image {path} has 16-bit colours, of which only the upper 8 bits are read, so dataset.intensity_range "
            f"cannot apply; save it as 16-bit grey, or as 8-bit colour with the range that you want"
        )
    image = _open(Path(path))
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        if intensity_range is None and image.mode in ("I", "F"):
            kind = "32-bit integer" if image.mode == "I" else "float"
            raise ValueError(
                f"image {path} has {kind} pixels, which have no fixed range; save it as 8 or 16 bits, or give the "
                f"range with dataset.intensity_range=[LOW,HIGH]"
            )
        low, high = intensity_range or (0.0, 65535.0)
        grey = ((np.asarray(image).astype(np.float32) - np.float32(low)) / np.float32(high - low)).clip(0, 1)
        return torch.from_numpy(grey).expand(3, -1, -1).contiguous()
    array = np.array(image.convert("RGB"))  # (H, W, 3) uint8
    return torch.from_numpy(array).permute(2, 0, 1).contiguous().float().div_(255.0)


def is_deep_colour(path: Path | str) -> bool:
    """Whether a file has 16 bits a colour; Pillow keeps the upper 8 of them. Only the header is read."""
    try:
        with Image.open(path) as image:
            return image.mode.startswith("RGB") and any(";16" in str(tile.args) for tile in image.tile)
    except Exception:  # whoever reads it says so
        return False


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
