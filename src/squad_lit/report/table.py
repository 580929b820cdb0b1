"""The tables of a report, in a structure from which every format is written."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hydra.utils import get_object

from squad_lit.report.figures import COLUMNS
from squad_lit.report.gather import Result
from squad_lit.system.table import read_rows


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
# Further figures: more metrics, the decisions at the deployed threshold, the use of the codes, and the costs. A key
# that ends in "/" or "_" is a prefix.
MORE = [
    Column("image_ap", "image AP"),
    Column("image_f1_max", "best image F1"),
    Column("pixel_f1_max", "best pixel F1"),
    Column("pixel_aupro_", "AUPRO"),
    Column("pixel_aupimo", "AUPIMO"),
    Column("image_f1", "image F1 at the threshold"),
    Column("image_precision", "image precision"),
    Column("image_recall", "image recall"),
    Column("image_false_alarm_rate", "false alarms", has_best=False),
    Column("pixel_f1", "pixel F1 at the threshold"),
    Column("pixel_precision", "pixel precision"),
    Column("pixel_recall", "pixel recall"),
    Column("synthetic_ap", "synthetic AP"),
    Column("copy_ratio/", "copy ratio", has_best=False),
    Column("codebook_usage/", "codebook usage", has_best=False),
    Column("perplexity/", "perplexity (codes)", 1.0, has_best=False),
    Column("psnr", "PSNR (dB)", 1.0),
    Column("ssim", "SSIM"),
    Column("seconds/train", "training (s)", 1.0, has_best=False),
    Column("peak_memory_mb", "memory (MB)", 1.0, has_best=False),
]


PARTIAL = "† of a run that ended early, or was tested in part"


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
        best: Whether it is in bold: no other arm has a higher mean, rounded as shown.
        interval: 95 % bootstrap interval of a single value, if the run has one (``metric.bootstrap``).
        text: What is shown in the place of the figures, unless it is empty.
        is_partial: Whether a run in it ended early or was tested in part; see ``Run.lacks``.
    """

    mean: float = math.nan
    deviation: float | None = None
    seeds: int = 0
    undefined: int = 0
    categories: tuple[str, ...] = ()
    delta: float | None = None
    best: bool = False
    interval: tuple[float, float] | None = None
    text: str = ""
    is_partial: bool = False


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
    """A table with its title and notes; ``corner`` is the title of the first column, and ``partial`` a further note."""

    title: str
    corner: str
    columns: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=list)

    @property
    def partial(self) -> list[str]:
        """The note that explains the mark of partial figures, if there are some."""
        return [PARTIAL] if any(cell.is_partial for row in self.rows for cell in row.cells) else []


def make(
    results: Sequence[Result], baseline: str | None = None, published: Sequence[Mapping[str, str]] = ()
) -> list[Table]:
    """All tables per data set, which are the means of each arm, each metric by category, and further figures.

    Args:
        results: At least one result.
        baseline: Arm that the others are compared with.
        published: Rows of :func:`read_published`. Means are shown below those of the arms if these are over all
            categories of the benchmark, and results of a single category below those of the arms on it.

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
        theirs: dict[str, list[Mapping[str, str]]] = {}  # by category; "" has the means over all
        for row in published if kind.startswith("squad_lit.") else []:
            if row["dataset"] == dataset:
                theirs.setdefault(row["category"], []).append(row)
        notes = []
        if theirs.get("") and len(categories) < (total := len(get_object(kind).CATEGORIES)):
            notes = [f"published means are over {total} categories and not shown beside fewer"]
            theirs[""] = []
        several = len(categories) > 1
        what = f"means over {len(categories)} categories" if several else categories[0]
        rows, sources = _published_rows(theirs.get("", []) + ([] if several else theirs.get(categories[0], [])))
        means = _by_arm(own, here, METRICS, baseline) + rows
        tables.append(Table(f"{dataset}: {what}", "arm", [c.title for c in METRICS], means, notes + sources))
        if several and len(here) > 1:
            for c in METRICS:
                rows = _by_category(own, partial(_cells, arms=here, column=c, baseline=baseline))
                tables.append(Table(f"{dataset}: {c.title}", "category", here, rows))
        elif several:
            tables += of_arms(own)
        for arm in here if several else []:
            tables += _by_kind([r for r in own if r.arm == arm])
        for category in categories if several else []:
            if category in theirs:
                rows, sources = _published_rows(theirs[category])
                means = _by_arm([r for r in own if r.category == category], here, METRICS, baseline)
                title = f"{dataset}: {category} beside published results"
                tables.append(Table(title, "arm", [c.title for c in METRICS], means + rows, sources))
        if more := _present(own):
            rows = _by_arm(own, here, more, baseline)
            tables.append(Table(f"{dataset}: further figures", "arm", [c.title for c in more], rows))
    return tables


def of_arms(results: Sequence[Result]) -> list[Table]:
    """The table of a paper for each data set and arm: categories in rows, their means below, metrics in columns."""
    own: dict[tuple[str, str], list[Result]] = {}
    for r in results:
        own.setdefault((r.dataset, r.arm), []).append(r)
    return [
        Table(f"{dataset}: {arm}", "category", [c.title for c in METRICS], _by_category(of_arm, _metrics))
        for (dataset, arm), of_arm in own.items()
    ]


def read_published() -> list[dict[str, str]]:
    """Published results of other methods in percent, with sources: of a category, or means over all of a benchmark."""
    return read_rows(Path(__file__).with_name("published.csv"))


def cell(results: Iterable[Result], column: Column) -> Cell:
    """The mean of the categories' means over seeds, and its deviation over the seeds that have all categories."""
    by_category: dict[str, dict[int, float]] = {}
    undefined = 0
    results = list(results)
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
    ends = results[0].figures.get("interval", {}).get(column.key) if len(results) == 1 else None
    interval = (column.scale * ends[0], column.scale * ends[1]) if ends and None not in ends else None
    categories, is_partial = tuple(sorted(by_category)), any(r.run.lacks for r in results)
    return Cell(mean, deviation, len(seeds), undefined, categories, interval=interval, is_partial=is_partial)


