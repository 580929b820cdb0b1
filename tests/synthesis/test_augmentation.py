"""The truths: torch.rot90, torch.flip, slices, and linear ramps, which bilinear sampling keeps exactly."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from squad_lit.synthesis.augmentation import Augmentation

NONE: dict[str, Any] = {"flip": [], "rotation": 0, "shift": 0, "zoom": 0, "brightness": 0}


class Extreme:
    """A generator whose uniform draws lie at the high (+1) or low (-1) end of their range, and 0.0 at its middle."""

    def __init__(self, where: float = 1.0, *, flips: bool = True) -> None:
        self.where, self.flips = where, flips

    def random(self) -> float:
        return 0.0 if self.flips else 0.99

    def uniform(self, low: float, high: float, size: int | None = None) -> float | NDArray[np.float64]:
        value = (low + high) / 2 + self.where * (high - low) / 2
        return value if size is None else np.full(size, value)


def make(**changed: Any) -> Augmentation:
    return Augmentation(**(NONE | changed))


def image(height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


def test_nothing_asked_gives_the_image_back():
    for seed in range(5):
        assert torch.equal(make()(image(16, 20), np.random.default_rng(seed)), image(16, 20))


@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
def test_a_draw_of_no_change_gives_the_image_back(size):
    full = make(rotation=30, shift=0.1, zoom=0.2, brightness=0.2, flip=["horizontal", "vertical"])
    torch.testing.assert_close(full(image(*size), Extreme(0.0, flips=False)), image(*size), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("flip", "dims"), [(["horizontal"], (2,)), (["vertical"], (1,)), (["vertical", "horizontal"], (1, 2))]
)
def test_flip(flip, dims):
    assert torch.equal(make(flip=flip)(image(8, 12), Extreme()), image(8, 12).flip(dims))


def test_half_of_the_views_are_flipped():
    flip = make(flip=["horizontal"])
    flipped = [torch.equal(flip(image(), np.random.default_rng(seed)), image().flip(2)) for seed in range(400)]
    assert np.mean(flipped) == pytest.approx(0.5, abs=0.1)  # four standard errors


@pytest.mark.parametrize(("rotation", "where", "turns"), [(90, 1.0, 1), (90, -1.0, -1), (180, 1.0, 2), (180, 0.5, 1)])
@pytest.mark.parametrize("side", [16, 17])
def test_rotation_by_quarter_turns_is_rot90(rotation, where, turns, side):
    turned = make(rotation=rotation)(image(side, side), Extreme(where))
    torch.testing.assert_close(turned, torch.rot90(image(side, side), turns, (1, 2)), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(12, 20), (20, 12)])
def test_rotation_of_an_oblong_image_does_not_shear(height, width):
    picture = image(height, width)
    middle = (slice(None), slice(height // 2 - 6, height // 2 + 6), slice(width // 2 - 6, width // 2 + 6))
    turned = make(rotation=90)(picture, Extreme())
    torch.testing.assert_close(turned[middle], torch.rot90(picture[middle], 1, (1, 2)), atol=1e-4, rtol=0)


def test_rotation_by_any_angle_turns_a_ramp():
    # Brightness rises to the right; after a turn by a it rises along the turned direction, with the same slope.
    at = torch.arange(32.0) - 15.5
    ramp = (0.5 + 0.01 * at).expand(3, 32, 32)
    turned = make(rotation=30)(ramp, Extreme())
    y, x = torch.meshgrid(at, at, indexing="ij")
    expected = 0.5 + 0.01 * (x * np.cos(np.pi / 6) - y * np.sin(np.pi / 6))
    inside = x.square() + y.square() < 15**2
    torch.testing.assert_close(turned[:, inside], expected[inside].expand(3, -1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 32)])
def test_shift_moves_by_a_share_of_each_side(height, width):
    shifted = make(shift=0.25)(image(height, width), Extreme())
    dy, dx = height // 4, width // 4
    torch.testing.assert_close(shifted[:, :-dy, :-dx], image(height, width)[:, dy:, dx:], atol=1e-5, rtol=0)
    # What comes in is mirrored: the last row, then the last but one.
    torch.testing.assert_close(shifted[:, -dy:, :-dx], image(height, width)[:, -dy:, dx:].flip(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("where", "scale"), [(1.0, 1.5), (-1.0, 0.5)])
def test_zoom_enlarges_about_the_middle(where, scale):
    at = torch.arange(32.0) - 15.5
    ramp = (0.5 + 0.01 * at).expand(3, 24, 32)
    zoomed = make(zoom=0.5)(ramp, Extreme(where))
    inside = at.abs() < 15 * min(scale, 1)
    expected = (0.5 + 0.01 * at / scale)[inside].expand(3, 24, -1)
    torch.testing.assert_close(zoomed[:, :, inside], expected, atol=1e-5, rtol=0)


def test_brightness_is_a_factor_and_stays_in_range():
    torch.testing.assert_close(make(brightness=0.3)(image(), Extreme()), (1.3 * image()).clamp(max=1))
    torch.testing.assert_close(make(brightness=0.3)(image(), Extreme(-1.0)), 0.7 * image())


def test_view_depends_on_its_seed_alone():
    full = make(rotation=180, shift=0.1, zoom=0.2, brightness=0.2, flip=["horizontal", "vertical"])
    views = [full(image(), np.random.default_rng(seed)) for seed in range(5)]
    for seed in reversed(range(5)):
        assert torch.equal(full(image(), np.random.default_rng(seed)), views[seed])
    for i in range(5):
        for j in range(i):
            assert not torch.equal(views[i], views[j])


def test_view_is_an_image():
    full = make(rotation=180, shift=0.5, zoom=0.5, brightness=0.5, flip=["horizontal", "vertical"])
    before = image(16, 24)
    for seed in range(20):
        view = full(before, np.random.default_rng(seed))
        assert view.shape == (3, 16, 24)
        assert view.dtype == torch.float32
        assert view.min() >= 0
        assert view.max() <= 1
    assert torch.equal(before, image(16, 24))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"flip": ["horizontal", "diagonal"]},
            r"^flip\[1\]: expected horizontal or vertical, got 'diagonal'",
        ),
        ({"rotation": 181}, "^rotation: expected at most 180, got 181"),
        ({"rotation": -1}, "^rotation: expected at least 0, got -1"),
        ({"shift": 0.6}, "^shift: expected at most 0.5, got 0.6"),
        ({"zoom": 0.6}, "^zoom: expected at most 0.5, got 0.6"),
        ({"brightness": float("nan")}, "^brightness: expected a finite number, got nan"),
    ],
)
def test_augmentation_refuses_in_words(wrong, words):
    with pytest.raises(ValueError, match=words):
        make(**wrong)


@pytest.mark.parametrize("changed", [{}, {"rotation": 20, "shift": 0.1, "zoom": 0.2, "brightness": 0.2}])
def test_a_window_is_that_part_of_the_whole_view(changed):
    window = slice(3, 11), slice(5, 18)
    view = make(flip=["horizontal"], **changed)
    whole = view(image(16, 20), np.random.default_rng(1))
    assert torch.equal(view(image(16, 20), np.random.default_rng(1), window), whole[:, *window])
