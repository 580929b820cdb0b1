"""The tables of a report, in a structure from which every format is written."""

from __future__ import annotations

import csv
import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hydra.utils import get_object

from squad_lit.report.figures import COLUMNS
from squad_lit.report.gather import Result


class Column(NamedTuple):
    """A column of a table.

    Args:
        key: Key in ``metrics.json``.
        title: Title of the column.
        scale: Factor of the values; 100 shows a share in percent.
        has_best: Whether the highest value is marked as the best.
    """

    key: str
    title: str
    scale: float = 100.0
    has_best: bool = True


METRICS = [Column(key, title) for title, key in COLUMNS.items()]
# Further figures: more metrics, the use of the codes, and the costs. A key that ends in "/" or "_" is a prefix.
MORE = [
    Column("image_ap", "image AP"),
    Column("image_f1_max", "image F1"),
    Column("pixel_f1_max", "pixel F1"),
    Column("pixel_aupro_", "AUPRO"),
    Column("synthetic_ap", "synthetic AP"),
    Column("copy_ratio/", "copy ratio", has_best=False),
    Column("codebook_usage/", "codebook usage", has_best=False),
    Column("perplexity/", "perplexity (codes)", 1.0, has_best=False),
    Column("psnr", "PSNR (dB)", 1.0),
    Column("ssim", "SSIM"),
    Column("seconds/train", "training (s)", 1.0, has_best=False),
    Column("peak_memory_mb", "memory (MB)", 1.0, has_best=False),
]


@dataclass(frozen=True)
class Cell:
    """A figure of a table; shares are in percent.

    Args:
        mean: Mean over seeds and categories; NaN if it is undefined or nothing was run.
        deviation: Standard deviation over the seeds (n - 1); None with fewer than two.
        seeds: Number of seeds in the mean.
        undefined: Number of undefined values, which were left out.
        categories: Categories in the mean.
        delta: Difference from the baseline, over the same categories.
        best: Whether no other arm has a higher mean, rounded as shown.
    """

    mean: float = math.nan
    deviation: float | None = None
    seeds: int = 0
    undefined: int = 0
    categories: tuple[str, ...] = ()
    delta: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        name: First cell.
        cells: One cell per column.
        kind: ``mean`` for a row of means, ``published`` for results of other methods, else empty.
        categories: Number of categories that its means should be over.
    """

    name: str
    cells: Sequence[Cell]
    kind: str = ""
    categories: int = 1


@dataclass(frozen=True)
class Table:
    """A table.

    Args:
        title: Title above the table.
        corner: Title of the first column.
        columns: Titles of the other columns.
        rows: Rows.
        notes: Notes below the table.
    """

    title: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=list)


class Published(NamedTuple):
    """Published results of a method on a benchmark, as means over its categories in percent."""

    method: str
    dataset: str
    protocol: str
    values: Mapping[str, float]
    source: str


def make(results: Sequence[Result], baseline: str | None = None, published: Sequence[Published] = ()) -> list[Table]:
    """All tables per data set, which are the means of each arm, each metric by category, and further figures.

    Args:
        results: At least one result.
        baseline: Arm that the others are compared with.
        published: Results of other methods, shown below the means of the arms if these are over all categories of the
            benchmark.

    Raises:
        ValueError: No arm has the name of the baseline.
    """
    arms = list(dict.fromkeys(r.arm for r in results))
    if baseline is not None and baseline not in arms:
        raise ValueError(f"--baseline: no arm {baseline!r}; there are: {'; '.join(arms)}")
    tables = []
    for dataset in dict.fromkeys(r.dataset for r in results):
        own = [r for r in results if r.dataset == dataset]
        here = [arm for arm in arms if any(r.arm == arm for r in own)]
        categories = sorted({r.category for r in own})
        kind = str(own[0].run.config["dataset"]["_target_"])
        # A user's class is no benchmark, whatever its name.
        theirs = [p for p in published if p.dataset == dataset] if kind.startswith("squad_lit.") else []
        notes = []
        if theirs and len(categories) < (total := len(get_object(kind).CATEGORIES)):
            theirs, notes = [], [f"published results are means over {total} categories and not shown beside fewer"]
        what = f"means over {len(categories)} categories" if len(categories) > 1 else categories[0]
        tables.append(_of_arms(f"{dataset}: {what}", own, here, METRICS, baseline, theirs, notes))
        if len(categories) > 1 and len(here) > 1:
            tables += [_of_metric(f"{dataset}: {c.title}", own, here, categories, c, baseline) for c in METRICS]
        elif len(categories) > 1:
            tables.append(_of_categories(f"{dataset}: {here[0]}", own, categories))
        if more := _present(own):
            tables.append(_of_arms(f"{dataset}: further figures", own, here, more, baseline))
    return tables


def read_published() -> list[Published]:
    """Published results of other methods, with their sources."""
    keys = {"image_auroc": "image_auroc", "pixel_auroc": "pixel_auroc", "pixel_ap": "pixel_ap", "aupro": "pixel_aupro"}
    with Path(__file__).with_name("published.csv").open(newline="", encoding="utf-8") as file:
        return [
            Published(
                row["method"],
                row["dataset"],
                row["protocol"],
                {ours: float(row[theirs]) for theirs, ours in keys.items() if row[theirs]},
                row["source"],
            )
            for row in csv.DictReader(file)
        ]


def cell(results: Iterable[Result], column: Column) -> Cell:
    """The mean of the categories' means over seeds, and its deviation over the seeds that have all categories."""
    by_category: dict[str, dict[int, float]] = {}
    undefined = 0
    for r in results:
        value = r.value(column.key)
        if math.isnan(value):
            undefined += column.key in r.figures
        else:
            by_category.setdefault(r.category, {})[r.seed] = column.scale * value
    if not by_category:
        return Cell(undefined=undefined)
    mean = statistics.fmean(statistics.fmean(own.values()) for own in by_category.values())
    seeds = set.union(*map(set, by_category.values()))
    whole = [seed for seed in seeds if all(seed in own for own in by_category.values())]
    means = [statistics.fmean(own[seed] for own in by_category.values()) for seed in whole]
    deviation = statistics.stdev(means) if len(means) > 1 else None
    return Cell(mean, deviation, len(seeds), undefined, tuple(sorted(by_category)))