def _by_arm(
    results: Sequence[Result], arms: Sequence[str], columns: Iterable[Column], baseline: str | None
) -> list[Row]:
    by_column = [_cells(results, arms, column, baseline) for column in columns]
    total = len({r.category for r in results})
    return [Row(arm, [cells[i] for cells in by_column], categories=total) for i, arm in enumerate(arms)]


def _metrics(results: Sequence[Result]) -> list[Cell]:
    return [cell(results, column) for column in METRICS]


def _by_kind(results: Sequence[Result]) -> list[Table]:
    """The means of each kind of defect of an arm, if all categories have the same kinds, as those of MVTec LOCO AD."""
    kinds = [set(r.figures.get("per_defect") or {}) for r in results]
    if len({r.category for r in results}) < 2 or len(kinds[0]) < 2 or any(own != kinds[0] for own in kinds):
        return []
    rows = []
    for kind in sorted(kinds[0]):
        of_kind = [dataclasses.replace(r, figures=r.figures["per_defect"][kind]) for r in results]
        rows.append(Row(kind, _metrics(of_kind), categories=len({r.category for r in results})))
    title = f"{results[0].dataset}: {results[0].arm} by kind of defect"
    return [Table(title, "kind", [c.title for c in METRICS], rows)]


def _by_category(results: Sequence[Result], make_cells: Callable[[Sequence[Result]], Sequence[Cell]]) -> list[Row]:
    categories = sorted({r.category for r in results})
    rows = [Row(name, make_cells([r for r in results if r.category == name])) for name in categories]
    return [*rows, Row("mean", make_cells(results), "mean", len(categories))]


def _published_rows(published: Sequence[Mapping[str, str]]) -> tuple[list[Row], list[str]]:
    """The rows of other methods, and the notes that say where their results come from."""
    sources = list(dict.fromkeys((p["protocol"], p["source"]) for p in published))
    rows = [
        Row(
            f"{p['method']} (published, other protocol) [{sources.index((p['protocol'], p['source'])) + 1}]",
            [Cell(float(p[column.key] or "nan")) for column in METRICS],
            "published",
        )
        for p in published
    ]
    notes = ["published, other protocol: from other evaluations; means are over all categories of the benchmark"]
    notes += [f"[{i}] {protocol}; source: {source}" for i, (protocol, source) in enumerate(sources, 1)]
    return rows, notes if rows else []


def _cells(results: Sequence[Result], arms: Sequence[str], column: Column, baseline: str | None) -> list[Cell]:
    """A cell per arm, with its difference; the best is marked among those with the most categories."""
    cells = {arm: cell([r for r in results if r.arm == arm], column) for arm in arms}
    most = max(len(c.categories) for c in cells.values())
    able = [c for c in cells.values() if len(c.categories) == most and not (math.isnan(c.mean) or c.is_partial)]
    highest = max((round(c.mean, 1) for c in able), default=math.nan) if column.has_best and len(able) > 1 else math.nan
    base = cells.get(baseline) if baseline is not None else None
    found = []
    for arm, c in cells.items():
        best = c in able and round(c.mean, 1) == highest
        comparable = base is not None and arm != baseline and c.categories == base.categories and c.categories
        found.append(dataclasses.replace(c, best=best, delta=c.mean - base.mean if base and comparable else None))
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
