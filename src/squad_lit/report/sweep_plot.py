"""Metrics against an option of the data: the number of training images, and the strength of a change of the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from squad_lit.dataset.corruption import NEUTRAL
from squad_lit.report.gather import Result, name_arms
from squad_lit.report.plot import new_figure, with_legend
from squad_lit.report.table import METRICS, Cell, Column, Row, Table, cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IMAGES = "dataset.limit_train"
_CORRUPTION = "dataset.corruption"
_STRENGTH = {
    "light": "brightness (factor)",
    "blur": "blur (σ, pixels)",
    "noise": "noise (σ, share of the range)",
    "shift": "shift (share of the side)",
}
# What a user of a deployed model sees, beside the rank metrics.
_ROBUSTNESS = [
    *(column for column in METRICS if column.key in ("image_auroc", "pixel_ap")),
    Column("image_recall", "recall\nat the threshold"),
    Column("image_false_alarm_rate", "false alarms\nat the threshold"),
]

ByValue = dict[str, dict[Any, list[Result]]]
"""Results by arm, without the option, and by the value of the option."""


def by_images(results: Sequence[Result]) -> ByValue:
    """Results of one data set by arm and number of training images, ascending; infinity stands for all of them.

    Empty unless there are two numbers.
    """

    def number(result: Result) -> float:
        given = result.run.config["dataset"].get("limit_train")
        return math.inf if given in (None, "all") else int(given)

    if len({number(r) for r in results}) < 2:
        return {}
    found: ByValue = {}
    for arm, r in zip(_arms_without(results, _IMAGES), results, strict=True):
        found.setdefault(arm, {}).setdefault(number(r), []).append(r)
    return {arm: dict(sorted(own.items())) for arm, own in found.items() if len(own) > 1}


def image_tables(results: Sequence[Result]) -> list[Table]:
    """One table per metric of :func:`by_images`: arms in rows, numbers of training images in columns."""
    found = by_images(results)
    numbers = sorted({number for own in found.values() for number in own})
    total = len({r.category for r in results})
    tables = []
    for column in METRICS if found else []:
        rows = [
            Row(arm, [cell(own[n], column) if n in own else Cell() for n in numbers], categories=total)
            for arm, own in found.items()
        ]
        title = f"{results[0].dataset}: {column.title} by number of training images"
        notes = ["the number includes the images that are held out to calibrate; 1: that image is trained on, too"]
        tables.append(Table(title, "arm", [_shown(n) for n in numbers], rows, notes))
    return tables


def image_curves(results: Sequence[Result]) -> Figure | None:
    """Each metric against the number of training images, one line per arm; None unless there are two numbers."""
    found = by_images(results)
    if not found:
        return None
    numbers = sorted({number for own in found.values() for number in own})
    finite = [n for n in numbers if n != math.inf]
    place = {n: n if n != math.inf else 2 * max(finite, default=1) for n in numbers}  # all: one step to the right
    figure = new_figure(len(METRICS))
    for axes, column in zip(figure.subplots(1, len(METRICS)), METRICS, strict=True):
        for i, (arm, own) in enumerate(found.items()):
            _line(axes, [(place[n], cell(rs, column)) for n, rs in own.items()], arm, f"C{i % 10}")
        axes.set_xscale("log", base=2)
        axes.set_xticks([place[n] for n in numbers], [_shown(n) for n in numbers])
        axes.minorticks_off()
        axes.set_title(f"{column.title} (%)")
        axes.set_xlabel("training images")
    return with_legend(figure)


def by_corruption(results: Sequence[Result]) -> dict[str, ByValue]:
    """Results of one data set by kind of change, arm and strength; the unchanged images are a strength of each kind."""
    found: dict[str, ByValue] = {}
    for arm, r in zip(_arms_without(results, _CORRUPTION), results, strict=True):
        given = r.run.config["dataset"].get("corruption") or {}
        if len(given) < 2:  # several at once are no point of a curve
            for kind, strength in (given or NEUTRAL).items():
                found.setdefault(kind, {}).setdefault(arm, {}).setdefault(float(strength), []).append(r)
    curves = {}
    for kind, arms in found.items():
        of_kind = {arm: dict(sorted(own.items())) for arm, own in arms.items() if len(own) > 1}
        if of_kind:
            curves[kind] = of_kind
    return curves


def corruption_curves(results: Sequence[Result]) -> Figure | None:
    """Metrics against the strength of each kind of change, one line per arm; None if no test images were changed."""
    found = by_corruption(results)
    columns = [c for c in _ROBUSTNESS if any(c.key in r.figures for r in results)]
    if not found or not columns:
        return None
    figure = new_figure(len(found), 2.2 * len(columns))
    arms = list(dict.fromkeys(arm for own in found.values() for arm in own))
    all_axes = figure.subplots(len(columns), len(found), squeeze=False, sharex="col", sharey="row")
    for row, column in zip(all_axes, columns, strict=True):
        for axes, (kind, own) in zip(row, found.items(), strict=True):
            for arm, by_strength in own.items():
                points = [(strength, cell(rs, column)) for strength, rs in by_strength.items()]
                _line(axes, points, arm, f"C{arms.index(arm) % 10}")
            axes.axvline(NEUTRAL[kind], color="0.5", linewidth=0.8, linestyle=":")
        row[0].set_ylabel(f"{column.title} (%)")
    for axes, kind in zip(all_axes[-1], found, strict=True):
        axes.set_xlabel(_STRENGTH[kind])
    return with_legend(figure)


def _line(axes: Any, points: Sequence[tuple[float, Cell]], label: str, colour: str) -> None:
    defined = [(x, c) for x, c in points if not math.isnan(c.mean)]
    if not defined:
        return
    x, cells = zip(*defined, strict=True)
    mean = [c.mean for c in cells]
    axes.errorbar(x, mean, [c.deviation or 0.0 for c in cells], fmt="o-", ms=3, color=colour, capsize=2, label=label)


def _arms_without(results: Sequence[Result], option: str) -> list[str]:
    runs = {r.run.folder: r.run for r in results}
    names = dict(zip(runs, name_arms(list(runs.values()), without=option), strict=True))
    return [names[r.run.folder] for r in results]


def _shown(number: float) -> str:
    return "all" if number == math.inf else str(int(number))
