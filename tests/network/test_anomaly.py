"""The truths: SciPy's Gaussian filter and zoom by hand, sorted pixels, z-scores and weighted means by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from squad_lit.network.anomaly import Anomaly, enlarge, residual_maps, resize_map, top_mean


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


NAMES = ("residual_low", "residual_high", "discriminator")


def make(names: tuple[str, ...] = NAMES, **changed: Any) -> Anomaly:
    setting = {"sigma": 0.0, "top": 0.1, "weight": {"residual": 0.5, "discriminator": 0.5}} | changed
    return Anomaly(names, **setting).double()


# Smoothing and resizing


def smooth(maps: Tensor, sigma: float) -> Tensor:
    return enlarge(maps, maps.shape[-2:], sigma)


@pytest.mark.parametrize("sigma", [1, 2, 4])
@pytest.mark.parametrize("shape", [(64, 64), (40, 70), (17, 33)])
def test_smoothing_is_that_of_scipy(sigma, shape):
    maps = rand(2, 1, *shape)
    expected = [gaussian_filter(m[0].numpy(), sigma, mode="mirror", truncate=4) for m in maps]
    np.testing.assert_allclose(smooth(maps, sigma)[:, 0], expected, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.3, 1.3, 2.6])
def test_smoothing_with_a_fraction_reaches_at_least_four_deviations(sigma):
    maps = rand(1, 1, 30, 30)
    expected = gaussian_filter(maps[0, 0].numpy(), sigma, mode="mirror", radius=math.ceil(4 * sigma))
    np.testing.assert_allclose(smooth(maps, sigma)[0, 0], expected, atol=1e-12)


def test_smoothing_of_a_map_smaller_than_the_kernel_is_cut_at_the_map():
    maps = rand(1, 1, 9, 12)
    expected = gaussian_filter(maps[0, 0].numpy(), 4, mode="mirror", radius=8)
    np.testing.assert_allclose(smooth(maps, 4.0)[0, 0], expected, atol=1e-12)


def test_smoothing_keeps_a_constant_map_and_sigma_zero_keeps_any():
    torch.testing.assert_close(smooth(torch.full((1, 1, 20, 20), 3.0), 4.0), torch.full((1, 1, 20, 20), 3.0))
    assert torch.equal(smooth(rand(1, 1, 5, 5), 0), rand(1, 1, 5, 5))


def test_smoothing_in_float32():
    maps = rand(1, 1, 40, 40)
    torch.testing.assert_close(smooth(maps.float(), 4.0).double(), smooth(maps, 4.0), atol=1e-6, rtol=0)


def test_enlargement_by_hand():
    # Centres of 2 cells at 1/4 and 3/4; of 4 pixels at 1/8, 3/8, 5/8, 7/8: the outer ones lie beyond and take the edge.
    found = resize_map(torch.tensor([[[[0.0, 1.0]]]]), (1, 4))
    torch.testing.assert_close(found, torch.tensor([[[[0.0, 0.25, 0.75, 1.0]]]]))


# Score


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.1, 4), (0.24, 10), (1.0, 40), (1e-9, 1)])
def test_top_mean_by_hand(share, count):
    maps = rand(3, 5, 8)
    expected = [np.sort(m.numpy().ravel())[::-1][:count].mean() for m in maps]
    np.testing.assert_allclose(top_mean(maps, share), expected)


def test_top_mean_of_a_constant_map_is_the_constant():
    torch.testing.assert_close(top_mean(torch.full((2, 10, 10), -1.5), 0.03), torch.tensor([-1.5, -1.5]))


# Maps


def test_residual_map_by_hand():
    features = {"low": torch.tensor([[[[3.0, 0.0]], [[4.0, 1.0]]]])}
    maps = residual_maps(features, {"low": torch.zeros(1, 2, 1, 2)})
    assert list(maps) == ["residual_low"]
    torch.testing.assert_close(maps["residual_low"], torch.tensor([[[[math.sqrt(12.5), math.sqrt(0.5)]]]]))


def test_maps_are_smoothed_at_the_resolution_of_the_image():
    logit = rand(2, 1, 16, 12) - 0.5
    found = make(sigma=3.0).prepare({"discriminator": logit, "residual_low": torch.zeros(2, 1, 8, 6)}, (64, 48))
    enlarged = resize_map(logit, (64, 48))[1, 0].numpy()
    np.testing.assert_allclose(
        found["discriminator"][1], gaussian_filter(enlarged, 3, mode="mirror", truncate=4), atol=1e-12
    )
    assert found["residual_low"].shape == (2, 64, 48)
    assert (found["residual_low"] == 0).all()


def test_the_least_smoothing_is_none():
    raw = {"discriminator": rand(1, 1, 8, 6).float(), "residual_low": rand(1, 1, 8, 6).float()}
    none, least = make(sigma=0.0).prepare(raw, (64, 48)), make(sigma=1e-50).prepare(raw, (64, 48))
    assert all(torch.equal(none[name], least[name]) for name in raw)


# Standardisation and fusion


def draw_maps() -> dict[str, Tensor]:
    return {
        "residual_low": rand(2, 6, 5),
        "residual_high": 10 * rand(2, 6, 5, seed=1),
        "discriminator": 8 * rand(2, 6, 5, seed=2) - 6,
    }


def test_z_scores_of_the_maps_that_standardised_have_mean_0_and_deviation_1():
    anomaly, maps = make(), draw_maps()
    mean, std = (torch.stack([f(maps[name]) for name in anomaly.names]) for f in (torch.mean, torch.std))
    assert not anomaly.standardised
    anomaly.standardise(mean, std)
    assert anomaly.standardised
    for z in anomaly.z_scores(maps).values():
        assert z.mean().item() == pytest.approx(0, abs=1e-12)
        assert z.std().item() == pytest.approx(1)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_fused_map_and_score_by_hand(weight):
    anomaly, maps = make(weight={"residual": 1 - weight, "discriminator": weight}, top=0.2), draw_maps()
    numbers = {"residual_low": (0.4, 0.2), "residual_high": (5.0, 3.0), "discriminator": (-2.0, 2.0)}
    anomaly.standardise(
        *(torch.tensor([numbers[name][i] for name in anomaly.names], dtype=torch.float64) for i in (0, 1))
    )
    z = {name: (maps[name].numpy() - mean) / std for name, (mean, std) in numbers.items()}
    expected = (1 - weight) * (z["residual_low"] + z["residual_high"]) / 2 + weight * z["discriminator"]
    anomaly_map, anomaly_score = anomaly(maps)
    np.testing.assert_allclose(anomaly_map, expected)
    np.testing.assert_allclose(anomaly_score, [np.sort(m.ravel())[-6:].mean() for m in expected])


def test_kinds_that_a_model_lacks_leave_their_weight_to_the_others():
    anomaly = make(("residual_a", "residual_b", "residual_c"), weight={"residual": 0.3, "discriminator": 0.7})
    maps = {f"residual_{g}": torch.full((1, 4, 4), v).double() for g, v in (("a", 1.0), ("b", 2.0), ("c", 6.0))}
    torch.testing.assert_close(anomaly(maps)[0], torch.full((1, 4, 4), 3.0, dtype=torch.float64))


def test_weights_are_of_the_kinds_that_there_are():
    weights = make(weight={"residual": 3, "discriminator": 1, "memory": 5}).weights
    assert weights == {"residual": 0.75, "discriminator": 0.25}


@pytest.mark.parametrize(("agreement", "of_two"), [(0.0, [3.0, 3.0]), (0.25, [2.5, 2.5]), (1.0, [1.0, 1.0])])
def test_what_only_one_group_sees_counts_for_less(agreement, of_two):
    anomaly = make(agreement=agreement, weight={"residual": 0.5, "discriminator": 0.5})
    low, high = torch.tensor([[[1.0, 5.0]]]), torch.tensor([[[5.0, 1.0]]])
    found, _ = anomaly({"residual_low": low, "residual_high": high, "discriminator": torch.tensor([[[8.0, -2.0]]])})
    expected = (torch.tensor([[of_two]]) + torch.tensor([[[8.0, -2.0]]])) / 2
    torch.testing.assert_close(found.float(), expected)


def test_a_map_that_is_constant_on_normal_images_is_only_shifted():
    anomaly = make(("residual_g", "discriminator"))
    anomaly.standardise(torch.tensor([2.0, 5.0]), torch.tensor([0.0, 2.0]))
    z = anomaly.z_scores({"residual_g": torch.tensor([[[2.0, 3.5]]]), "discriminator": torch.tensor([[[5.0, 9.0]]])})
    torch.testing.assert_close(z["residual_g"], torch.tensor([[[0.0, 1.5]]]))
    torch.testing.assert_close(z["discriminator"], torch.tensor([[[0.0, 2.0]]]))


def test_standardisation_is_part_of_the_state():
    first, second = make(), make()
    first.standardise(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0, 6.0]))
    second.load_state_dict(first.state_dict())
    assert second.standardised
    torch.testing.assert_close(second(draw_maps())[0], first(draw_maps())[0])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sigma": -1.0}, "^sigma: expected at least 0, got -1.0"),
        ({"sigma": math.nan}, "^sigma: expected a finite number, got nan"),
        ({"top": 0.0}, "^top: expected more than 0, got 0.0"),
        ({"agreement": -0.1}, "^agreement: expected at least 0, got -0.1"),
        ({"agreement": 1.5}, "^agreement: expected at most 1, got 1.5"),
        ({"top": 1.5}, "^top: expected at most 1, got 1.5"),
        ({"weight": {"residual": -0.1, "discriminator": 1}}, r"^weight\.residual: expected at least 0, got -0.1"),
        ({"weight": {"residual": math.nan, "discriminator": 1}}, r"^weight\.residual: expected a finite number"),
        (
            {"weight": {"residual": 1, "discriminator": 1, "novelty": 1}},
            r"got one for \['novelty'\]",
        ),
        ({"weight": {"residual": 1}}, "^weight: expected a weight for discriminator"),
        ({"weight": {"residual": 0, "discriminator": 0, "memory": 1}}, "total weight of 0"),
        ({"weight": {"residual": 1e308, "discriminator": 1e308}}, "weight.residual: expected at most"),
    ],
)
def test_anomaly_refuses_in_words(wrong, words):
    with pytest.raises(ValueError, match=words):
        make(**wrong)
