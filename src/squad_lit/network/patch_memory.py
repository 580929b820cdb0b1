"""Patches of normal images, and how far those of another image are from the nearest of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from squad_lit.system.option import Count, checked

# A coreset is chosen among so many random patches at most, by distances in so many random directions.
_CANDIDATES = 200_000
_DIRECTIONS = 64
# Rows among which a coreset's next choices are looked for, and with which its distances are computed, at a time.
_AHEAD = 2048
# Of a row's squared length: what float32 leaves between equal rows.
_ROUNDING = 1e-6
# Of an image, compared with the memory at a time: 20 MB an image at 10,000 patches.
_CELLS = 512


class PatchMemory(nn.Module):
    """Remembers patches of normal images.

    A patch is a cell of the finest grid: the features of all groups, each averaged over 3 x 3 cells.

    Args:
        channels: Of each group of features.
        patches: Remembered at most.
        selection: ``random``, or ``coreset``: each next patch is the one farthest from those chosen (among
            200,000 random ones), which keeps rare normal looks.

    Raises:
        ValueError: ``patches`` below 1, or an unknown selection.

    Reference:
        Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (PatchCore), CVPR 2022.
    """

    rows: Tensor

    @checked
    def __init__(self, channels: Mapping[str, int], *, patches: Count, selection: Literal["random", "coreset"]) -> None:
        super().__init__()
        self.patches, self.selection = patches, selection
        self.register_buffer("rows", torch.zeros(0, sum(channels.values())))

    def fill(self, features: Iterable[Mapping[str, Tensor]], images: int, seed: int) -> None:
        """Remember patches of normal images, in place of those known.

        Args:
            features: ``{group: (N, C, h, w)}``, some images at a time.
            images: In all.
            seed: Of the choice.
        """
        keep, found, start = torch.zeros(0, dtype=torch.bool), [], 0
        count = max(self.patches, _CANDIDATES) if self.selection == "coreset" else self.patches
        for part in features:
            rows = _rows(part)
            if start == 0:
                keep = torch.zeros(images * rows.shape[1], dtype=torch.bool)
                keep[torch.from_numpy(np.random.default_rng(seed).permutation(len(keep))[:count])] = True
            rows = rows.flatten(0, 1)
            found.append(rows[keep[start : start + len(rows)].to(rows.device)])
            start += len(rows)
        candidates = torch.cat(found)
        with _exact(candidates):
            self.rows = candidates if self.selection == "random" else coreset(candidates, self.patches, seed)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Euclidean distance to the nearest remembered patch: ``{group: (N, C, h, w)} -> (N, 1, H, W)``."""
        rows = _rows(features)
        with _exact(rows):
            distance = torch.cat([_squared(part, self.rows) for part in rows.split(_CELLS, dim=1)], 1)
        return distance.clamp_min(0).sqrt().unflatten(1, (1, *_grid(features.values())))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # How many patches there are is known when they are.
        known = state_dict.get(f"{prefix}rows")
        if isinstance(known, Tensor) and known.shape[1:] == self.rows.shape[1:]:
            self.rows = torch.zeros_like(known, device=self.rows.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _exact(rows: Tensor) -> torch.autocast:
    """Without autocast: a small distance is the difference of large numbers, of which bfloat16 has two digits."""
    return torch.autocast(rows.device.type, enabled=False)


def _grid(maps: Iterable[Tensor]) -> Sequence[int]:
    """Height and width of the finest."""
    return max(m.shape[-2:] for m in maps)


def _rows(features: Mapping[str, Tensor]) -> Tensor:
    """The patches of images: ``(N, cells, C)``, float32."""
    smooth = [F.avg_pool2d(f.float(), 3, 1, 1) for f in features.values()]
    size = tuple(_grid(smooth))
    joined = torch.cat([F.interpolate(f, size=size, mode="bilinear", align_corners=False) for f in smooth], 1)
    return joined.flatten(2).transpose(1, 2)


def coreset(rows: Tensor, count: int, seed: int) -> Tensor:
    """Greedy choice of rows that cover all: each next one is the farthest from those chosen.

    Args:
        rows: ``(N, C)``. Distances are of their random projections to 64 dimensions.
        count: Rows to choose; all if there are no more.
        seed: Of the projection and the first row.

    Returns:
        ``(min(count, N), C)``, or fewer rows if these are all that differ.

    Raises:
        FloatingPointError: A row that is not finite.
    """
    if count >= len(rows):
        return rows
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
        distance = torch.minimum(distance, away_from(found))
    return rows[chosen]


def _farthest(seen: Tensor, distance: Tensor, count: int) -> list[int]:
    """The next choices of a greedy coreset, at least one and at most ``count``, found among the farthest rows alone.

    Distances only fall while rows are chosen. So the farthest of these few is the farthest of all, as long as it is no
    nearer than the nearest of the few was at the start.
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


def _squared(rows: Tensor, others: Tensor) -> Tensor:
    """Squared distance of rows ``(..., C)`` to the nearest of some others ``(M, C)``, but for rounding: ``(...)``."""
    # Written out, because runtimes of exported models have no cdist.
    square = others.square().sum(1) - 2 * rows @ others.T
    return square.amin(-1) + rows.square().sum(-1)
