"""The truth is scipy.ndimage."""

import numpy as np
import pytest
from scipy import ndimage

from squad_lit.image.region import connected_regions


def expected(mask: np.ndarray) -> list[tuple[int, ...]]:
    labelled, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(labelled.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(labelled)
    return [
        (rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start, int(area))
        for (rows, cols), area in zip(boxes, areas, strict=True)
    ]


@pytest.mark.parametrize("share", [0.02, 0.2, 0.35, 0.45, 0.6, 0.9])
@pytest.mark.parametrize("shape", [(40, 53), (1, 30), (30, 1), (128, 128)])
def test_regions_are_those_of_scipy(share, shape):
    rng = np.random.default_rng(int(100 * share))
    for _ in range(5):
        mask = rng.random(shape) < share
        found = connected_regions(mask)
        assert sorted(found) == sorted(expected(mask))
        areas = [region[-1] for region in found]
        assert areas == sorted(areas, reverse=True)


@pytest.mark.parametrize("value", [False, True])
def test_empty_and_full_masks(value):
    assert connected_regions(np.full((5, 7), value)) == ([(0, 0, 5, 7, 35)] if value else [])


def test_a_spiral_is_one_region_and_its_gap_another():
    spiral = np.array(
        [
            [1, 1, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0, 0, 1],
            [1, 1, 1, 1, 1, 0, 1],
            [1, 0, 0, 0, 1, 0, 1],
            [1, 0, 1, 1, 1, 0, 1],
            [1, 0, 0, 0, 0, 0, 1],
            [1, 1, 1, 1, 1, 1, 1],
        ],
        bool,
    )
    assert connected_regions(spiral) == [(0, 0, 7, 7, int(spiral.sum()))]
