"""The plots of a report, as SVG in the text colour of the surrounding page."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from squad_lit.report.gather import Result, Run, codebook_size, readable
from squad_lit.report.table import METRICS, Column, cell
from squad_lit.system.table import read_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A colour that no plot uses, which the SVG replaces by the text colour of the page.
_TEXT = "#010203"
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT),
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
Colours = Mapping[str, str]  # by arm, the same in all plots of a page
_POINTS = 300  # approximate number of points of a training curve
# Columns that the training curves show; one that ends in a slash is a prefix.
_TRAINING = ("train/loss", "train/feature/", "train/focal", "val/synthetic_ap", "val/copy_ratio/", "val/perplexity/")


def svg(draw: Callable[..., Figure | None], *args: Any, name: str) -> str:
    """Draw a figure as an SVG element; empty if there is nothing to draw.

    Args:
        draw: Function that returns a figure, or None if there is nothing to draw.
        args: Arguments of ``draw``.
        name: Title for screen readers. It must be unique on the page, because the SVG derives its ids from it.
    """
    import matplotlib

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = draw(*args)
        if figure is None:
            return ""
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": name})
    text = file.getvalue()
    return text[text.index("<svg") :].replace(_TEXT, "currentColor").replace("<svg ", '<svg role="img" ', 1)


def metrics_by_codebook(results: Sequence[Result], colours: Colours) -> Figure | None:
    """The mean of each metric over the categories against the number of codes; arms without codes are lines.

    Arms that lack a category are left out. There is no figure unless arms differ in their number of codes.
    """
    ran = {(r.arm, r.category) for r in results}
    categories = {category for _, category in ran}
    whole = [r for r in results if all((r.arm, category) in ran for category in categories)]
    sizes = {r.arm: codebook_size(r.run) for r in whole}
    if len({size for size in sizes.values() if size}) < 2:
        return None
    figure = new_figure(len(METRICS))
    for number, (axes, column) in enumerate(zip(figure.subplots(1, len(METRICS)), METRICS, strict=True)):
        axes.set_xscale("log", base=2)
        for arm, size in sizes.items():
            found = cell([r for r in whole if r.arm == arm], column)
            if math.isnan(found.mean):
                continue
            label = arm if number == 0 else None
            if size:
                axes.errorbar(size, found.mean, found.deviation, fmt="o", color=colours[arm], capsize=3, label=label)
            else:
                axes.axhline(found.mean, linestyle="--", linewidth=1, color=colours[arm], label=label)
        axes.set_title(f"{column.title} (%)")
        axes.set_xlabel("codes")
    return with_legend(figure)


def codebook_use(results: Sequence[Result], colours: Colours) -> Figure | None:
    """Codebook usage and perplexity per group and arm; None if no arm has a codebook."""
    keys = sorted({k for r in results for k in r.figures if k.startswith(("codebook_usage/", "perplexity/"))})
    arms = list(dict.fromkeys(r.arm for r in results if any(key in r.figures for key in keys)))
    if not arms:
        return None
    figure = new_figure(len(keys), 0.8 + 0.25 * len(arms))
    for number, (axes, key) in enumerate(zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True)):
        column = Column(key, key, 100.0 if key.startswith("codebook") else 1.0)
        found = [cell([r for r in results if r.arm == arm], column) for arm in arms]
        axes.barh(
            range(len(arms)),
            [c.mean for c in found],
            xerr=[c.deviation or 0.0 for c in found] if any(c.deviation for c in found) else None,
            color=[colours[arm] for arm in arms],
            height=0.6,
        )
        axes.set_yticks(range(len(arms)), arms if number == 0 else [""] * len(arms))
        axes.invert_yaxis()
        axes.set_title(key.replace("_", " ") + (" (%)" if key.startswith("codebook") else " (codes)"))
    return figure


def level_histograms(run: Run) -> Figure | None:
    """How often each level of each scalar of a code occurs, one row per group; None if the model has no levels."""
    prefix = "level_histogram/"
    groups = {k.removeprefix(prefix): v for k, v in (run.figures or {}).items() if k.startswith(prefix)}
    if not groups:
        return None
    widest = max(map(len, groups.values()))
    figure = new_figure(widest, 1.3 * len(groups), 1.6)
    for row, (group, scalars) in zip(figure.subplots(len(groups), widest, squeeze=False), groups.items(), strict=True):
        for i, axes in enumerate(row):
            axes.set_visible(i < len(scalars))
            if i < len(scalars):
                axes.bar(range(len(scalars[i])), [100 * share for share in scalars[i]])
                axes.set_title(f"{group}, scalar {i + 1} (%)")
                axes.set_xticks(range(len(scalars[i])))
    return figure


def training_curves(results: Sequence[Result], colours: Colours) -> Figure | None:
    """Losses and label-free measures against the step, one line per run; None if no run has the CSV logger's file."""
    lines: dict[str, list[tuple[str, Any]]] = {}
    for run, arm in dict.fromkeys((r.run.folder, r.arm) for r in results):
        for name, points in (readable(_logged, run / "csv" / "metrics.csv") or {}).items():
            lines.setdefault(name, []).append((arm, points))
    if not lines:
        return None
    across = min(4, len(lines))
    down = math.ceil(len(lines) / across)
    figure = new_figure(across, 2.1 * down)
    all_axes = figure.subplots(down, across, squeeze=False).flatten()
    for axes in all_axes[len(lines) :]:
        axes.set_visible(False)
    for axes, (name, own) in zip(all_axes, lines.items(), strict=False):
        for arm, (x, y) in own:
            axes.plot(x, y, color=colours[arm], linewidth=0.8, marker="." if len(x) == 1 else None, label=arm)
        axes.set_title(name)
        axes.set_xlabel("step")
        if name.startswith("train/") and all((y > 0).all() for _, (_, y) in own):
            axes.set_yscale("log")
    return with_legend(figure)


def _logged(file: Path) -> dict[str, tuple[Any, Any]]:
    """Steps and values of the training curves, thinned."""
    rows = read_rows(file)
    found = {}
    for start in _TRAINING:
        for name in rows[0] if rows else []:
            if name == start or (start.endswith("/") and name.startswith(start)):
                points = [(float(row["step"]), float(row[name])) for row in rows if row[name]]
                if points:
                    found[name] = tuple(np.array(points)[:: max(1, len(points) // _POINTS)].T)
    return found


def new_figure(across: int, height: float = 2.4, width: float = 2.6) -> Figure:
    """A figure for some plots side by side; height of all and width of each in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(max(width * across, 4), height), layout="constrained")


def with_legend(figure: Figure) -> Figure:
    """The figure with one legend for all of its plots."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if len(handles) > 1:
        columns = max(1, min(len(handles), 120 // max(map(len, handles))))
        figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=columns)
    return figure
