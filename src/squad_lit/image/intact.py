"""Whether an image file is whole, in most cases without decoding it."""

import os
from collections.abc import Sequence
from pathlib import Path

from PIL import ImageFile

from squad_lit.image.file import deep_colour_error, is_deep_colour, open_header, read_marked, read_pixels


def check_image(
    path: Path, intensity_range: Sequence[float] | None = None, *, is_mask: bool = False, decode: bool = False
) -> None:
    """Fail if an image or mask file cannot be read.

    A file that ends where its format says is taken for whole; others are decoded, and so are pixels that may be NaN.

    Args:
        path: The file.
        intensity_range: See :func:`squad_lit.image.file.read_pixels`.
        is_mask: Whether it is read by :func:`squad_lit.image.file.read_marked`.
        decode: Whether it is decoded in any case, which alone finds a damage in the middle.

    Raises:
        OSError: The file cannot be read.
        ValueError: Its pixels are of a kind that is not taken.
    """
    with open_header(path) as image:
        try:
            is_sure = image.mode not in ("I", "F") and _ends_well(image, path)
        except Exception:  # Pillow has half a dozen for a damaged directory, and decoding will tell
            is_sure = False
    if decode or not is_sure:
        if is_mask:
            read_marked(path)
        else:
            read_pixels(path, intensity_range)
    elif intensity_range is not None and not is_mask and is_deep_colour(path):
        raise deep_colour_error(f"image {path}")


def _ends_well(image: ImageFile.ImageFile, path: Path) -> bool:
    """Whether the file has the end that its format asks for."""
    with path.open("rb") as file:
        start = file.read(12)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 64))
        end = file.read()
    if image.format == "PNG":
        return end.endswith(b"IEND\xaeB`\x82")
    if image.format == "JPEG":
        return end.rstrip(b"\0").endswith(b"\xff\xd9")
    if image.format == "WEBP":
        return int.from_bytes(start[4:8], "little") + 8 <= size
    if image.format == "TIFF" and getattr(image, "n_frames", 1) == 1:  # several are refused where they are decoded
        tags = image.tag_v2  # type: ignore[attr-defined]
        for offsets, lengths in ((273, 279), (324, 325)):  # of strips, and of tiles
            if offsets in tags and lengths in tags:
                return max(map(sum, zip(tags[offsets], tags[lengths], strict=False)), default=size + 1) <= size
    if image.format == "BMP":
        tile = image.tile[0]
        if tile.codec_name == "raw" and isinstance(tile.args, tuple):
            return bool(tile.offset + tile.args[1] * image.size[1] <= size)
    return False
