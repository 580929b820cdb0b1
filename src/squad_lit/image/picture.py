"""Pictures for people, as arrays, without files or loggers."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Picture = NDArray[np.uint8]

# Lightness rises all the way, and red never meets green, which any colour vision and a grey print can tell apart.
_ANCHORS = np.frombuffer(bytes.fromhex("000004 280b54 65156e 9f2a63 d44842 f57d15 fac127 fcffa4"), np.uint8).reshape(
    -1, 3
)
_CAPTION = 14  # px


def colour_map(values: NDArray[Any], low: float, high: float) -> Picture:
    """Colour a map ``(H, W)`` on a fixed scale, so that the same value has the same colour in every picture.

    Values up to ``low`` have the darkest colour, and values from ``high`` on the brightest one.
    """
    at = np.clip((values - low) / (high - low), 0, 1) * (len(_ANCHORS) - 1)
    steps = np.arange(len(_ANCHORS))
    return np.stack([np.interp(at, steps, _ANCHORS[:, c]) for c in range(3)], -1).round().astype(np.uint8)


def to_picture(image: NDArray[Any]) -> Picture:
    """``(3, H, W)`` float in [0, 1] to ``(H, W, 3)`` uint8."""
    return (np.clip(image, 0, 1).transpose(1, 2, 0) * 255).round().astype(np.uint8)


def outline(picture: Picture, mask: NDArray[Any], colour: Sequence[int] = (255, 255, 255)) -> Picture:
    """Draw the border of a mask ``(H, W)`` on a picture ``(H, W, 3)``; the line lies just outside of the mask."""
    inside = np.pad(mask.astype(bool), 1)
    near = inside[:-2, 1:-1] | inside[2:, 1:-1] | inside[1:-1, :-2] | inside[1:-1, 2:]
    drawn = picture.copy()
    drawn[near & ~inside[1:-1, 1:-1]] = colour
    return drawn


def panel(tiles: Mapping[str, Picture]) -> Picture:
    """Put pictures of one height side by side, each under its caption."""
    columns = []
    font = _font()
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    for caption, tile in tiles.items():
        needed = round(ruler.textlength(caption, font=font)) + 6  # a caption that is cut is a wrong one
        tile = np.pad(tile, ((0, 0), (0, max(0, needed - tile.shape[1])), (0, 0)))
        strip = Image.new("RGB", (tile.shape[1], _CAPTION), "black")
        ImageDraw.Draw(strip).text((3, 0), caption, fill="white", font=font)
        columns.append(np.concatenate([np.asarray(strip), tile]))
        columns.append(np.zeros((columns[-1].shape[0], 2, 3), np.uint8))
    return np.concatenate(columns[:-1], axis=1)


def message(text: str, size: Sequence[int]) -> Picture:
    """A grey picture of a size (height, width), with a text in its middle."""
    height, width = size
    picture = Image.new("RGB", (width, height), (96, 96, 96))
    ImageDraw.Draw(picture).text((width / 2, height / 2), text, fill="white", font=_font(), anchor="mm")
    return np.asarray(picture)


@cache
def _font() -> ImageFont.FreeTypeFont:
    """A font with the letters of most languages, since captions hold file names; Pillow's own has few."""
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 10)


def stack(pictures: Sequence[Picture]) -> Picture:
    """Put pictures below each other, and fill up the narrow ones with black."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([np.pad(p, ((0, 2), (0, width - p.shape[1]), (0, 0))) for p in pictures])
