"""Losses and measures of a training, as pure functions of tensors."""

import torch
from torch import Tensor
from torch.nn import functional as F

from squad_lit.network.anomaly import top_mean

# Share of their gradient that cells keep which are rebuilt well.
_EASY = 0.1


def feature_loss(recon: Tensor, target: Tensor, *, easy_share: float = 0.0, weight: Tensor | None = None) -> Tensor:
    """Mean squared error plus one minus the cosine similarity of the channel vectors, averaged over the cells.

    A decoder that still polishes cells which it rebuilds well learns to rebuild defects, too. The gradient of those
    cells therefore counts a tenth; the value does not change.

    Args:
        recon: ``(N, C, H, W)``.
        target: The same shape.
        easy_share: Share of the cells of each image, in [0, 1], that are rebuilt best; at least one is not among them.
        weight: ``(N, 1, H, W)``, 0 for cells that do not count, else 1; None lets all count.

    Reference:
        Guo et al., "Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection", CVPR 2025.
    """
    error = (recon - target).square().mean(1) + 1 - F.cosine_similarity(recon, target, dim=1)
    ranked = error.detach().flatten(1)
    if weight is None:
        hard = min(int(easy_share * ranked.shape[1]) + 1, ranked.shape[1])
        limit = ranked.kthvalue(hard, dim=1).values
    else:  # of the cells that count, whose number differs between images
        counts = weight.flatten(1).sum(1)
        order = ranked.masked_fill(weight.flatten(1) == 0, torch.inf).sort(1).values
        first_hard = torch.minimum((easy_share * counts).floor(), counts - 1).clamp_min(0).long()
        limit = order.gather(1, first_hard[:, None])[:, 0]
    is_easy = error.detach() < limit[:, None, None]
    return _mean(torch.where(is_easy, _EASY * error + (1 - _EASY) * error.detach(), error)[:, None], weight)


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of the values that count; 0 if none does."""
    return values.mean() if weight is None else (values * weight).sum() / weight.sum().clamp_min(1)


def ssim(a: Tensor, b: Tensor, *, window: int = 7, stride: int = 1) -> Tensor:
    """Structural similarity of images in [0, 1], averaged over pixels and channels.

    As by default in scikit-image, the window is uniform, the covariance is that of a sample, and pixels whose window
    leaves the image are left out.

    Args:
        a: ``(N, C, H, W)`` in [0, 1], H and W at least ``window``.
        b: The same shape.
        window: Side of the window in pixels.
        stride: Pixels between windows; values above 1 are faster, because they leave windows out.

    Returns:
        ``(N,)`` in [-1, 1].

    Reference:
        Wang et al., "Image Quality Assessment", IEEE TIP 2004.
    """
    mean_a, mean_b = F.avg_pool2d(a, window, stride), F.avg_pool2d(b, window, stride)
    unbiased = window**2 / (window**2 - 1)
    var_a = (F.avg_pool2d(a * a, window, stride) - mean_a**2) * unbiased
    var_b = (F.avg_pool2d(b * b, window, stride) - mean_b**2) * unbiased
    cov = (F.avg_pool2d(a * b, window, stride) - mean_a * mean_b) * unbiased
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return value.mean((1, 2, 3))


def image_loss(recon: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error plus one minus :func:`ssim`; both images ``(N, 3, H, W)`` in [0, 1]."""
    # Every third window, because all of them would cost as much as the rest of a training step.
    return F.l1_loss(recon, target) + (1 - ssim(recon, target, stride=3).mean())


def psnr(recon: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of images ``(N, C, H, W)`` in [0, 1]: ``(N,)``, infinite for equal images."""
    return -10 * torch.log10((recon - target).square().mean((1, 2, 3)))


def focal_loss(logit: Tensor, target: Tensor, *, gamma: float = 2.0, weight: Tensor | None = None) -> Tensor:
    """Binary focal loss with soft targets, averaged over all elements.

    Args:
        logit: Any shape.
        target: The same shape, in [0, 1].
        gamma: 0 gives binary cross-entropy; the larger it is, the less well-classified elements count.
        weight: The same shape, 0 for elements that do not count, else 1; None lets all count.

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017; |target - p| for soft targets as in Li et al.,
        "Generalized Focal Loss", NeurIPS 2020.
    """
    entropy = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    # A power below 1 has an infinite gradient at 0.
    return _mean(entropy * (target - logit.sigmoid()).abs().clamp_min(1e-6).pow(gamma), weight)


def dice_loss(logit: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """One minus the soft Dice overlap, averaged over the images that have a target.

    Args:
        logit: ``(N, 1, H, W)``.
        target: The same shape, in [0, 1]. Images without a positive pixel do not count, because they have no Dice.
        weight: As of :func:`focal_loss`.

    Returns:
        Scalar in [0, 1]; 0 if no image has a target.
    """
    counted = 1 if weight is None else weight
    p, t = (logit.sigmoid() * counted).flatten(1), (target * counted).flatten(1)
    overlap = (2 * (p * t).sum(1) + 1) / (p.square().sum(1) + t.square().sum(1) + 1)
    has = (t.sum(1) > 0).to(overlap)
    return ((1 - overlap) * has).sum() / has.sum().clamp_min(1)


def hidden_defect_loss(logit: Tensor, has_defect: Tensor, *, share: float = 0.001) -> Tensor:
    """Logistic loss of the highest logits of images with a defect that nobody has marked, of which some must be high.

    Args:
        logit: ``(N, 1, H, W)``.
        has_defect: ``(N,)``, 1 for such an image, else 0.
        share: Share of the pixels that must be high, at least one.
    """
    return (F.softplus(-top_mean(logit, share)) * has_defect).sum() / has_defect.sum().clamp_min(1)


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of an adversarial discriminator from its logits on real and on reconstructed images."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def adaptive_weight(reconstruction_loss: Tensor, adversarial_loss: Tensor, last_layer: Tensor) -> Tensor:
    """Weight that makes the adversarial gradient as large as that of the reconstruction at the decoder's last layer.

    Both losses are scalars with a graph to the weights ``last_layer``. The result is in [0, 10^4] and detached.

    Reference:
        Esser et al., "Taming Transformers", CVPR 2021, equation 7.
    """
    (a,) = torch.autograd.grad(reconstruction_loss, last_layer, retain_graph=True)
    (b,) = torch.autograd.grad(adversarial_loss, last_layer, retain_graph=True)
    return (a.norm() / (b.norm() + 1e-4)).clamp(0, 1e4).detach()


def copied(features: Tensor, clean: Tensor, recon: Tensor, mask: Tensor) -> Tensor:
    """How much of a synthetic anomaly the generator copies, and how much there is; the quotient is the copy ratio.

    The change that the reconstruction keeps is projected on the change that was made, within the mask. The ratio is
    ``sum((recon - clean) * (features - clean)) / sum((features - clean) ** 2)``. It is 0 if all is restored, and 1 for
    the identical shortcut.

    Args:
        features: Features of the corrupted images, ``(N, C, H, W)``.
        clean: Features of the same images before the corruption.
        recon: Reconstruction of ``features``.
        mask: ``(N, 1, H, W)``, non-zero where the image was changed.

    Returns:
        Both sums, ``(2,)``, which add up over batches.
    """
    inside = (mask > 0).to(features)
    change = (features - clean) * inside
    return torch.stack([((recon - clean) * change).sum(), change.square().sum()])
