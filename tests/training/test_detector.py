"""The truths: maps that are known, and tiles cut by hand."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from squad_lit.network.anomaly import Anomaly
from squad_lit.training.detector import Detector
from squad_lit.training.forward import ForwardOutput

SIDE = 16


class Pixels(nn.Module):
    groups, stride = {"a": [1]}, {"a": 1}


class Brightness(Detector):
    """Its map is the image's brightness."""

    def __init__(self, **tiles: Any) -> None:
        super().__init__(
            backbone=lambda groups: Pixels(),
            groups={"a": [1]},
            anomaly=lambda names: Anomaly(names, sigma=0.0, top=0.1, weight={"residual": 1.0}),
            maps=["residual"],
            synthesis=object(),
            steps=1,
            seed=0,
            **tiles,
        )

    def forward_tile(self, image: Tensor) -> ForwardOutput:
        return ForwardOutput({"residual": image.mean(1)}, {"a": image})


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(20, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_maps_of_tiles_are_blended_and_their_features_kept_image_by_image(images):
    model = Brightness(tile=8, tile_overlap=0.25)
    output, expected = model(images), model.forward_tile(images)
    torch.testing.assert_close(output.maps, expected.maps, atol=1e-6, rtol=0)
    assert output.features["a"].shape == (20 * 9, 3, 8, 8)
    assert torch.equal(output.features["a"][9], images[1, :, :8, :8])


def test_a_test_step_has_what_callbacks_measure_and_draw(images):
    model = Brightness()
    model.anomaly.standardise(torch.tensor([0.5]), torch.tensor([2.0]))
    found = model.test_step({"image": images}, 0)
    assert set(found) == {"anomaly_map", "anomaly_score", "residual"}
    torch.testing.assert_close(found["anomaly_map"], (images.mean(1) - 0.5) / 2)

    class Dimmed(Brightness):
        def image_recon(self, output: ForwardOutput) -> Tensor:
            return output.features["a"] - 0.1

    found = Dimmed().test_step({"image": images}, 0)
    torch.testing.assert_close(found["psnr"], torch.full((20,), 20.0), atol=1e-3, rtol=0)  # 10 log10(1 / 0.1^2)
    assert found["ssim"].shape == (20,)


@pytest.mark.parametrize(
    ("tiles", "words"),
    [
        ({"tile": 0}, "^tile: expected at least 1 or null, got 0"),
        ({"tile": 8.5}, r"^tile: expected a whole number or null, got 8\.5"),
        ({"tile": 8, "tile_overlap": 1.0}, r"^tile_overlap: expected at most 0\.9, got 1\.0"),
    ],
)
def test_tiles_that_cannot_be_are_refused_in_words(tiles, words):
    with pytest.raises(ValueError, match=words):
        Brightness(**tiles)


def test_a_tile_larger_than_the_image_is_refused_in_words():
    model = Brightness(tile=32)
    model.check_data(["x"], [32, 48])
    with pytest.raises(ValueError, match=r"model\.tile: expected at most .*image_size=\[16, 48\], got 32"):
        model.check_data(["x"], [16, 48])


class Coarse(nn.Module):
    groups, stride = {"a": [8, 16]}, {"a": 16}


class OnCoarse(Brightness):
    """Sides have to be multiples of 16 px."""

    def __init__(self, **tiles: Any) -> None:
        Detector.__init__(
            self,
            backbone=lambda groups: Coarse(),
            groups={"a": [8, 16]},
            anomaly=lambda names: Anomaly(names, sigma=0.0, top=0.1, weight={"residual": 1.0}),
            maps=["residual"],
            synthesis=object(),  # type: ignore[arg-type]
            steps=1,
            seed=0,
            **tiles,
        )


@pytest.mark.parametrize(
    ("size", "nearest"), [([200, 333], [208, 336]), ([7, 23], [16, 16]), ([25, 250], [32, 256]), ([24, 55], [32, 48])]
)
def test_a_size_that_does_not_fit_is_refused_with_the_nearest_that_does(size, nearest):
    # By hand: of all multiples of 16 the nearest, and of two the larger one.
    assert nearest == [min(range(16, 400, 16), key=lambda n: (abs(n - side), -n)) for side in size]
    with pytest.raises(ValueError, match=re.escape(f"got {size}; the nearest are {nearest}")):
        OnCoarse().check_data(["a"], size)
    OnCoarse().check_data(["a"], nearest)


def test_a_tile_that_does_not_fit_is_refused_with_the_nearest_that_does():
    with pytest.raises(ValueError, match=r"got 40; the nearest is 48$"):
        OnCoarse(tile=40)
    with pytest.raises(ValueError, match=r"image_size=\[40, 90\], got 48; the nearest is 32$"):
        OnCoarse(tile=48).check_data(["a"], [40, 90])
    with pytest.raises(ValueError, match=r"got 16; the nearest is null$"):
        OnCoarse(tile=16).check_data(["a"], [10, 90])
