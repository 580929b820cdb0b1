"""How far two models, or two files of one model, agree on images: scores, labels and maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from squad_lit.deploy.threshold import Threshold

if TYPE_CHECKING:
    from squad_lit.deploy.predictor import Predictor


class Agreement(NamedTuple):
    """What two models say about an image. A difference is a share of the first model's threshold.

    Args:
        image_path: The file.
        score_a: Score of the first model, in deviations from normal.
        score_b: The same of the second.
        label_a: 1 is anomalous, 0 is normal.
        label_b: The same of the second.
        score_difference: How far the scores lie apart, as a share of the threshold of the score.
        map_difference: Mean absolute difference of the maps, as a share of the threshold of pixels.
        mask_overlap: Intersection over union of the masks; 1 if both are empty.
        flipped: Whether the labels differ though a score lies further from its threshold than the tolerance.
    """

    image_path: Path
    score_a: float
    score_b: float
    label_a: int
    label_b: int
    score_difference: float
    map_difference: float
    mask_overlap: float
    flipped: bool

    def exceeds(self, tolerance: float) -> bool:
        """Whether the models disagree about the image; a difference that is NaN counts as one."""
        return self.flipped or not max(self.score_difference, self.map_difference) <= tolerance


def compare(a: Predictor, b: Predictor, path: Path, pixels: Sequence[NDArray[Any]], tolerance: float) -> Agreement:
    """Judge an image with two models.

    Args:
        a: The model whose thresholds are the scale.
        b: The other one.
        path: The image file.
        pixels: What each model reads from it, ``(H, W, 3)``.
        tolerance: Largest share of a threshold that counts as equal.

    Raises:
        ValueError: A score is not finite.
    """
    first, second = a.predict(pixels[0]), b.predict(pixels[1])
    union = (first.mask | second.mask).sum()
    near = _near(first.anomaly_score, a.threshold, tolerance) and _near(second.anomaly_score, b.threshold, tolerance)
    apart = np.abs(first.anomaly_map - second.anomaly_map).mean(dtype=np.float64)
    return Agreement(
        path,
        first.anomaly_score,
        second.anomaly_score,
        first.label,
        second.label,
        abs(first.anomaly_score - second.anomaly_score) / _scale(a.threshold),
        float(apart) / _scale(a.pixel_threshold),
        float((first.mask & second.mask).sum() / union) if union else 1.0,
        first.label != second.label and not near,
    )


def _near(score: float, threshold: Threshold, tolerance: float) -> bool:
    return abs(score - threshold.value) <= tolerance * _scale(threshold)


def _scale(threshold: Threshold) -> float:
    return abs(threshold.value) or 1.0
