"""Changes of test images, by hand."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from squad_lit.dataset.corruption import NEUTRAL, Corruption
from squad_lit.dataset.mvtec import MVTec

IMAGE = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
MASK = torch.zeros(1, 20, 30, dtype=torch.uint8)
MASK[0, 8:12, 10:20] = 1


def changed(index: int = 0, seed: int = 0, **strengths: float) -> tuple[torch.Tensor, torch.Tensor]:
    return Corruption(strengths, seed)(IMAGE, MASK, index)


@pytest.mark.parametrize(("kind", "strength"), NEUTRAL.items())
def test_the_neutral_strength_changes_nothing(kind: str, strength: float) -> None:
    image, mask = changed(**{kind: strength})
    torch.testing.assert_close(image, IMAGE)
    assert torch.equal(mask, MASK)


def test_light_multiplies_and_stays_in_range() -> None:
    assert torch.equal(changed(light=0.5)[0], IMAGE * 0.5)
    bright, mask = changed(light=2)
    torch.testing.assert_close(bright, (IMAGE * 2).clamp(max=1))
    assert torch.equal(mask, MASK)


def test_blur_is_a_gaussian_of_the_stated_width() -> None:
    point = torch.zeros(3, 41, 41)
    point[:, 20, 20] = 1
    smooth, _ = Corruption({"blur": 2}, 0)(point, MASK, 0)
    assert smooth.sum().item() == pytest.approx(3, abs=1e-4)
    assert (smooth[0, 20, 22] / smooth[0, 20, 20]).item() == pytest.approx(math.exp(-(2**2) / (2 * 2**2)), abs=1e-3)


def test_noise_has_the_stated_deviation_and_is_the_same_again() -> None:
    grey = torch.full((3, 100, 100), 0.5)
    noisy, _ = Corruption({"noise": 0.05}, 3)(grey, MASK, 7)
    assert (noisy - grey).std().item() == pytest.approx(0.05, rel=0.03)
    assert torch.equal(noisy, Corruption({"noise": 0.05}, 3)(grey, MASK, 7)[0])
    assert not torch.equal(noisy, Corruption({"noise": 0.05}, 3)(grey, MASK, 8)[0])
    assert not torch.equal(noisy, Corruption({"noise": 0.05}, 4)(grey, MASK, 7)[0])


@pytest.mark.parametrize("index", range(4))
def test_a_shift_moves_image_and_mask_together_and_repeats_the_border(index: int) -> None:
    image, mask = changed(index, shift=0.2)
    angle = np.random.default_rng([0, index]).uniform(0, 2 * math.pi)
    down, right = round(0.2 * 20 * math.sin(angle)), round(0.2 * 30 * math.cos(angle))
    for row in range(20):
        for column in range(30):
            at = row - down, column - right
            nearest = min(max(at[0], 0), 19), min(max(at[1], 0), 29)
            assert torch.equal(image[:, row, column], IMAGE[:, nearest[0], nearest[1]])
            inside = nearest == at
            assert mask[0, row, column] == (MASK[0, at[0], at[1]] if inside else 0)


def test_an_unknown_kind_is_told() -> None:
    with pytest.raises(ValueError, match="corruption: unknown fog; known: light, blur, noise, shift"):
        Corruption({"fog": 1}, 0)


@pytest.mark.filterwarnings("ignore:.*officially")
def test_test_images_alone_are_changed(tmp_path: Path) -> None:
    for folder, count in {"train/good": 4, "test/good": 1, "test/cut": 1, "ground_truth/cut": 1}.items():
        for i in range(count):
            path = tmp_path / "bottle" / folder / (f"{i:03}_mask.png" if "truth" in folder else f"{i:03}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), 100).save(path)
    options = {"root": tmp_path, "category": "bottle", "image_size": 8, "batch_size": 1, "num_workers": 0}
    options |= {"validation_fraction": 0.5, "limit_train": None, "cache_folder": "unused", "intensity_range": None}
    data = MVTec(**options, cache="memory", seed=0, corruption={"light": 0.5})
    data.setup()
    for _ in range(2):  # the second time from the cache
        assert [item["image"].mean().item() for item in data.test_set] == pytest.approx([50 / 255] * 2)
        for part in (data.train_set, data.val_set):
            assert part[0]["image"].mean().item() == pytest.approx(100 / 255)
