"""A memory of patches of normal images, and the distance of another image's patches to the nearest of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from squad_lit.system.option import Count, checked

# A coreset is chosen among at most this many random patches, by distances in this many random directions.
_CANDIDATES = 200_000
_DIRECTIONS = 64
# Rows that a search for the next choices of a coreset, and a computation of its distances, take at once.
_AHEAD = 2048
# Share of a row's squared length that float32 may leave between equal rows.
_ROUNDING = 1e-6
# Cells of an image that are compared with the memory at once; 20 MB per image for 10,000 patches.
_CELLS = 512


class PatchMemory(nn.Module):
    """Remembers patches of normal images.

    A patch holds the features of all groups at a cell of the finest grid, each averaged over 3 x 3 cells.

    Args:
        channels: Channels of each group of features.
        patches: Largest number of patches that are remembered.
        selection: ``random``, or ``coreset``, where each next patch is the farthest from those chosen, among 200,000
            random ones. A coreset keeps rare normal looks.

    Reference:
        Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (PatchCore), CVPR 2022.
    """

    rows: Tensor
    source: Tensor

    @checked
    def __init__(self, channels: Mapping[str, int], *, patches: Count, selection: Literal["random", "coreset"]) -> None:
        super().__init__()
        self.patches, self.selection = patches, selection
        self.register_buffer("rows", torch.zeros(0, sum(channels.values())))
        self.register_buffer("source", torch.zeros(0, dtype=torch.int64))  # number of the image of each row

    def fill(
        self,
        features: Iterable[Mapping[str, Tensor]],
        images: int,
        seed: int,
        on_chosen: Callable[[int], object] = lambda count: None,
        *,
        tiles: int = 1,
    ) -> None:
        """Remember patches of normal images in place of those known.

        Args:
            features: Batches ``{group: (N, C, h, w)}``.
            images: Number of images in all batches.
            seed: Seed of the choice.
            on_chosen: Called with the number of patches that a coreset has chosen further, again and again.
            tiles: Number of successive items of the batches that are one image.
        """
        keep, found, start, cells = torch.zeros(0, dtype=torch.bool), [], 0, 1
        count = max(self.patches, _CANDIDATES) if self.selection == "coreset" else self.patches
        for part in features:
            rows = _rows(part)
            if start == 0:
                cells = tiles * rows.shape[1]
                keep = torch.zeros(images * cells, dtype=torch.bool)
                keep[torch.from_numpy(np.random.default_rng(seed).permutation(len(keep))[:count])] = True
            rows = rows.flatten(0, 1)
            found.append(rows[keep[start : start + len(rows)].to(rows.device)])
            start += len(rows)
        candidates, source = torch.cat(found), keep.nonzero()[:, 0] // cells
        if self.selection == "coreset":
            with _exact(candidates):
                chosen = coreset(candidates, self.patches, seed, on_chosen)
            candidates, source = candidates[chosen], source[chosen]
        self.rows, self.source = candidates, source.to(candidates.device)

    def forward(self, features: Mapping[str, Tensor], without: Tensor | None = None) -> Tensor:
        """Euclidean distance to the nearest remembered patch.

        Args:
            features: ``{group: (N, C, h, w)}``.
            without: ``(N,)``, for each image the number of a remembered image whose patches do not count, because it is
                the same or a view of it; None lets all count.

        Returns:
            ``(N, 1, H, W)``, infinite where all patches are of the image that does not count.
        """
        rows = _rows(features)
        left_out = None if without is None else without[:, None, None] == self.source
        with _exact(rows):
            distance = torch.cat([_squared(part, self.rows, left_out) for part in rows.split(_CELLS, dim=1)], 1)
        return distance.clamp_min(0).sqrt().unflatten(1, (1, *max(f.shape[-2:] for f in features.values())))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The number of patches is known from the state only.
        known = state_dict.get(f"{prefix}rows")
        if isinstance(known, Tensor) and known.shape[1:] == self.rows.shape[1:]:
            self.rows = torch.zeros_like(known, device=self.rows.device)
            self.source = torch.zeros(len(known), dtype=torch.int64, device=self.rows.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _exact(rows: Tensor) -> torch.autocast:
    """Switch autocast off, because a small distance is the difference of large numbers; bfloat16 has two digits."""
    return torch.autocast(rows.device.type, enabled=False)


def _rows(features: Mapping[str, Tensor]) -> Tensor:
    """The patches of images: ``(N, cells, C)``, float32."""
    smooth = [F.avg_pool2d(f.float(), 3, 1, 1) for f in features.values()]
    size = tuple(max(f.shape[-2:] for f in smooth))
    joined = torch.cat([F.interpolate(f, size=size, mode="bilinear", align_corners=False) for f in smooth], 1)
    return joined.flatten(2).transpose(1, 2)


def coreset(rows: Tensor, count: int, seed: int, on_chosen: Callable[[int], object] = lambda count: None) -> Tensor:
    """Greedy choice of rows that cover all, where each next row is the farthest from those chosen.

    Args:
        rows: ``(N, C)``. Distances are those of random projections to 64 dimensions.
        count: Number of rows to choose.
        seed: Seed of the projection and of the first row.
        on_chosen: Called with the number of rows that are chosen further, again and again.

    Returns:
        The numbers of the chosen rows, ``(min(count, N),)``, or fewer if no others differ from those chosen.

    Raises:
        FloatingPointError: A row is not finite.
    """
    if count >= len(rows):
        return torch.arange(len(rows))
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(rows.shape[1], _DIRECTIONS, generator=generator).to(rows)
    seen = (rows - rows.mean(0)) @ projection
    if not seen.isfinite().all():
        raise FloatingPointError("features of normal images are not finite: a coreset of them cannot be chosen")
    same = _ROUNDING * seen.square().sum(1)

    def away_from(some: list[int]) -> Tensor:
        distance = torch.cat([_squared(part, seen[some]) for part in seen.split(_AHEAD)])
        return torch.where(distance > same, distance, 0)

    chosen = [int(torch.randint(len(rows), (1,), generator=generator))]
    distance = away_from(chosen)
    while len(chosen) < count and distance.any():
        found = _farthest(seen, distance, count - len(chosen))
        chosen += found
        on_chosen(len(found))
        distance = torch.minimum(distance, away_from(found))
    return torch.tensor(chosen)


def _farthest(seen: Tensor, distance: Tensor, count: int) -> list[int]:
    """The next choices of a greedy coreset, at least one and at most ``count``, among a few of the farthest rows.

    Distances only fall while rows are chosen. The farthest of the few rows is therefore the farthest of all, as long as
    it is no nearer than the nearest of the few was at the start.
    """
    left, few = distance.topk(min(_AHEAD, len(distance)))
    nearest, near = left[-1], seen[few]
    found: list[int] = []
    while len(found) < count:
        farthest = int(left.argmax())
        if left[farthest] < nearest or left[farthest] == 0:
            break
        found.append(int(few[farthest]))
        left = torch.minimum(left, (near - near[farthest]).square().sum(1))
    return found


def _squared(rows: Tensor, others: Tensor, left_out: Tensor | None = None) -> Tensor:
    """Squared distance ``(...)`` of rows ``(..., C)`` to the nearest of others ``(M, C)``, up to rounding."""
    # Written out, because the runtimes of exported models have no cdist.
    square = others.square().sum(1) - 2 * rows @ others.T
    if left_out is not None:
        square = square.masked_fill(left_out, torch.inf)
    return square.amin(-1) + rows.square().sum(-1)
