"""The truths: weights and cover counted pixel by pixel, torch's resize, and images that come back from their tiles."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from squad_lit.dataset.image import resize
from squad_lit.image.file import resize_pixels
from squad_lit.image.tile import Grid
from squad_lit.training.forward import blend, cut

sides = st.integers(1, 40)


@given(sides, st.integers(0, 150), st.integers(0, 150), st.floats(0, 0.9))
@settings(deadline=None, max_examples=60)
def test_tiles_cover_the_image_with_weights_of_sum_one(side: int, more: int, wider: int, overlap: float) -> None:
    size = side + more, side + wider
    grid = Grid(size, side, overlap)
    total = np.zeros(size)
    for number, window in enumerate(grid.windows):
        weight = grid.weight(number)
        assert weight.min() > 0
        assert total[window].shape == weight.shape == (side, side)  # it lies inside
        total[window] += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)
    for axis in (0, 1):
        starts = sorted({window[axis].start for window in grid.windows})
        assert starts[0] == 0
        assert starts[-1] == size[axis] - side
        shared = [side - (b - a) for a, b in itertools.pairwise(starts)]
        assert all(s >= min(overlap * side - 1e-6, side - 1) for s in shared)
        assert max(shared, default=0) - min(shared, default=0) <= 1  # evenly
        if len(starts) > 1:  # one tile less could not overlap as much
            assert side + (len(starts) - 2) * max(1, int(side * (1 - overlap) + 1e-9)) < size[axis]


def test_tiles_by_hand() -> None:
    grid = Grid((64, 160), 64, 0.25)
    assert [(r.start, r.stop, c.start, c.stop) for r, c in grid.windows] == [
        (0, 64, 0, 64),
        (0, 64, 48, 112),
        (0, 64, 96, 160),
    ]
    first, second = grid.weight(0)[0], grid.weight(1)[0]
    assert (first[:48] == 1).all()  # alone there
    np.testing.assert_allclose(first[56 - 1 : 56 + 1], second[8 : 8 - 2 : -1], atol=1e-6)  # mirrored at the middle
    assert first[55] > 0.5 > first[56]


def test_weights_have_no_step() -> None:
    grid = Grid((64, 160), 64, 0.25)
    for number, (_, columns) in enumerate(grid.windows):
        line = np.zeros(162)
        line[columns.start + 1 : columns.stop + 1] = grid.weight(number)[0]
        assert np.abs(np.diff(line[1:-1])).max() < 0.13  # of 1, in 16 px


def test_an_image_comes_back_from_its_tiles() -> None:
    image = torch.rand(3, 2, 70, 101, generator=torch.Generator().manual_seed(0))
    grid = Grid((70, 101), 32, 0.3)
    tiles = cut(image, grid)
    assert tiles.shape == (3 * len(grid), 2, 32, 32)
    rows, columns = grid.windows[1]
    assert torch.equal(tiles[len(grid) + 1], image[1, :, rows, columns])  # image by image
    torch.testing.assert_close(blend(tiles, grid), image, atol=1e-6, rtol=0)


def test_a_single_tile_is_the_image() -> None:
    image = torch.rand(2, 3, 32, 48)
    for grid in (Grid((32, 48)), Grid((32, 48), None, 0.5)):
        assert len(grid) == 1
        assert torch.equal(cut(image, grid), image)
        assert torch.equal(blend(cut(image, grid), grid), image)
    square = Grid((32, 32), 32, 0.9)
    assert square.windows == Grid((32, 32)).windows
    assert (square.weight(0) == 1).all()


def test_places_are_drawn_anywhere_and_inside() -> None:
    grid, rng = Grid((40, 33), 32, 0.0), np.random.default_rng(0)
    drawn = {(rows.start, columns.start) for rows, columns in (grid.draw(rng) for _ in range(300))}
    assert drawn == {(row, column) for row in range(9) for column in range(2)}


@pytest.mark.parametrize("before", [(50, 90), (200, 131), (64, 64), (300, 20)])
@pytest.mark.parametrize("after", [(64, 64), (96, 200)])
def test_resize_without_torch_is_that_of_the_training(before: tuple[int, int], after: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*before, 3), np.uint8)
    expected = resize(torch.from_numpy(pixels).permute(2, 0, 1) / 255, after).permute(1, 2, 0).numpy()
    for form in (pixels, pixels / np.float32(255)):
        found = resize_pixels(form, after)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
