"""``dataset.roi``: a picture or a rectangle, in the shape of the images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from squad_lit.dataset.region import read_region

SIZES = {Path("a.png"): (60, 80), Path("b.png"): (60, 80)}


def picture(path: Path, height: int, width: int) -> Path:
    roi = np.zeros((height, width), np.uint8)
    roi[: height // 2] = 1  # any value that is not 0
    Image.fromarray(roi).save(path)
    return path


def test_a_rectangle_is_in_pixels_of_the_images() -> None:
    roi = read_region([10, 20, 5, 7], SIZES)
    assert roi.shape == (60, 80)
    assert roi.sum() == 35
    assert roi[10:15, 20:27].all()


def test_a_picture_may_have_another_size_of_the_same_shape(tmp_path: Path) -> None:
    assert read_region(picture(tmp_path / "roi.png", 30, 40), SIZES)[:15].all()
    assert read_region(str(picture(tmp_path / "roi.png", 61, 81)), SIZES).shape == (61, 81)


def test_what_does_not_fit_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"roi.png is 60x60 pixels .* 2 of 2 training images have another"):
        read_region(picture(tmp_path / "roi.png", 60, 60), SIZES)
    with pytest.raises(ValueError, match=r"inside of the images, which have 60x80 pixels .* got \[50, 0, 20, 10\]"):
        read_region([50, 0, 20, 10], SIZES)
    with pytest.raises(ValueError, match="the training images have 2 sizes, such as 30x40 and 60x80"):
        read_region([0, 0, 5, 5], SIZES | {Path("c.png"): (30, 40)})
    Image.fromarray(np.zeros((60, 80), np.uint8)).save(tmp_path / "empty.png")
    with pytest.raises(ValueError, match=r"empty.png: the region of interest is empty"):
        read_region(tmp_path / "empty.png", SIZES)
    with pytest.raises(OSError, match=r"none.png"):
        read_region(tmp_path / "none.png", SIZES)
