"""Image files as arrays, with NumPy and Pillow alone, because an exported model runs without torch."""

import contextlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    Image,
    ImageFile,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from squad_lit.system.memory import free_memory

IMAGE_EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

# Bytes per pixel that a prediction takes at its peak (tests/deploy/test_predictor.py), and the number of pixels from
# which it is worth a look at how much there is.
_BYTES, _LARGE = 50, 2**22


def find_images(places: Iterable[Path]) -> list[Path]:
    """The image files among ``places``, and those in folders at any depth; each once.

    Files in a folder are sorted, and hidden ones are left out. A file that is named itself is kept, whatever it is.

    Raises:
        ValueError: A folder has no image.
    """
    found: dict[Path, Path] = {}
    for place in places:
        here = [place]
        if place.is_dir():
            here = [p for p in sorted(place.rglob("*")) if is_image(p)]
            if not here:
                raise ValueError(f"no image in {place.resolve()}: {', '.join(IMAGE_EXTENSIONS)}")
        for path in here:
            found.setdefault(path.absolute(), path)
    return list(found.values())


def is_image(path: Path) -> bool:
    """Whether a path is a file with the ending of an image, and not hidden.

    Archives from a Mac have a ``._000.png`` beside each ``000.png``, which has the ending of an image and is none.
    """
    return path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith(".") and path.is_file()


