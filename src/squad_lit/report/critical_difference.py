"""The average ranks of arms, and the critical-difference plot of Demšar."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from squad_lit.report.gather import Result
from squad_lit.report.table import METRICS, Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# More names have no room in a plot, and as many training lengths or numbers of images are no methods to rank.
_MOST_ARMS = 12


class Ranks(NamedTuple):
    """How arms rank over several categories or seeds.

    Args:
        average: Average rank per arm, best first; 1 is the best, and equal values share a rank.
        blocks: Number of categories or seeds.
        what: ``categories`` or ``seeds``.
        difference: Average ranks that differ by less than this are not told apart at 5 % (Nemenyi).
        p: Friedman's test: the chance of ranks that differ as much if all arms are equally good.
    """

    average: dict[str, float]
    blocks: int
    what: str
    difference: float
    p: float


def ranks(results: Sequence[Result], column: Column) -> Ranks | None:
    """Rank the arms of a data set that have a value in every category.

    Seeds of a category are averaged, because they are no independent samples. With one category, each seed counts.

    Returns:
        None unless there are 3 to 12 arms and two blocks.

    Reference:
        Demšar: "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006, section 3.2.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    several = len({r.category for r in results}) > 1
    values: dict[str, dict[str | int, list[float]]] = {r.arm: {} for r in results}
    for r in results:
        if not math.isnan(value := r.value(column.key)):
            values[r.arm].setdefault(r.category if several else r.seed, []).append(value)
    blocks = sorted({block for own in values.values() for block in own}, key=str)
    arms = [arm for arm, own in values.items() if len(own) == len(blocks)]
    if not 3 <= len(arms) <= _MOST_ARMS or len(blocks) < 2:
        return None
    # Values that are equal in exact arithmetic share a rank.
    means = np.array([[statistics.fmean(values[arm][block]) for arm in arms] for block in blocks]).round(9)
    average = dict(zip(arms, rankdata(-means, axis=1).mean(0).tolist(), strict=True))
    number = len(arms)
    quantile = float(studentized_range.ppf(0.95, number, math.inf)) / math.sqrt(2)
    difference = quantile * math.sqrt(number * (number + 1) / (6 * len(blocks)))
    differs = (means != means[:, :1]).any()
    p = float(friedmanchisquare(*means.T).pvalue) if differs else 1.0
    ordered = dict(sorted(average.items(), key=lambda item: item[1]))
    return Ranks(ordered, len(blocks), "categories" if several else "seeds", difference, p)


def cliques(average: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """The longest runs of arms, as first and last position, whose ascending average ranks differ by less.

    Example:
        >>> cliques([1.0, 1.5, 3.0, 3.2], 1.8)
        [(0, 1), (1, 3)]
    """
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(average):
        last = max(i for i, other in enumerate(average) if other - rank < difference)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def plot(results: Sequence[Result], colours: Mapping[str, str]) -> Figure | None:
    """One critical-difference plot per metric; None unless there are 3 to 12 arms and two categories or seeds."""
    from matplotlib.figure import Figure

    drawn = {column.title: found for column in METRICS if (found := ranks(results, column))}
    if not drawn:
        return None
    arms = max(len(found.average) for found in drawn.values())
    figure = Figure(figsize=(7.5, len(drawn) * (0.9 + 0.16 * arms)), layout="constrained")
    for axes, (title, found) in zip(figure.subplots(len(drawn), squeeze=False).flatten(), drawn.items(), strict=True):
        _draw(axes, title, found, colours)
    return figure


def _draw(axes: Axes, title: str, found: Ranks, colours: Mapping[str, str]) -> None:
    names, average = list(found.average), list(found.average.values())
    half, number = (len(names) + 1) // 2, len(names)
    groups = cliques(average, found.difference)
    top = 0.35 + 0.2 * len(groups)  # of the first name
    for i, (name, rank) in enumerate(found.average.items()):
        left = i < half
        y = top + 0.45 * (i if left else number - 1 - i)
        end = 0.9 if left else number + 0.1
        axes.plot([rank, rank, end], [0, y, y], color=colours[name], linewidth=1)
        text = f"{name}  {rank:.2f}" if left else f"{rank:.2f}  {name}"
        side = "right" if left else "left"
        axes.annotate(text, (end, y), xytext=(-3 if left else 3, 0), textcoords="offset points", va="center", ha=side)
    for level, (first, last) in enumerate(groups, 1):
        axes.plot([average[first] - 0.03, average[last] + 0.03], [0.2 * level] * 2, color="0.5", linewidth=4)
    axes.errorbar(1 + found.difference / 2, -0.5, xerr=found.difference / 2, color="0.5", capsize=3)
    axes.annotate(f"critical difference {found.difference:.2f}", (1, -0.6), va="bottom", fontsize=7)
    axes.set_title(f"{title}: average rank over {found.blocks} {found.what} (Friedman p = {found.p:.2g})", fontsize=9)
    axes.set_xlim(0.9, max(number + 0.1, 1.1 + found.difference))
    axes.set_ylim(top + 0.45 * half, -1.1)
    axes.set_xticks(range(1, number + 1))
    axes.xaxis.set_ticks_position("top")
    axes.set_yticks([])
    axes.grid(False)
    for spine in ("left", "right", "bottom"):
        axes.spines[spine].set_visible(False)
    axes.spines["top"].set_visible(False)
    axes.axhline(0, color="0.5", linewidth=1)
