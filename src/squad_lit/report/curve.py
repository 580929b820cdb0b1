"""Curves and histograms, which matplotlib draws without a display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from squad_lit.image.picture import Picture
from squad_lit.metric.curve import AXES

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def histogram(values: Sequence[float], marked: int, label: str) -> Picture:
    """Histogram with a line at each of the highest values.

    Args:
        values: At least one value.
        marked: Number of highest values that get a line.
        label: Label of the horizontal axis.

    Returns:
        ``(240, 640, 3)`` uint8.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.4), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(values, bins=min(60, 10 + len(values) // 5), color="0.6")
    for value in sorted(values)[-marked:]:
        axes.axvline(value, color="C3", linewidth=1)
    axes.set_yscale("symlog", linthresh=1)  # a single image must be visible beside hundreds
    axes.set_xlabel(label)
    axes.set_ylabel("images")
    return _pixels(figure, dpi=100)


def curve_figure(lines: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str] | None = None) -> Figure:
    """ROC, precision-recall and per-region-overlap curves, with one plot per kind of curve.

    Args:
        lines: Curves by name, as pairs of x and y, for each line (a category or a model); see
            :mod:`squad_lit.metric.curve`.
        colours: Colour of each line; None takes those of matplotlib.
    """
    from matplotlib.figure import Figure

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
    """As :func:`curve_figure`, but as a picture ``(H, W, 3)`` uint8."""
    return _pixels(curve_figure(lines), dpi=110)


def _pixels(figure: Figure, dpi: int) -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