def _of_arms(
    title: str,
    results: Sequence[Result],
    arms: Sequence[str],
    columns: Sequence[Column],
    baseline: str | None,
    published: Sequence[Published] = (),
    notes: Sequence[str] = (),
) -> Table:
    by_column = [
        _compared({arm: cell([r for r in results if r.arm == arm], c) for arm in arms}, c, baseline) for c in columns
    ]
    total = len({r.category for r in results})
    rows = [Row(arm, [cells[arm] for cells in by_column], categories=total) for arm in arms]
    notes = [*notes]
    sources = list(dict.fromkeys((p.protocol, p.source) for p in published))
    for p in published:
        number = sources.index((p.protocol, p.source)) + 1
        cells = [Cell(p.values.get(c.key, math.nan)) for c in columns]
        rows.append(Row(f"{p.method} (published, other protocol) [{number}]", cells, "published"))
    if published:
        notes.append("published, other protocol: means over all categories of the benchmark, from other evaluations")
        notes += [f"[{i}] {protocol}; source: {source}" for i, (protocol, source) in enumerate(sources, 1)]
    return Table(title, "arm", [c.title for c in columns], rows, notes)


def _of_metric(
    title: str,
    results: Sequence[Result],
    arms: Sequence[str],
    categories: Sequence[str],
    column: Column,
    baseline: str | None,
) -> Table:
    rows = []
    for name in [*categories, None]:
        own = [r for r in results if name in (None, r.category)]
        cells = _compared({arm: cell([r for r in own if r.arm == arm], column) for arm in arms}, column, baseline)
        row = Row(name, list(cells.values())) if name else Row("mean", list(cells.values()), "mean", len(categories))
        rows.append(row)
    return Table(title, "category", arms, rows)


def _of_categories(title: str, results: Sequence[Result], categories: Sequence[str]) -> Table:
    rows = [Row(name, [cell([r for r in results if r.category == name], c) for c in METRICS]) for name in categories]
    rows.append(Row("mean", [cell(results, c) for c in METRICS], "mean", len(categories)))
    return Table(title, "category", [c.title for c in METRICS], rows)


def _compared(cells: Mapping[str, Cell], column: Column, baseline: str | None) -> dict[str, Cell]:
    """The cells of several arms, with differences, and with the best marked among those with the most categories."""
    most = max(len(c.categories) for c in cells.values())
    able = [c for c in cells.values() if len(c.categories) == most and not math.isnan(c.mean)]
    highest = max((round(c.mean, 1) for c in able), default=math.nan) if column.has_best and len(able) > 1 else math.nan
    base = cells.get(baseline) if baseline is not None else None
    found = {}
    for arm, c in cells.items():
        best = len(c.categories) == most and round(c.mean, 1) == highest
        comparable = base is not None and arm != baseline and c.categories == base.categories and c.categories
        found[arm] = dataclasses.replace(c, best=best, delta=c.mean - base.mean if base and comparable else None)
    return found


def _present(results: Sequence[Result]) -> list[Column]:
    """The further columns for which a run has a figure, one per group of features."""
    keys = sorted({key for r in results for key, v in r.figures.items() if v is None or isinstance(v, int | float)})
    return [
        column._replace(key=key, title=f"{column.title} {key.removeprefix(column.key)}".strip())
        for column in MORE
        for key in keys
        if key == column.key or (column.key[-1] in "/_" and key.startswith(column.key))
    ]
