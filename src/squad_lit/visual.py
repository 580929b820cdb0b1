"""Arrays in, pictures out. No files, no loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]

# Dark to bright with monotonous lightness, no red against green: readable with any colour vision and in grey print.
_ANCHORS = np.array(
    [
        [0, 0, 4],
        [40, 11, 84],
        [101, 21, 110],
        [159, 42, 99],
        [212, 72, 66],
        [245, 125, 21],
        [250, 193, 39],
        [252, 255, 164],
    ]
)
_CAPTION = 14  # px


def colour_map(values: NDArray[Any], low: float, high: float) -> Picture:
    """Colour a map on a fixed scale, so that the same value has the same colour in every picture.

    Args:
        values: ``(H, W)``.
        low: Value of the darkest colour; what lies below has it too.
        high: Value of the brightest colour.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    at = np.clip((values - low) / (high - low), 0, 1) * (len(_ANCHORS) - 1)
    steps = np.arange(len(_ANCHORS))
    return np.stack([np.interp(at, steps, _ANCHORS[:, c]) for c in range(3)], -1).round().astype(np.uint8)


def to_picture(image: NDArray[Any]) -> Picture:
    """``(3, H, W)`` float in [0, 1] to ``(H, W, 3)`` uint8."""
    return (np.clip(image, 0, 1).transpose(1, 2, 0) * 255).round().astype(np.uint8)


def outline(picture: Picture, mask: NDArray[Any], colour: Sequence[int] = (255, 255, 255)) -> Picture:
    """Draw the border of a mask ``(H, W)`` on a picture ``(H, W, 3)``; the line lies just outside the mask."""
    inside = np.pad(mask.astype(bool), 1)
    near = inside[:-2, 1:-1] | inside[2:, 1:-1] | inside[1:-1, :-2] | inside[1:-1, 2:]
    drawn = picture.copy()
    drawn[near & ~inside[1:-1, 1:-1]] = colour
    return drawn


def histogram(values: Sequence[float], marked: int, label: str, *, width: int = 640, height: int = 240) -> Picture:
    """How many values lie where, the highest ones marked by a line each.

    Args:
        values: At least one.
        marked: How many of the highest get a line.
        label: What the values are.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.

    Returns:
        ``(height, width, 3)`` uint8.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 100, height / 100), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    axes.hist(values, bins=min(60, 10 + len(values) // 5), color="0.6")
    for value in sorted(values)[-marked:]:
        axes.axvline(value, color="C3", linewidth=1)
    axes.set_yscale("symlog", linthresh=1)  # one image at the far end has to be seen beside hundreds
    axes.set_xlabel(label)
    axes.set_ylabel("images")
    return _pixels(figure, dpi=100)


def curve_figure(lines: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str] | None = None) -> Figure:
    """ROC, precision-recall and per-region-overlap curves, a plot for each kind of curve.

    Args:
        lines: For each line (a category, or a model) its curves by name, each a pair of x and y; see
            :mod:`squad_lit.metric.curve`.
        colours: Of each line; none given: those of matplotlib, in turn.
    """
    from matplotlib.figure import Figure

    from squad_lit.metric.curve import AXES  # imports torch, which whoever runs an exported model may not have

    names = list(dict.fromkeys(name for curves in lines.values() for name in curves))
    figure = Figure(figsize=(2.6 * max(1, len(names)), 2.6), layout="constrained")
    for number, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), number)
        for label, curves in lines.items():
            if name in curves:
                axes.plot(*curves[name], label=label, linewidth=1, color=(colours or {}).get(label))
        axes.set_title(name.replace("_", " "), fontsize=9)
        x, y = AXES[name.rpartition("_")[2]]
        axes.set_xlabel(x.replace("_", " "), fontsize=8)
        axes.set_ylabel(y.replace("_", " "), fontsize=8)
        axes.set_ylim(0, 1.02)
        axes.set_xlim(left=0)
        axes.tick_params(labelsize=7)
    if names and len(lines) > 1:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), fontsize=7, frameon=False)
    return figure


def curve_plot(lines: Mapping[str, Mapping[str, Any]]) -> Picture:
    """As :func:`curve_figure`, as a picture ``(H, W, 3)``."""
    return _pixels(curve_figure(lines), dpi=110)


def _pixels(figure: Figure, dpi: int) -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def panel(tiles: Mapping[str, Picture]) -> Picture:
    """Pictures of one height side by side, each under its caption."""
    columns = []
    font = _font()
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    for caption, tile in tiles.items():
        lacking = max(
            0, round(ruler.textlength(caption, font=font)) + 6 - tile.shape[1]
        )  # a caption that is cut is a wrong one
        tile = np.pad(tile, ((0, 0), (0, lacking), (0, 0)))
        strip = Image.new("RGB", (tile.shape[1], _CAPTION), "black")
        ImageDraw.Draw(strip).text((3, 0), caption, fill="white", font=font)
        columns.append(np.concatenate([np.asarray(strip), tile]))
        columns.append(np.zeros((columns[-1].shape[0], 2, 3), np.uint8))
    return np.concatenate(columns[:-1], axis=1)


@cache
def _font() -> ImageFont.FreeTypeFont:
    """One that has the letters of most languages, because captions hold file names; Pillow's own has few."""
    from matplotlib import font_manager

    return ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 10)


def stack(pictures: Sequence[Picture]) -> Picture:
    """Pictures below each other, the narrow ones filled up with black."""
    width = max(picture.shape[1] for picture in pictures)
    return np.concatenate([np.pad(p, ((0, 2), (0, width - p.shape[1]), (0, 0))) for p in pictures])
