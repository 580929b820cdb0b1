"""Regions of interest by hand."""

import numpy as np
import pytest

from squad_lit.image.roi import common, decode, encode, identify, scaled, shown


def test_a_region_survives_as_text() -> None:
    roi = np.random.default_rng(0).random((37, 51)) > 0.5
    found = decode(encode(roi))
    assert found is not None
    assert np.array_equal(found, roi)
    assert identify(found) == identify(roi) != identify(~roi)
    assert encode(None) == identify(None) == ""
    assert decode("") is None


@pytest.mark.parametrize("text", ["?", "AAAA", encode(np.ones((4, 4), bool))[:40]])
def test_a_damaged_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="the region of interest of the model is damaged"):
        decode(text)


def test_what_regions_have_in_common_is_at_the_finer_resolution() -> None:
    left = np.array([[True, False]])
    top = np.array([[True], [True], [False], [False]])
    assert common(left, top).astype(int).tolist() == [[1, 0], [1, 0], [0, 0], [0, 0]]  # type: ignore[union-attr]
    assert common(None, left) is left
    assert common(left, None) is left


def test_pixels_lie_inside_by_half_and_a_thin_region_is_not_lost() -> None:
    roi = np.zeros((4, 4), bool)
    roi[:, :2] = True
    assert scaled(roi, (2, 2)).tolist() == [[True, False], [True, False]]
    assert shown(roi, (8, 8))[:, :4].all()
    thin = np.zeros((300, 300), bool)
    thin[151] = True
    assert scaled(thin, (10, 10)).any()
    assert shown(thin, (10, 10)).any()
