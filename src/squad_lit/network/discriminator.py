"""Discriminators: one segments synthetic anomalies on the residual (as in DRAEM), one judges images (as in a GAN)."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from squad_lit.network.generator import MOST_WIDTH, NORM_GROUP, ResidualBlock, Width
from squad_lit.system.option import Share, checked

# The cells of the finest grid are 4 to 16 px wide.
Doublings = Annotated[int, Field(ge=0, le=4)]


class SegmentationDiscriminator(nn.Module):
    """Anomaly logits from the residual between features and their reconstruction.

    The absolute residuals of all groups, to which the features may be added, are projected to ``width`` channels and
    resized to the finest grid. They pass a two-level U-Net, and learned layers upsample its output. Training uses
    synthetic anomalies, whose masks are known.

    Args:
        channels: Channels of each group of features.
        width: Channels inside, a multiple of 8 up to 1,024.
        upsample: Doublings of the resolution after the finest grid, 0 to 4.
        feature_dropout: Probability, per training image, that the features are hidden from the discriminator, so that
            it also learns to judge by the residual alone. 0 always shows them; 1 never does, in a test neither, and
            there are no weights for them.

    Reference:
        Zavrtanik et al., "DRAEM", ICCV 2021, and "DSR", ECCV 2022.
    """

    @checked
    def __init__(
        self, channels: Mapping[str, int], *, width: Width, upsample: Doublings, feature_dropout: Share
    ) -> None:
        super().__init__()
        self.feature_dropout = feature_dropout
        self.residual_in = nn.ModuleDict({group: nn.Conv2d(c, width, 1) for group, c in channels.items()})
        self.feature_in = nn.ModuleDict(
            {group: nn.Conv2d(c, width, 1) for group, c in channels.items()} if feature_dropout < 1 else {}
        )
        self.fine = nn.Sequential(nn.Conv2d(width * len(channels), width, 3, padding=1), ResidualBlock(width))
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(ResidualBlock(width), ResidualBlock(width))
        self.merge = nn.Sequential(nn.Conv2d(2 * width, width, 1), ResidualBlock(width))
        blocks: list[nn.Module] = []
        for _ in range(upsample):
            narrow = max(width // 2, 2 * NORM_GROUP)
            blocks += [nn.ConvTranspose2d(width, narrow, 2, stride=2), nn.GroupNorm(narrow // NORM_GROUP, narrow)]
            blocks += [nn.SiLU(), nn.Conv2d(narrow, narrow, 3, padding=1)]
            width = narrow
        self.up = nn.Sequential(*blocks, nn.GroupNorm(width // NORM_GROUP, width), nn.SiLU())
        self.logit = nn.Conv2d(width, 1, 1)
        # Anomalous pixels are rare. A start at a probability of 1 % saves the first steps from learning this.
        nn.init.constant_(self.logit.bias, -4.6)  # type: ignore[arg-type]

    def forward(self, features: Mapping[str, Tensor], feature_recon: Mapping[str, Tensor]) -> Tensor:
        """Logits of "anomalous"; the caller detaches the reconstruction.

        Args:
            features: ``{group: (N, C, H, W)}`` of the image.
            feature_recon: Their reconstruction.

        Returns:
            ``(N, 1, H', W')``, the finest grid times ``2 ** upsample``.
        """
        parts = {g: project((features[g] - feature_recon[g]).abs()) for g, project in self.residual_in.items()}
        if not self.feature_in:
            return self._segment(parts)
        shown = {group: project(features[group]) for group, project in self.feature_in.items()}
        if self.training:
            any_part = next(iter(parts.values()))
            keep = torch.rand(len(any_part), 1, 1, 1, device=any_part.device) >= self.feature_dropout
            shown = {group: keep * part for group, part in shown.items()}
        return self._segment({group: part + shown[group] for group, part in parts.items()})

    def _segment(self, parts: Mapping[str, Tensor]) -> Tensor:
        grid = max(part.shape[-2:] for part in parts.values())
        x = torch.cat([part if part.shape[-2:] == grid else _resize(part, grid) for part in parts.values()], 1)
        x = self.fine(x)
        context = _resize(self.coarse(self.down(x)), grid)
        x = self.merge(torch.cat([x, context], 1))
        return self.logit(self.up(x))


class PatchDiscriminator(nn.Module):
    """PatchGAN: a logit of "real" for each patch of an image, which sharpens the image reconstruction.

    Args:
        width: Channels after the first layer; each further layer doubles them, up to 1,024.
        layers: Layers of stride 2, 1 to 10.

    Reference:
        Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017; Esser et al.,
        "Taming Transformers", CVPR 2021.
    """

    @checked
    def __init__(
        self, *, width: Annotated[int, Field(ge=1, le=MOST_WIDTH)], layers: Annotated[int, Field(ge=1, le=10)]
    ) -> None:
        super().__init__()
        self.layers = layers
        blocks: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for _ in range(layers - 1):
            # Instance statistics, because those of a batch of four images would be too noisy.
            wider = min(2 * width, MOST_WIDTH)
            blocks += [nn.Conv2d(width, wider, 4, stride=2, padding=1, bias=False)]
            blocks += [nn.InstanceNorm2d(wider, affine=True), nn.LeakyReLU(0.2)]
            width = wider
        self.body = nn.Sequential(*blocks, nn.Conv2d(width, 1, 4, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """``(N, 3, H, W)`` in [0, 1] to ``(N, 1, H', W')`` logits."""
        return self.body(image * 2 - 1)


def _resize(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
