"""The truth: a test set in which the images of a resample are really repeated, measured by the plain metrics."""

import math

import pytest
import torch
from torch import Tensor

from squad_lit.metric import image_metrics, pixel_metrics
from squad_lit.metric.bootstrap import image_bootstrap, interval, pixel_bootstrap, resample


def draw(levels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Twelve labels, 16x16 maps (with ``levels``: in coarse steps, so that many are tied) and masks."""
    generator = torch.Generator().manual_seed(levels)
    label = torch.tensor([0, 1] * 6)
    mask = torch.zeros(12, 16, 16, dtype=torch.bool)
    mask[1::2, 3:6, 4:9] = True
    mask[3, 10:12, 2:5] = True
    maps = torch.rand(12, 16, 16, generator=generator) + 0.5 * mask * torch.rand(12, 1, 1, generator=generator)
    return label, (maps * levels).round() / levels if levels else maps, mask


def repeated(times: Tensor) -> Tensor:
    return torch.arange(len(times)).repeat_interleave(times.long())


@pytest.mark.parametrize("levels", [0, 20])
def test_pixel_metrics_of_a_resample_are_those_of_the_repeated_images(levels: int) -> None:
    label, maps, mask = draw(levels)
    times = resample(label, 9, seed=1)
    found = pixel_bootstrap(list(maps), list(mask), times, fpr_limit=(0.3, 0.05))
    for b in range(9):
        at = repeated(times[b])
        truth = pixel_metrics(maps[at], mask[at], fpr_limit=(0.3, 0.05))
        assert {key: value[b].item() for key, value in found.items()} == pytest.approx(
            {key: value.item() for key, value in truth.items()}, abs=1e-12
        )


@pytest.mark.parametrize("levels", [0, 3])
def test_image_metrics_of_a_resample_are_those_of_the_repeated_images(levels: int) -> None:
    label, maps, _ = draw(levels)
    score, times = maps.amax((1, 2)), resample(label, 9, seed=2)
    found = image_bootstrap(score, label, times)
    for b in range(9):
        at = repeated(times[b])
        truth = image_metrics(score[at], label[at])
        assert {key: value[b].item() for key, value in found.items()} == pytest.approx(
            {key: value.item() for key, value in truth.items()}, abs=1e-12
        )


def test_resamples_keep_the_number_of_normal_and_anomalous_images() -> None:
    label = torch.tensor([0, 2, 0, 0, 255])
    times = resample(label, 50, seed=0)
    assert times.shape == (50, 5)
    assert (times[:, label == 0].sum(1) == 3).all()
    assert (times[:, label != 0].sum(1) == 2).all()
    assert times.unique().tolist() == [0, 1, 2, 3]
    assert torch.equal(times, resample(label, 50, seed=0))
    assert not torch.equal(times, resample(label, 50, seed=1))


def test_one_class_is_nan_in_every_resample() -> None:
    label, maps, mask = torch.zeros(3), torch.rand(3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.bool)
    times = resample(label, 4, seed=0)
    found = pixel_bootstrap(list(maps), list(mask), times) | image_bootstrap(maps[:, 0, 0], label, times)
    assert len(found) == 7
    assert all(value.isnan().all() for value in found.values())
    assert all(math.isnan(end) for ends in interval(found).values() for end in ends)


def test_interval_leaves_out_its_tails() -> None:
    values = torch.arange(1001, dtype=torch.float64)[torch.randperm(1001)]
    assert interval({"a": values})["a"] == pytest.approx([25, 975])
    assert interval({"a": values}, level=0.8)["a"] == pytest.approx([100, 900])


def test_intervals_cover_the_true_value_as_often_as_they_say() -> None:
    """The image AUROC of two unit Gaussians a distance d apart is known: Phi(d / sqrt 2)."""
    generator = torch.Generator().manual_seed(0)
    label = torch.tensor([0] * 40 + [1] * 40)
    truth = 0.5 * (1 + math.erf(1.0 / 2))
    covered = 0
    for trial in range(60):
        score = torch.randn(80, generator=generator, dtype=torch.float64) + label
        low, high = interval(image_bootstrap(score, label, resample(label, 200, seed=trial)))["image_auroc"]
        covered += low <= truth <= high
    assert 52 <= covered <= 60  # 95 % of 60 is 57; below 52 or a bug would be a chance of one in fifty
