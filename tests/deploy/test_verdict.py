"""The truth is scipy.ndimage, on maps at random and by hand."""

import numpy as np
import pytest
from scipy import ndimage

from squad_lit.deploy.verdict import decide


def expected(mask: np.ndarray, min_area: int) -> tuple[np.ndarray, list[int]]:
    """The mask without small regions, and the areas of the others."""
    labelled, count = ndimage.label(mask, np.ones((3, 3)))
    areas = {n: int((labelled == n).sum()) for n in range(1, count + 1)}
    kept = [n for n, area in areas.items() if area >= min_area]
    return np.isin(labelled, kept), sorted((areas[n] for n in kept), reverse=True)


@pytest.mark.parametrize("min_area", [0, 1, 3, 12])
def test_label_and_regions_never_contradict_each_other(min_area):
    rng = np.random.default_rng(min_area)
    seen = set()
    for _ in range(200):
        anomaly_map = ndimage.gaussian_filter(rng.normal(size=(20, 24)), 1).astype(np.float32)
        anomaly_map[:, :5] = np.nan if rng.random() < 0.3 else anomaly_map[:, :5]
        score = float(np.nanquantile(anomaly_map, 0.99))
        threshold, pixel_threshold = rng.normal(0.5, 0.3), rng.normal(0.9, 0.3)
        found = decide(anomaly_map, score, threshold, pixel_threshold, min_area=min_area)
        with np.errstate(invalid="ignore"):
            high, low = (expected(anomaly_map >= level, min_area) for level in (pixel_threshold, threshold))
        mask, areas = high if high[1] else low
        if score <= threshold or not areas:
            mask, areas = np.zeros_like(mask), []
        assert found.label == bool(areas) == bool(found.regions)
        assert np.array_equal(found.mask, mask)
        assert [region[-1] for region in found.regions] == areas
        seen.add((found.label, score > threshold, bool(high[1])))
    assert seen >= {(0, False, True), (0, False, False), (1, True, True), (1, True, False)}


def test_a_part_with_small_regions_alone_is_normal():
    anomaly_map = np.zeros((6, 6), np.float32)
    anomaly_map[1, 1] = anomaly_map[4, 3:5] = 5.0
    for min_area, areas in ((0, [2, 1]), (2, [2]), (3, [])):
        found = decide(anomaly_map, 5.0, 1.0, 4.0, min_area=min_area)
        assert [region[-1] for region in found.regions] == areas
        assert found.mask.sum() == sum(areas)
        assert found.label == bool(areas)


def test_the_highest_pixel_is_a_region_where_none_is_left_above_the_threshold():
    anomaly_map = np.float32([[1.0, 1.5, 0.5]])  # reduced, and so lower than the map that the score comes from
    assert decide(anomaly_map, 3.0, 2.0, 4.0).regions == [(0, 1, 1, 1, 1)]
