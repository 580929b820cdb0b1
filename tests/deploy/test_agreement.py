"""Two models whose maps are known by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_predictor import Brightness

from squad_lit.deploy.comparison import compare
from squad_lit.deploy.predictor import Predictor
from squad_lit.deploy.runtime import Output

SIZE = (10, 20)


class Brighter(Brightness):
    """As the other one, with a map that is higher by 0.05 everywhere."""

    def run(self, image: np.ndarray) -> Output:
        found = super().run(image)
        return Output(*(part + np.float32(0.05) for part in found))


def both(pixels: np.ndarray, tolerance: float = 0.01, b: Any = Brightness) -> Any:
    first, second = Predictor(Brightness(SIZE)), Predictor(b(SIZE))
    assert (first.threshold.value, first.pixel_threshold.value) == (0.5, 0.7)
    return compare(first, second, Path("a.png"), [pixels, pixels], tolerance)


@pytest.mark.filterwarnings("ignore::UserWarning")  # two normal images support no rate
def test_a_model_agrees_with_itself() -> None:
    found = both(np.random.default_rng(0).random((*SIZE, 3), np.float32))
    assert (found.score_difference, found.map_difference, found.mask_overlap) == (0, 0, 1)
    assert not found.exceeds(0)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_differences_are_shares_of_the_thresholds() -> None:
    pixels = np.full((*SIZE, 3), 0.2, np.float32)
    pixels[:5] = 0.66  # half of the image lies below the pixel threshold with one model, and above it with the other
    found = both(pixels, b=Brighter)
    assert (found.score_a, found.score_b) == pytest.approx((0.66, 0.71))
    assert found.score_difference == pytest.approx(0.05 / 0.5)
    assert found.map_difference == pytest.approx(0.05 / 0.7)
    assert (found.label_a, found.label_b, found.flipped) == (1, 1, False)
    assert found.exceeds(0.09)
    assert not found.exceeds(0.11)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("tolerance", "flipped"), [(0.01, True), (0.2, False)])
def test_a_label_flips_where_a_score_is_not_at_its_threshold(tolerance: float, flipped: bool) -> None:
    found = both(np.full((*SIZE, 3), 0.48, np.float32), tolerance, Brighter)  # 0.48 and 0.53, the threshold is 0.5
    assert (found.label_a, found.label_b, found.flipped) == (0, 1, flipped)
    assert found.exceeds(1.0) == flipped
