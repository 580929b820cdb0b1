"""Paired comparisons of arms: Wilcoxon's signed-rank test with its interval, corrected by Holm's method."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from squad_lit.report.gather import Result
from squad_lit.report.table import METRICS, Cell, Column, Row, Table

LEVEL = 0.05
"""Significance level of the tests; the intervals cover 1 - LEVEL."""
MOST_ARMS = 6
"""With more arms, the correction for all pairs leaves no difference significant, and the table is too long to read."""

_NOTES = [
    "a pair is a category and seed that both arms have; p is that of Wilcoxon's signed-rank test, two-sided, corrected "
    "by Holm's method over all pairs of arms in the column; in bold where it is below 0.05",
    "the difference is the median of all means of two differences (Hodges and Lehmann), in points of percent, with the "
    "interval of the same test; fewer than 6 pairs have no 95 % interval and cannot reach p < 0.05",
    "seeds of one category resemble each other, so that p tells about further trainings on these categories, and less "
    "about other categories",
]


@dataclass(frozen=True)
class Comparison:
    """The difference between two arms in a metric.

    Args:
        dataset: Name of the data set.
        metric: The metric.
        arm: The arm that is compared.
        against: The arm that it is compared with; a positive difference is in favour of ``arm``.
        pairs: Number of categories and seeds that both have.
        difference: Estimate of Hodges and Lehmann, in percent.
        interval: 95 % confidence interval of the difference; None if there are too few pairs for one.
        p: Two-sided probability of differences at least as large if the arms are equally good.
        p_holm: ``p`` after Holm's correction over the pairs of arms.
    """

    dataset: str
    metric: Column
    arm: str
    against: str
    pairs: int
    difference: float
    interval: tuple[float, float] | None
    p: float
    p_holm: float

    @property
    def text(self) -> str:
        """Such as ``+1.2 [+0.3, +2.0], p = 0.031``."""
        between = "" if self.interval is None else " [{:+.1f}, {:+.1f}]".format(*self.interval)
        p = f"p = {self.p_holm:.2g}" if self.p_holm >= 0.001 else "p < 0.001"
        return f"{self.difference:+.1f}{between}".replace("-", "−").replace("−0.0", "+0.0") + f", {p}"


def compare(results: Sequence[Result], baseline: str | None = None) -> list[Comparison]:
    """Compare the arms of a data set in each metric, as far as two of them have two pairs or more.

    Args:
        results: Results of one data set.
        baseline: The arm that the others are compared with; None: each with each, if there are at most ``MOST_ARMS``.
    """
    arms = list(dict.fromkeys(r.arm for r in results))
    if baseline in arms:
        both = [(arm, str(baseline)) for arm in arms if arm != baseline]
    elif len(arms) <= MOST_ARMS:
        both = [(b, a) for a, b in itertools.combinations(arms, 2)]
    else:
        return []
    found = []
    for metric in METRICS:
        values: dict[str, dict[tuple[str, int], float]] = {arm: {} for arm in arms}
        for r in results:
            if not math.isnan(value := r.value(metric.key)):
                values[r.arm][r.category, r.seed] = metric.scale * value
        own = []
        for arm, against in both:
            differences = [values[arm][at] - values[against][at] for at in values[arm] if at in values[against]]
            if len(differences) > 1:
                own.append((arm, against, len(differences), *signed_rank(differences)))
        for made, p_holm in zip(own, holm([p for *_, p in own]), strict=True):
            found.append(Comparison(results[0].dataset, metric, *made, p_holm))
    return found


def tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """A table per data set: pairs of arms in rows, metrics in columns; significant differences are in bold."""
    made = []
    for dataset in dict.fromkeys(c.dataset for c in comparisons):
        own = {(c.arm, c.against, c.metric): c for c in comparisons if c.dataset == dataset}
        rows = []
        for arm, against in dict.fromkeys((arm, against) for arm, against, _ in own):
            of_row = [own.get((arm, against, metric)) for metric in METRICS]
            pairs = max(c.pairs for c in of_row if c)
            rows.append(Row(f"{arm} against {against} ({pairs} pairs)", [_cell(c, pairs) for c in of_row]))
        columns = [metric.title for metric in METRICS]
        made.append(Table(f"{dataset}: paired differences", "arms", columns, rows, _NOTES))
    return made


def rows(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The rows of ``comparisons.csv``, with differences in percent."""
    keys = ("dataset", "arm", "against", "pairs", "difference", "p", "p_holm")
    ends = [c.interval or (None, None) for c in comparisons]
    return [
        {"metric": c.metric.key} | {key: getattr(c, key) for key in keys} | {"low": low, "high": high}
        for c, (low, high) in zip(comparisons, ends, strict=True)
    ]


def signed_rank(differences: Sequence[float]) -> tuple[float, tuple[float, float] | None, float]:
    """Wilcoxon's signed-rank test of paired differences, with the estimate and the interval that belong to it.

    Args:
        differences: At least one. Those of 0 are left out of the test, and not of the estimate.

    Returns:
        The median of the means of all pairs of differences (Walsh averages); the interval of those values that the
        test would not refuse at 5 %, or None if no value can be refused; and the two-sided p-value.

    Reference:
        Hollander, Wolfe, Chicken: "Nonparametric Statistical Methods", 3rd edition, sections 3.1 to 3.3.
    """
    from scipy.stats import wilcoxon

    # Differences that are equal in exact arithmetic share a rank.
    exact = np.round(np.asarray(differences, dtype=float), 9)
    n = len(exact)
    walsh = np.sort((exact[:, None] + exact)[np.tril_indices(n)] / 2)
    # The distribution of the rank sum, without ties: each rank counts or does not, with equal chance.
    chance = np.ones(1)
    for rank in range(1, n + 1):
        chance = (np.pad(chance, (0, rank)) + np.pad(chance, (rank, 0))) / 2
    k = int((2 * chance.cumsum() <= LEVEL).sum())  # 2 P(W <= k - 1) <= LEVEL
    interval = (float(walsh[k - 1]), float(walsh[-k])) if k else None
    p = float(wilcoxon(exact).pvalue) if exact.any() else 1.0
    return float(np.median(walsh)), interval, p


def holm(p: Sequence[float]) -> list[float]:
    """Probabilities after Holm's step-down correction for several tests, in their order.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    highest, corrected = 0.0, [0.0] * len(p)
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = highest
    return corrected


def _cell(comparison: Comparison | None, pairs: int) -> Cell:
    if comparison is None:
        return Cell()
    fewer = "" if comparison.pairs == pairs else f" (of {comparison.pairs})"
    return Cell(comparison.difference, best=comparison.p_holm < LEVEL, text=comparison.text + fewer)
