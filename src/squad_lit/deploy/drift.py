"""Drift: a sequential test whether new scores still are as those of the normal images of the calibration."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from squad_lit.image.roi import decode, identify

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor

RUN_LENGTH = 10_000_000
"""Default of the mean number of normal images before a false report, at least."""

# Factors on the odds that an image exceeds a level: what the test looks for.
_ODDS = (2.0, 8.0, 32.0)
# A drift that goes on is reported once; after so many images without it, it is another one.
_QUIET = 1000


class Drift(NamedTuple):
    """A report that scores have left what the calibration explains.

    Args:
        kind: ``share``, above the threshold, or ``median``.
        images: The number of the last images that the report is about; estimated, as the begin of a drift is.
        above: How many of them score above ``level``.
        level: The threshold, or the median score of the calibration.
        expected: The share of images above ``level`` that was expected, from the calibration and the images before.
        median: The median score of the last images, of at most the last 1,000.
    """

    kind: str
    images: int
    above: int
    level: float
    expected: float
    median: float

    def __str__(self) -> str:
        last = f"the last {self.images:,} images" if self.images > 1 else "the last image"
        if self.kind == "share":
            return (
                f"{self.above:,} of {last} score above the threshold {self.level:.3g}, where "
                f"{100 * self.expected:.2g} % were expected (median {self.median:.3g})"
            )
        return (
            f"the median score of {last} is {self.median:.3g}, and that of the calibration {self.level:.3g}: "
            f"{self.above:,} lie above it, where {100 * self.expected:.2g} % were expected"
        )


class DriftMonitor:
    """Takes one score after the other, and reports when they have left what the calibration explains.

    Two levels are watched: the threshold, which too many scores may exceed, and the median score of the calibration,
    which too many or too few may exceed. If the n images of the calibration and the new ones come from one
    distribution, a new one exceeds the k-th highest score of the calibration with probability (k + s) / (n + 1 + t),
    given that s of t new ones before did, whatever that distribution is (Pólya's urn). The calibration's own
    uncertainty is therefore part of the test, and no number of images is too small for it.

    For each level and each of a few factors on the odds, the statistic of Shiryaev and Roberts adds up the likelihood
    ratios of all changes that may have begun. The report comes when their mean reaches ``run_length``. As that mean
    grows by 1 per normal image in expectation, the expected number of normal images before a false report is at least
    ``run_length``, and N normal images lead to a false report with a probability of at most N / ``run_length``.

    After a report the test begins again from the calibration. A drift that goes on is reported once: reports are held
    back until 1,000 images in a row gave no reason for one.

    Args:
        normal: Scores of the normal images of the calibration.
        threshold: Scores above it are anomalous.
        run_length: The least expected number of normal images before a false report, more than 1.
        defect_rate: Share of defective parts that the line is known to make, in [0, 1). So many more images may
            exceed each level.
        downward: Whether falling scores are a drift, too. They are none where a region of interest is judged and the
            calibration saw whole images.

    Raises:
        ValueError: There is no normal image, or a number is out of range.

    Example:
        >>> normal = [37 * i % 100 / 100 for i in range(100)]
        >>> monitor = DriftMonitor(normal, threshold=0.99)
        >>> any(monitor.feed(score) for score in normal)
        False
        >>> reports = [report for _ in range(50) if (report := monitor.feed(2.0))]
        >>> print(*reports)
        6 of the last 6 images score above the threshold 0.99, where 0.5 % were expected (median 2)

    Reference:
        Pollak, "Average run lengths of an optimal method of detecting a change in distribution", Annals of Statistics
        1987; Shin, Ramdas and Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", 2024.
    """

    def __init__(
        self,
        normal: Sequence[float],
        threshold: float,
        *,
        run_length: float = RUN_LENGTH,
        defect_rate: float = 0.0,
        downward: bool = True,
    ) -> None:
        if not normal:
            raise ValueError("there is no normal image to compare new scores with")
        if not 1 < run_length < math.inf:
            raise ValueError(f"--run-length: expected a number of images above 1, got {run_length}")
        if not 0 <= defect_rate < 1:
            raise ValueError(f"--defect-rate: expected a share in [0, 1), got {defect_rate}")
        self.run_length = run_length
        median = sorted(normal)[len(normal) // 2]
        both = (*_ODDS, *(1 / odds for odds in _ODDS)) if downward else _ODDS
        self._levels = [
            _Level("share", threshold, normal, _ODDS, defect_rate),
            _Level("median", median, normal, both, defect_rate),
        ]
        self._recent: deque[float] = deque(maxlen=_QUIET)
        self._since = _QUIET  # images since there was reason for a report

    @classmethod
    def of(cls, predictor: Predictor, *, run_length: float = RUN_LENGTH, defect_rate: float = 0.0) -> DriftMonitor:
        """A monitor for the scores of a predictor."""
        about = predictor.runtime.metadata
        return cls(
            about["normal_scores"],
            predictor.threshold.value,
            run_length=run_length,
            defect_rate=defect_rate,
            downward=predictor.roi_digest == identify(decode(about["roi"])),
        )

    @property
    def evidence(self) -> float:
        """The mean of the statistics, at least 0; a report is due at ``run_length``."""
        found = [change.evidence for level in self._levels for change in level.changes]
        return sum(found) / len(found)

    @property
    def drifting(self) -> bool:
        """Whether there was reason for a report within the last 1,000 images."""
        return self._since < _QUIET

    def feed(self, score: float) -> Drift | None:
        """Take the score of the next image, and return a report if scores have drifted.

        Raises:
            ValueError: The score is not finite.
        """
        if not math.isfinite(score):
            raise ValueError(f"expected the finite score of an image, got {score}")
        self._recent.append(score)
        self._since += 1
        for level in self._levels:
            level.observe(score > level.value)
        if self.evidence < self.run_length:
            return None
        changes = [(level, change) for level in self._levels for change in level.changes]
        level, change = max(changes, key=lambda one: one[1].evidence)
        last = list(self._recent)[-change.images :]
        report = Drift(level.kind, change.images, change.above, level.value, change.expected, statistics.median(last))
        was_drifting = self.drifting
        self._since = 0
        for level in self._levels:
            level.restart()
        return None if was_drifting else report


class RowMonitor:
    """Takes the rows of ``predictions.csv``; a new :class:`DriftMonitor` begins where the model or threshold changes.

    Args:
        known: What :func:`squad_lit.deploy.known_scores.recall` returns.
        run_length: See :class:`DriftMonitor`.
        defect_rate: See :class:`DriftMonitor`.

    Raises:
        ValueError: A number is out of range.
    """

    def __init__(
        self,
        known: Mapping[str, Any] | None = None,
        *,
        run_length: float = RUN_LENGTH,
        defect_rate: float = 0.0,
    ) -> None:
        self.known = known or {}
        self._new = partial(DriftMonitor, run_length=run_length, defect_rate=defect_rate)
        self._new([0.0], 0.0)  # refuses numbers that are out of range
        self._key: tuple[str, ...] = ()

    def feed(self, row: Mapping[str, str]) -> Drift | None:
        """Take the next row, as :meth:`DriftMonitor.feed` takes a score.

        Raises:
            ValueError: The row is damaged, or the normal scores of its model are not known.
        """
        key = row["model"], row["roi"], row["threshold"]
        if key != self._key:
            if row["model"] not in self.known:
                raise ValueError(
                    f"there is no calibration.json with the model {row['model']} beside the table: predict into the "
                    f"folder again, which writes it and leaves the rest as it is"
                )
            about = self.known[row["model"]]
            self._monitor = self._new(
                about["normal_scores"], _number(row, "threshold"), downward=row["roi"] == about["roi"]
            )
            self._key = key
        return self._monitor.feed(_number(row, "anomaly_score"))


def _number(row: Mapping[str, str], column: str) -> float:
    try:
        return float(row[column])
    except (TypeError, ValueError):  # None: the row is too short
        raise ValueError(
            f"the table is damaged: {column} of {row['image_path']} is {row[column]!r}, expected a number"
        ) from None


class _Level:
    """A level, how often normal images exceed it, and the changes of that share that are looked for."""

    def __init__(self, kind: str, value: float, normal: Sequence[float], odds: Sequence[float], more: float) -> None:
        self.kind, self.value = kind, value
        # A level that is a score of the calibration is exceeded with one more, as in threshold.from_normals.
        self._known = sum(score > value for score in normal) + 1, len(normal) + 1
        self._odds, self._more = odds, more
        self.restart()

    def restart(self) -> None:
        self._above, self._images = self._known
        self.changes = [_Change(odds) for odds in self._odds]

    def observe(self, is_above: bool) -> None:
        share = self._above / self._images
        most = share + self._more * (1 - share)
        for change in self.changes:
            change.observe(is_above, most if change.odds > 1 else share)
        self._above, self._images = self._above + is_above, self._images + 1


class _Change:
    """Evidence that the odds of exceeding a level have become others, by one factor."""

    def __init__(self, odds: float) -> None:
        self.odds, self.evidence = odds, 0.0
        self._path = 0.0  # the likelihood ratio since the change that is most likely, which began ``images`` ago
        self.images, self.above, self.expected = 0, 0, 0.0

    def observe(self, is_above: bool, share: float) -> None:
        ratio = (self.odds if is_above else 1) / (1 - share + self.odds * share)
        self.evidence = (1 + self.evidence) * ratio
        if self._path <= 1:
            self._path, self.images, self.above, self.expected = 1.0, 0, 0, share
        self._path *= ratio
        self.images, self.above = self.images + 1, self.above + is_above
