"""Colours at known values, lightness, and pixels placed by hand."""

import numpy as np
import pytest
from skimage.color import rgb2lab
from skimage.segmentation import find_boundaries

from squad_lit.image.picture import colour_map, outline, panel, stack, to_picture


def test_colour_map_is_dark_at_the_low_and_bright_at_the_high_end():
    picture = colour_map(np.array([[-3.0, 2.0, 7.0, 99.0]]), -3, 7)
    assert picture.dtype == np.uint8
    assert picture.shape == (1, 4, 3)
    lightness = rgb2lab(picture)[0, :, 0]
    assert lightness[0] < 5
    assert lightness[2] > 90
    assert np.array_equal(picture[0, 2], picture[0, 3]), "what lies above has the brightest colour"


def test_colour_map_has_the_same_colour_for_the_same_value_in_every_picture():
    first, second = colour_map(np.array([[0.3, 0.9]]), 0, 1), colour_map(np.array([[0.3, -5.0], [0.31, 40.0]]), 0, 1)
    assert np.array_equal(first[0, 0], second[0, 0])
    assert np.array_equal(colour_map(np.array([[-5.0]]), 0, 1), colour_map(np.array([[0.0]]), 0, 1))


def test_colour_map_grows_lighter_all_the_way():
    lightness = rgb2lab(colour_map(np.linspace(0, 1, 256)[None], 0, 1))[0, :, 0]
    assert np.diff(lightness).min() > -0.3  # rounding to 8 bits
    assert (lightness[16::16] > lightness[:-16:16]).all()


def test_to_picture_by_hand():
    image = np.array([[[0.0, 1.0]], [[0.2, 1.7]], [[0.5, -1.0]]])
    assert to_picture(image).tolist() == [[[0, 51, 128], [255, 255, 0]]]
    assert to_picture(image).dtype == np.uint8


@pytest.mark.parametrize("mask_type", [bool, np.uint8, np.float32])
def test_outline_lies_just_outside_the_mask(mask_type):
    mask = np.zeros((7, 8), mask_type)
    mask[2:5, 3:5] = 1
    picture = np.full((7, 8, 3), 9, np.uint8)
    drawn = (outline(picture, mask, (1, 2, 3)) == (1, 2, 3)).all(2)
    assert not drawn[mask.astype(bool)].any()
    assert drawn[1:6, 2].sum() + drawn[1:6, 5].sum() + drawn[1, 3:5].sum() + drawn[5, 3:5].sum() >= 10  # the four sides
    far = np.ones_like(drawn)
    far[1:6, 2:6] = False
    assert not drawn[far].any()
    assert (picture == 9).all(), "the picture itself is left alone"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_outline_is_the_outer_boundary_of_scikit_image(share):
    mask = np.random.default_rng(0).random((31, 40)) < share
    drawn = (outline(np.zeros((31, 40, 3), np.uint8), mask) == 255).all(2)
    assert np.array_equal(drawn, find_boundaries(mask, mode="outer"))


def test_outline_of_no_mask_is_the_picture():
    picture = np.random.default_rng(0).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    assert np.array_equal(outline(picture, np.zeros((5, 5))), picture)


def test_panel_puts_tiles_side_by_side_under_their_captions():
    red, blue = np.full((20, 50, 3), (255, 0, 0), np.uint8), np.full((20, 40, 3), (0, 0, 255), np.uint8)
    drawn = panel({"image": red, "map": blue})
    caption = drawn.shape[0] - 20
    assert caption > 8
    assert drawn.shape == (20 + caption, 50 + 2 + 40, 3)
    assert np.array_equal(drawn[caption:, :50], red)
    assert np.array_equal(drawn[caption:, 52:], blue)
    assert (drawn[:, 50:52] == 0).all()
    for left, right in ((0, 50), (52, 92)):
        assert drawn[:caption, left:right].max() > 128, "a caption is written"
    assert not np.array_equal(panel({"a": red}), panel({"b": red}))


def test_a_narrow_tile_does_not_cut_its_caption():
    tile = np.full((8, 4, 3), 200, np.uint8)
    wide, wider = panel({"fused, score 1": tile}), panel({"fused, score 1.23": tile})
    assert wider.shape[1] > wide.shape[1]
    assert not wide[:, -3:].any(), "the last letter is whole"
    assert np.array_equal(wide[-8:, :4], tile)


def test_stack_fills_up_the_narrow_ones():
    narrow, wide = np.full((3, 4, 3), 9, np.uint8), np.full((2, 7, 3), 8, np.uint8)
    drawn = stack([narrow, wide])
    assert drawn.shape == (3 + 2 + 2 + 2, 7, 3)
    assert np.array_equal(drawn[:3, :4], narrow)
    assert np.array_equal(drawn[5:7], wide)
    assert drawn.sum() == narrow.sum() + wide.sum()
