"""From residuals and discriminator logits to a standardised anomaly map and an anomaly score."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from squad_lit.system.option import Share, Weight, checked

# The kinds of maps that the models of this package make; a configuration has a weight for each.
_KINDS = ("residual", "discriminator", "memory")


class Anomaly(nn.Module):
    """Brings the maps of a model to one scale, fuses them, and scores the image.

    Each map is enlarged to the resolution of the image and smoothed. Its mean and deviation over the pixels of *normal
    hold-out images* then turn it into z-scores. The fused map is the weighted mean of the kinds of maps. A kind with
    one map per group lies between the mean and the minimum of its maps. The score of an image is the mean of the
    highest share of its pixels. Test images and labels play no part in this.

    Args:
        names: Names of the maps; each is a kind (``residual``, ``discriminator``, ``memory``), or a kind and a group
            (``residual_low``).
        sigma: Deviation of the Gaussian that smooths the maps, in pixels of the image; 0 smooths nothing.
        top: Share of the pixels whose mean is the score, in (0, 1].
        weight: Weight per kind of map; the weights of the kinds in ``names`` are scaled to a sum of 1.
        agreement: Share of the minimum, in [0, 1], where a kind has several maps; their mean has the rest. A high share
            lowers what a single group finds unusual.

    Raises:
        ValueError: A number is out of range, a kind of map has no weight, or a weight is that of an unknown kind.
    """

    mean: Tensor
    std: Tensor
    standardised: Tensor
    inside: Tensor | None

    @checked
    def __init__(
        self,
        names: Sequence[str],
        *,
        sigma: Annotated[float, Field(ge=0, le=1000)],
        top: Annotated[float, Field(gt=0, le=1)],
        weight: Mapping[str, Weight],
        agreement: Share = 0.0,
    ) -> None:
        super().__init__()
        kinds = [_kind(name) for name in names]
        if missing := sorted(set(kinds) - set(weight)):
            raise ValueError(f"weight: expected a weight for {', '.join(missing)}, got {dict(weight)}")
        if unknown := sorted(set(weight) - {*_KINDS, *kinds}):
            raise ValueError(f"weight: expected weights for {', '.join(_KINDS)}, got one for {unknown}")
        total = sum(weight[kind] for kind in set(kinds))
        if not 0 < total < math.inf:
            raise ValueError(f"weight: the maps {list(names)} have a total weight of {total}: {dict(weight)}")
        self.sigma, self.top, self.agreement, self.names = sigma, top, agreement, list(names)
        self.weights = {kind: weight[kind] / total for kind in kinds}
        self.register_buffer("mean", torch.zeros(len(self.names)))
        self.register_buffer("std", torch.ones(len(self.names)))
        self.register_buffer("standardised", torch.tensor(False))
        self.register_buffer("inside", None, persistent=False)
        self._count_inside = 0

    def look_at(self, inside: Tensor | None) -> None:
        """Score images only where ``inside``, ``(H, W)`` bool, is true; None: everywhere.

        The score is the mean of as many pixels as without it, so that no region of that many pixels raises a score.
        Maps of another size, such as those of single tiles, are scored as a whole.
        """
        self.inside = None if inside is None else inside.to(self.mean.device)
        self._count_inside = 0 if inside is None else int(inside.sum())

    def prepare(self, raw: Mapping[str, Tensor], size: Sequence[int]) -> dict[str, Tensor]:
        """Enlarge raw maps ``{name: (N, 1, h, w)}`` to ``size`` and smooth them: ``{name: (N, H, W)}``.

        This is done in float32 even where the model computes in half precision, whose few digits would tie scores.
        """
        with torch.autocast(next(iter(raw.values())).device.type, enabled=False):
            exact = {name: m.to(torch.promote_types(m.dtype, torch.float32)) for name, m in raw.items()}
            return {name: enlarge(m, size, self.sigma)[:, 0] for name, m in exact.items()}

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """Set mean and deviation of each map on normal hold-out images, ``(maps,)`` in the order of ``names``."""
        self.mean.copy_(mean)
        # A map that is constant on normal images carries no scale: leave it as it is rather than divide by 0.
        self.std.copy_(torch.where(std > 0, std, 1.0))
        self.standardised.fill_(True)

    def z_scores(self, maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each map in units of its deviation on normal images."""
        return {name: (maps[name] - self.mean[i]) / self.std[i] for i, name in enumerate(self.names)}

    def forward(self, maps: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Fuse and score the maps that :meth:`prepare` returns.

        Returns:
            ``anomaly_map`` ``(N, H, W)`` and ``anomaly_score`` ``(N,)``, in deviations from normal; higher is more
            anomalous.
        """
        z = self.z_scores(maps)
        fused = []
        for kind, weight in self.weights.items():
            of_kind = torch.stack([z[name] for name in self.names if _kind(name) == kind])
            fused.append(weight * ((1 - self.agreement) * of_kind.mean(0) + self.agreement * of_kind.amin(0)))
        anomaly_map = torch.stack(fused).sum(0)
        if self.inside is None or self.inside.shape != anomaly_map.shape[-2:]:
            return anomaly_map, top_mean(anomaly_map, self.top)
        count = min(self._count_inside, _count(self.top, self.inside.numel()))
        flat = torch.where(self.inside, anomaly_map, -math.inf).flatten(1)
        return anomaly_map, flat.topk(count, dim=1).values.mean(1)


def _kind(name: str) -> str:
    return name.split("_")[0]


def residual_maps(features: Mapping[str, Tensor], feature_recon: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Root mean squared difference over channels: ``{group: (N, C, h, w)} -> {"residual_<group>": (N, 1, h, w)}``."""
    return {f"residual_{g}": (f - feature_recon[g]).square().mean(1, keepdim=True).sqrt() for g, f in features.items()}


def top_mean(anomaly_map: Tensor, share: float) -> Tensor:
    """Mean of the highest share of the pixels, at least one: ``(N, H, W) -> (N,)``."""
    flat = anomaly_map.flatten(1)
    return flat.topk(_count(share, flat.shape[1]), dim=1).values.mean(1)


def _count(share: float, size: int) -> int:
    """How many pixels a share is, at least one."""
    return max(1, round(float(share * size)))  # float: while OpenVINO traces, a size is a tensor


def resize_map(anomaly_map: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resizing of ``(N, C, h, w)`` to ``(N, C, H, W)``, without antialiasing."""
    return F.interpolate(anomaly_map, size=tuple(size), mode="bilinear", align_corners=False)


def enlarge(anomaly_map: Tensor, size: Sequence[int], sigma: float) -> Tensor:
    """Bilinear enlargement of ``(N, 1, h, w)`` to ``(N, 1, H, W)``, then Gaussian smoothing, mirrored at the border.

    Both steps are linear along rows and along columns, so one matrix per axis does them together. This takes a fifth of
    the time of a convolution at full resolution. The kernel is cut at four deviations.
    """
    reach = min(math.ceil(4 * sigma), min(size) - 1)
    rows, columns = (
        _enlarging_matrix(torch.eye(before, dtype=anomaly_map.dtype, device=anomaly_map.device), after, sigma, reach)
        for before, after in zip(anomaly_map.shape[-2:], size, strict=True)
    )
    return rows @ anomaly_map @ columns.T


def _enlarging_matrix(unit: Tensor, length: int, sigma: float, reach: int) -> Tensor:
    """What enlargement and smoothing along one axis do to each unit vector: ``(n, n) -> (length, n)``."""
    enlarged = resize_map(unit[None, None], (length, unit.shape[1]))
    if sigma == 0:
        return enlarged[0, 0]
    # On the device, because a CUDA graph cannot copy to it; float32 would take the least sigma for 0.
    offset = torch.arange(-reach, reach + 1, dtype=torch.float64, device=unit.device)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(unit)
    padded = F.pad(enlarged, (0, 0, reach, reach), mode="reflect")
    return F.conv2d(padded, kernel.view(1, 1, -1, 1))[0, 0]
