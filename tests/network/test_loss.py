"""The truths: scikit-image, torchvision, sums by hand, vector algebra, finite differences."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from squad_lit.network.loss import (
    adaptive_weight,
    copied,
    dice_loss,
    feature_loss,
    focal_loss,
    hinge_discriminator_loss,
    image_loss,
    psnr,
    ssim,
)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(n: int = 2, height: int = 24, width: int = 31) -> tuple[Tensor, Tensor]:
    """An image and a disturbed copy of it, both in [0, 1]."""
    a = rand(n, 3, height, width)
    return a, (a + 0.3 * (rand(n, 3, height, width, seed=1) - 0.5)).clamp(0, 1)


# Features


def test_feature_loss_by_hand():
    # Two cells: a right angle (cosine 0) and the same direction (cosine 1).
    recon = torch.tensor([[[[3.0, 2.0]], [[0.0, 0.0]]]])
    target = torch.tensor([[[[0.0, 1.0]], [[4.0, 0.0]]]])
    squares = (9 + 1 + 16 + 0) / 4
    assert feature_loss(recon, target).item() == pytest.approx(squares + (1 + 0) / 2)


@pytest.mark.parametrize(("share", "hard"), [(0.0, 8), (0.5, 4), (0.9, 1), (1.0, 1)])
def test_cells_that_are_rebuilt_well_keep_a_tenth_of_their_gradient(share: float, hard: int):
    target, recon = rand(2, 3, 2, 4), rand(2, 3, 2, 4, seed=1).requires_grad_()
    plain, loose = feature_loss(recon, target), feature_loss(recon, target, easy_share=share)
    torch.testing.assert_close(loose, plain)
    (all_equal,), (weighted,) = (torch.autograd.grad(loss, recon) for loss in (plain, loose))
    cosine = (recon * target).sum(1) / (recon.square().sum(1) * target.square().sum(1)).sqrt()
    error = ((recon - target).square().mean(1) + 1 - cosine).flatten(1)
    for image in range(2):  # by hand: the cells in the order of their errors
        order = error[image].argsort()
        factor = torch.ones(8, dtype=weighted.dtype)
        factor[order[: 8 - hard]] = 0.1
        torch.testing.assert_close(weighted[image].flatten(1), all_equal[image].flatten(1) * factor)


def test_feature_loss_of_equal_and_of_opposite_features():
    f = rand(2, 5, 3, 3) + 0.1
    assert feature_loss(f, f).item() == pytest.approx(0, abs=1e-12)
    assert feature_loss(-f, f).item() == pytest.approx(4 * float(f.square().mean()) + 2)


# Images


@pytest.mark.parametrize("window", [3, 7, 11])
def test_ssim_is_that_of_scikit_image(window):
    a, b = pair()
    expected = [
        structural_similarity(x.numpy(), y.numpy(), win_size=window, data_range=1.0, channel_axis=0)
        for x, y in zip(a, b, strict=True)
    ]
    torch.testing.assert_close(ssim(a, b, window=window), torch.tensor(expected))


def test_ssim_in_float32_is_close_to_that_of_scikit_image():
    a, b = pair()
    expected = structural_similarity(a[0].numpy(), b[0].numpy(), data_range=1.0, channel_axis=0)
    assert ssim(a.float(), b.float())[0].item() == pytest.approx(expected, abs=1e-4)


def test_ssim_with_a_stride_is_the_mean_of_every_third_window():
    a, b = pair(n=1)
    maps = [
        structural_similarity(x.numpy(), y.numpy(), win_size=7, data_range=1.0, full=True)[1][3:-3, 3:-3]
        for x, y in zip(a[0], b[0], strict=True)
    ]
    assert ssim(a, b, stride=3).item() == pytest.approx(float(np.mean([m[::3, ::3] for m in maps])))


def test_ssim_of_constant_images_by_hand():
    # No variance: only the term of the means is left.
    a, b = torch.full((1, 1, 8, 8), 0.2, dtype=torch.float64), torch.full((1, 1, 8, 8), 0.7, dtype=torch.float64)
    assert ssim(a, b).item() == pytest.approx((2 * 0.14 + 1e-4) / (0.04 + 0.49 + 1e-4))
    assert ssim(a, a).item() == pytest.approx(1)


def test_image_loss_is_l1_plus_one_minus_ssim():
    a, b = pair(n=2)
    expected = float((a - b).abs().mean()) + 1 - float(ssim(a, b, stride=3).mean())
    assert image_loss(a, b).item() == pytest.approx(expected)
    assert image_loss(a, a).item() == pytest.approx(0, abs=1e-9)


def test_psnr_is_that_of_scikit_image():
    a, b = pair(n=3)
    expected = [peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=1.0) for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(psnr(a, b), torch.tensor(expected))


def test_psnr_by_hand():
    a = torch.zeros(1, 3, 4, 4)
    assert psnr(a, a + 0.1).item() == pytest.approx(20, abs=1e-4)
    assert psnr(a, a).item() == math.inf


# Masks


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_focal_loss_is_that_of_torchvision_for_hard_targets(gamma):
    logit, target = 12 * rand(3, 1, 9, 9) - 6, (rand(3, 1, 9, 9, seed=1) < 0.3).double()
    expected = sigmoid_focal_loss(logit, target, alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(focal_loss(logit, target, gamma=gamma), expected)


def test_focal_loss_without_focus_is_cross_entropy_for_soft_targets():
    logit, target = 12 * rand(3, 1, 9, 9) - 6, rand(3, 1, 9, 9, seed=1)
    torch.testing.assert_close(focal_loss(logit, target, gamma=0), F.binary_cross_entropy_with_logits(logit, target))


def test_focal_loss_of_a_soft_target_by_hand():
    p, t = 0.8, 0.5
    expected = (t - p) ** 2 * -(t * math.log(p) + (1 - t) * math.log(1 - p))
    logit = torch.tensor([math.log(p / (1 - p))], dtype=torch.float64)
    assert focal_loss(logit, torch.tensor([t], dtype=torch.float64)).item() == pytest.approx(expected)


def test_focal_loss_is_finite_at_extreme_logits():
    logit = torch.tensor([-1e4, 1e4, -1e4, 1e4], requires_grad=True)
    value = focal_loss(logit, torch.tensor([0.0, 1.0, 1.0, 0.0]))
    value.backward()
    assert value.item() == pytest.approx(2 * 1e4 / 4)
    torch.testing.assert_close(logit.grad, torch.tensor([0.0, 0.0, -0.25, 0.25]))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_loss_has_a_finite_gradient_where_nothing_is_wrong(gamma):
    logit = torch.tensor([20.0, 200.0, -200.0, -3.0]).requires_grad_()
    focal_loss(logit, torch.tensor([1.0, 1.0, 0.0, 0.0]), gamma=gamma).backward()
    assert logit.grad is not None
    assert logit.grad.isfinite().all()
    assert logit.grad[3] > 0


def test_dice_loss_by_hand():
    # Logit 0 is 1/2: overlap (2 * 1 + 1) / (4 / 4 + 2 + 1).
    logit, target = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 1.0], [0.0, 0.0]]]])
    assert dice_loss(logit, target).item() == pytest.approx(1 - 3 / 4)


def test_dice_loss_of_a_perfect_and_of_a_disjoint_mask():
    target = torch.zeros(1, 1, 20, 20)
    target[..., :10] = 1
    logit = 200 * target - 100
    assert dice_loss(logit, target).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(-logit, target).item() == pytest.approx(1 - 1 / (200 + 200 + 1), abs=1e-6)


def test_dice_loss_without_positives_is_zero():
    logit = (10 * rand(3, 1, 8, 8) - 5).requires_grad_()
    value = dice_loss(logit, torch.zeros(3, 1, 8, 8, dtype=torch.float64))
    value.backward()
    assert value.item() == 0
    assert (logit.grad == 0).all()


def test_dice_loss_leaves_out_images_without_a_target():
    logit, target = 10 * rand(4, 1, 8, 8) - 5, (rand(4, 1, 8, 8, seed=1) < 0.2).double()
    target[[0, 2]] = 0
    each = [dice_loss(logit[i : i + 1], target[i : i + 1]) for i in (1, 3)]
    torch.testing.assert_close(dice_loss(logit, target), torch.stack(each).mean())


IMAGES, LOGIT = pair(n=1, height=8, width=8), 4 * rand(2, 1, 3, 3) - 2


@pytest.mark.parametrize(
    ("loss", "value", "target"),
    [
        (feature_loss, rand(1, 3, 2, 2), rand(1, 3, 2, 2, seed=1)),
        (image_loss, IMAGES[0][:, :1], IMAGES[1][:, :1]),
        (focal_loss, LOGIT, rand(2, 1, 3, 3, seed=1)),
        (dice_loss, LOGIT, (rand(2, 1, 3, 3, seed=1) < 0.5).double()),
    ],
)
def test_gradients_are_those_of_finite_differences(loss, value, target):
    assert torch.autograd.gradcheck(loss, (value.clone().requires_grad_(), target))


# Adversarial


def test_hinge_loss_by_hand():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-3.0, 0.0])
    assert hinge_discriminator_loss(real, fake).item() == pytest.approx(0.5 * ((0 + 0.5 + 2) / 3 + (0 + 1) / 2))


def test_adaptive_weight_is_the_ratio_of_the_gradients():
    weight = rand(4, 3).requires_grad_()
    u, v = rand(4, 3, seed=1), rand(4, 3, seed=2)
    value = adaptive_weight((3 * weight * u).sum(), (-2 * weight * v).sum(), weight)
    assert value.item() == pytest.approx(3 * float(u.norm()) / (2 * float(v.norm()) + 1e-4))
    assert not value.requires_grad


def test_adaptive_weight_is_limited():
    weight = torch.ones(4, requires_grad=True)
    assert adaptive_weight(100 * weight.sum(), 0 * weight.sum(), weight) == 1e4
    assert adaptive_weight(0 * weight.sum(), weight.sum(), weight) == 0


# Copy ratio


@pytest.fixture
def corrupted() -> tuple[Tensor, Tensor, Tensor]:
    """Features, the clean ones, and the mask outside which they agree."""
    mask = (rand(2, 1, 6, 6, seed=3) < 0.4).double()
    clean = rand(2, 5, 6, 6)
    return clean + mask * (rand(2, 5, 6, 6, seed=1) + 0.2), clean, mask


def copy_ratio(*tensors: Tensor) -> Tensor:
    kept, made = copied(*tensors)
    return kept / made


@pytest.mark.parametrize("kept", [0.0, 0.5, 1.0, -0.25, 2.0])
def test_copy_ratio_is_the_share_of_the_change_that_is_kept(corrupted, kept):
    features, clean, mask = corrupted
    recon = clean + kept * (features - clean)
    assert copy_ratio(features, clean, recon, mask).item() == pytest.approx(kept, abs=1e-12)


def test_copy_ratio_ignores_what_is_orthogonal_to_the_change(corrupted):
    features, clean, mask = corrupted
    change = (features - clean) * mask
    other = rand(*change.shape, seed=4) * mask
    other = other - (other * change).sum() / change.square().sum() * change
    assert other.abs().max() > 0.1
    assert copy_ratio(features, clean, clean + 0.5 * change + other, mask).item() == pytest.approx(0.5)


def test_copy_ratio_ignores_what_lies_outside_the_mask(corrupted):
    features, clean, mask = corrupted
    noise = 10 * rand(*clean.shape, seed=5) * (1 - mask)
    assert copy_ratio(features + noise, clean, clean + noise, mask).item() == pytest.approx(0, abs=1e-12)


def test_copy_ratio_takes_any_positive_value_of_the_mask_alike(corrupted):
    features, clean, mask = corrupted
    recon = 0.3 * features + 0.7 * clean
    assert copy_ratio(features, clean, recon, 0.01 * mask).item() == pytest.approx(0.3)


def test_what_is_copied_adds_up_over_batches(corrupted):
    features, clean, mask = corrupted
    recon = 0.3 * features + 0.7 * clean
    recon[0] = clean[0]
    whole = copied(features, clean, recon, mask)
    parts = [copied(*(t[i : i + 1] for t in (features, clean, recon, mask))) for i in range(len(clean))]
    torch.testing.assert_close(torch.stack(parts).sum(0), whole)


def test_copy_ratio_of_no_change_is_undefined():
    clean = rand(1, 2, 3, 3)
    assert math.isnan(copy_ratio(clean, clean, clean, torch.ones(1, 1, 3, 3)).item())