class _Tiff(TiffImagePlugin.TiffImageFile):
    """A TIFF of any size; Pillow's class compares its size with the limit when it is loaded."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size, None).im
        super().load_prepare()


# What opens each format, by the first bytes of a file.
_FORMATS: dict[bytes, Callable[[Any], ImageFile.ImageFile]] = {
    rb"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    rb"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    rb"BM": BmpImagePlugin.BmpImageFile,
    rb"II[*+]\0|MM\0[*+]": _Tiff,
    rb"RIFF....WEBP": WebPImagePlugin.WebPImageFile,
}


def open_header(source: Path | str | IO[bytes], name: str = "") -> ImageFile.ImageFile:
    """A PNG, JPEG, BMP, TIFF or WebP file, as its content says, whose pixels are not decoded yet.

    ``PIL.Image.open`` would take other formats, too, one of which starts another program. It also takes an image of 180
    megapixels, as a line-scan camera makes it, for an attack, by a limit that belongs to the whole process. That limit
    is left alone here. What counts is the memory that there is.

    Args:
        source: The file, or its content.
        name: What errors call it; empty: by its path.

    Returns:
        The image; close it, best by ``with``.

    Raises:
        OSError: The file is no image of these formats, or too large for the free memory; the message names it.
    """
    try:
        if isinstance(source, Path | str) and not stat.S_ISREG(os.stat(source).st_mode):  # a named pipe would never end
            raise ValueError("it is no regular file")
        with open(source, "rb") if isinstance(source, Path | str) else contextlib.nullcontext(source) as file:
            start = file.read(16)
        make = next((make for form, make in _FORMATS.items() if re.match(form, start, re.DOTALL)), None)
        if make is None:
            what = "its content is not that of a PNG, JPEG, BMP, TIFF or WebP file"
            raise ValueError(what if start else "it is empty")
        if isinstance(source, Path | str):
            length, image = os.stat(source).st_size, make(os.fspath(source))
        else:
            length = source.seek(0, os.SEEK_END)
            source.seek(0)
            image = make(source)
    except Exception as error:  # Pillow reports a broken file by a dozen types
        raise _unreadable(name or source, error) from error
    try:
        _check_length(image, length)
        _check_memory(*image.size)
    except ValueError as error:
        image.close()
        raise _unreadable(name or source, error) from error
    return image


def weigh(pixels: int) -> float:
    """How many small images an image counts for, where some are under way at once."""
    return max(1, pixels / _LARGE)


def _check_length(image: Image.Image, length: int) -> None:
    """Refuse a JPEG file of so few bytes that its size must be wrong: a block of 8 x 8 pixels takes at least a bit.

    The decoder would take a minute to fill what is missing with grey. Those of other formats notice that it is missing.
    """
    width, height = image.size
    if image.format == "JPEG" and width * height > max(_LARGE, 512 * length):
        raise ValueError(
            f"it is damaged: its {length:,} bytes are too few for {height} x {width} pixels (height x width)"
        )


def _check_memory(width: int, height: int) -> None:
    needed = _BYTES * width * height
    if width * height > _LARGE and needed > (free := free_memory()):
        raise ValueError(
            f"its {height} x {width} pixels (height x width) need about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free"
        )


def _unreadable(name: object, error: Exception) -> OSError:
    reason = "there is not enough memory" if isinstance(error, MemoryError) else str(error) or type(error).__name__
    if not isinstance(error, OSError | ValueError | SyntaxError | MemoryError):  # a damaged directory of a TIFF file
        reason = f"it is damaged ({type(error).__name__}: {error})"
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror  # without the path, which is named already
    return OSError(f"cannot read image {name}: {reason}")


def open_image(path: Path) -> Image.Image:
    """Decode a file and turn it as its EXIF orientation says.

    Raises:
        OSError: The file cannot be read; the message names it.
    """
    with open_header(path) as image:
        try:
            return _load(image)
        except Exception as error:
            raise _unreadable(path, error) from error


def _load(image: ImageFile.ImageFile) -> Image.Image:
    if image.format == "TIFF" and (pages := getattr(image, "n_frames", 1)) > 1:
        raise ValueError(f"it has {pages} pages; save the one that is the image")
    image.load()
    # Viewers turn the picture, too; otherwise a photo and the mask drawn on it would lie across each other.
    return ImageOps.exif_transpose(image)


def read_pixels(path: Path | str, intensity_range: Sequence[float] | None = None) -> NDArray[Any]:
    """The pixels of an image file as RGB, turned as its EXIF orientation says.

    Grey images get three equal channels, and palettes their colours. Alpha is dropped, not blended. The scale comes
    from the type of the file, never from its content: 255 for 8 bits, 65,535 for 16-bit grey. A 12-bit camera that
    writes 16-bit files therefore gives dark images; its range is 0 to 4095. Pillow decodes 16-bit colour to 8 bits.

    Args:
        path: PNG, JPEG, BMP, TIFF or WebP, as the content says.
        intensity_range: For files of more than 8 bits, the grey values that become 0 and 1; values beyond are clipped.
            ``None``: the range of the type.

    Returns:
        ``(H, W, 3)``: uint8, or float32 in [0, 1] for a file of more than 8 bits.

    Raises:
        OSError: The file cannot be read; the message names it.
        ValueError: Pixels that are NaN or infinite; 32-bit integer or float pixels, which have no range of their own,
            without ``intensity_range``; or 16-bit colour with it.
    """
    if intensity_range is not None and is_deep_colour(path):
        raise deep_colour_error(f"image {path}")
    return decode(open_image(Path(path)), f"image {path}", intensity_range)


def read_sent(
    content: bytes, name: str, intensity_range: Sequence[float] | None = None, *, most_pixels: int
) -> NDArray[Any]:
    """As :func:`read_pixels`, for a file that someone has sent, who may be unkind.

    Args:
        content: The bytes of the file, in one of the formats of ``IMAGE_EXTENSIONS``. Pillow would start another
            program for some formats.
        name: What errors call it.
        intensity_range: See :func:`read_pixels`.
        most_pixels: A larger image is refused before it takes memory.

    Raises:
        OSError: It cannot be read.
        ValueError: It is too large, or has pixels that :func:`read_pixels` refuses.
    """
    with open_header(io.BytesIO(content), name) as header:
        width, height = header.size
        if width * height > most_pixels:
            raise ValueError(f"image {name} has {width} x {height} pixels, and at most {most_pixels:,} are taken")
        try:
            image = _load(header)
        except Exception as error:
            raise _unreadable(name, error) from error
    if intensity_range is not None and is_deep_colour(io.BytesIO(content)):
        raise deep_colour_error(f"image {name}")
    return decode(image, f"image {name}", intensity_range)


def decode(image: Image.Image, name: str, intensity_range: Sequence[float] | None = None) -> NDArray[Any]:
    """As :func:`read_pixels`, for an image that is loaded and turned already; errors call it ``name``."""
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        grey = finite(np.asarray(image), name)
        if intensity_range is None and image.mode in ("I", "F"):
            kind = "32-bit integer" if image.mode == "I" else "float"
            raise ValueError(
                f"{name} has {kind} pixels, which have no fixed range; save it as 8 or 16 bits, or train with "
                f"dataset.intensity_range=[LOW,HIGH]"
            )
        return scale_grey(grey, intensity_range)
    if image.mode == "La":  # Pillow has no direct way
        image = image.convert("LA")
    return np.array(image.convert("RGB"))


def finite(values: NDArray[Any], name: str) -> NDArray[Any]:
    """The values, if all are finite numbers.

    Raises:
        ValueError: Some are not; says how many, and what ``name`` is.
    """
    if values.dtype.kind == "f" and (count := int(values.size - np.isfinite(values).sum())):
        raise ValueError(f"{name} has values that are NaN or infinite, {count:,} of {values.size:,}")
    return values


def scale_grey(grey: NDArray[Any], intensity_range: Sequence[float] | None) -> NDArray[np.float32]:
    """Grey values ``(H, W)`` of more than 8 bits as ``(H, W, 3)`` in [0, 1]; no range is that of 16 bits."""
    low, high = intensity_range or (0.0, 65535.0)
    scaled = ((grey.astype(np.float32) - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    return scaled[..., None].repeat(3, axis=2)


def deep_colour_error(name: str) -> ValueError:
    """What is wrong with 16-bit colours and a range; only the upper 8 bits of such a file are read."""
    return ValueError(
        f"{name} has 16-bit colours, of which only the upper 8 bits are read, so dataset.intensity_range cannot apply; "
        f"save it as 16-bit grey, or as 8-bit colour with the range that you want"
    )


def read_marked(path: Path | str) -> NDArray[np.bool_]:
    """Where the pixels of a mask file are not zero.

    The indices of a palette image count, and any channel of a colour image. Alpha is ignored.

    Args:
        path: The file, or a folder of masks of one size, which are united.

    Returns:
        ``(H, W)``.

    Raises:
        OSError: The file cannot be read; the message names it.
        ValueError: The masks in a folder differ in size, or pixels are NaN or infinite.
    """
    if Path(path).is_dir() and (files := [file for file in sorted(Path(path).iterdir()) if is_image(file)]):
        parts = [read_marked(file) for file in files]
        if len({part.shape for part in parts}) != 1:
            raise ValueError(f"{path}: expected masks of one size, got {len(parts)} of several sizes")
        return np.logical_or.reduce(parts)
    image = open_image(Path(path))
    if image.mode in ("LA", "La", "PA"):
        image = image.getchannel(0)
    elif image.mode in ("RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"):
        image = image.convert("RGB")
    array = finite(np.asarray(image), f"mask {path}") != 0
    return array.any(axis=2) if array.ndim == 3 else array


def to_uint8(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """The pixels of :func:`read_pixels` as uint8; floats are rounded."""
    return pixels if pixels.dtype == np.uint8 else (pixels.clip(0, 1) * 255).round().astype(np.uint8)


def to_float32(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """The pixels of :func:`read_pixels` as float32 in [0, 1]."""
    return np.divide(pixels, 255, dtype=np.float32) if pixels.dtype == np.uint8 else pixels


def resize_pixels(pixels: NDArray[Any], size: Sequence[int]) -> NDArray[np.float32]:
    """Pixels ``(H, W, 3)``, uint8 or float32 in [0, 1], as ``(height, width, 3)`` in [0, 1].

    The filter is that of :func:`squad_lit.dataset.image.resize`, a triangle that is widened when it reduces.
    """
    if pixels.shape[:2] == tuple(size):
        return to_float32(pixels)
    resized = np.empty((*size, 3), np.float32)
    for channel in range(3):  # one by one, to need fewer arrays of that size at once
        resized[..., channel] = resize_plane(to_float32(pixels[..., channel]), size)
    return resized


def resize_plane(plane: NDArray[Any], size: Sequence[int]) -> NDArray[np.float32]:
    """As :func:`resize_pixels`, for one channel or map ``(H, W)``."""
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def is_deep_colour(source: Path | str | IO[bytes]) -> bool:
    """Whether a file has 16 bits per colour channel, of which Pillow keeps the upper 8; only the header is read."""
    try:
        with open_header(source) as image:
            return image.mode.startswith("RGB") and any(";16" in str(tile.args) for tile in image.tile)
    except Exception:  # reading it will tell
        return False
