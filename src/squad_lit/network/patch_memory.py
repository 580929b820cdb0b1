"""A memory of patches of normal images, and the distance of another image's patches to the nearest of them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from squad_lit.network.backbone import cells_inside
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

    Attributes:
        left_out: Number of a remembered image whose patches do not count where ``forward`` is told no other one.

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
        self.left_out: int | None = None

    def fill(
        self,
        features: Iterable[Mapping[str, Tensor]],
        images: int,
        seed: int,
        on_chosen: Callable[[int], object] = lambda count: None,
        *,
        tiles: int = 1,
        inside: Tensor | None = None,
    ) -> None:
        """Remember patches of normal images in place of those known.

        Args:
            features: Batches ``{group: (N, C, h, w)}``.
            images: Number of images in all batches.
            seed: Seed of the choice.
            on_chosen: Called with the number of patches that a coreset has chosen further, again and again.
            tiles: Number of successive items of the batches that are one image.
            inside: ``(tiles, 1, H, W)``, 1 where patches may be taken; None: everywhere.
        """
        self._keep(*self._candidates(features, images, seed, tiles, inside), seed, on_chosen)

    def extend(
        self,
        features: Iterable[Mapping[str, Tensor]],
        images: int,
        seed: int,
        on_chosen: Callable[[int], object] = lambda count: None,
        *,
        known: int,
        first: int,
        tiles: int = 1,
        inside: Tensor | None = None,
    ) -> None:
        """Remember patches of further normal images beside those known, in all at most ``patches``.

        A coreset is chosen anew among the patches that are remembered and the new ones. At random, old and new images
        have the shares of their numbers.

        Args:
            features: As of :meth:`fill`, of the new images.
            images: Number of new images, or more if it is not known how many can be read.
            seed: Seed of the choice.
            on_chosen: As of :meth:`fill`.
            known: Number of images that the patches so far were chosen among.
            first: Number of the first new image in ``source``; those of the others follow downwards.
            tiles: As of :meth:`fill`.
            inside: As of :meth:`fill`.
        """
        rows, number = self._candidates(features, images, seed, tiles, inside)
        old_rows, old_source = self.rows, self.source
        if self.selection == "random" and len(old_rows) + len(rows) > self.patches:
            new = min(len(rows), round(self.patches * images / (known + images)))
            rng = np.random.default_rng([seed, 1])
            kept = torch.from_numpy(rng.permutation(len(old_rows))[: self.patches - new]).to(old_rows.device)
            old_rows, old_source = old_rows[kept], old_source[kept]
            rows, number = rows[: self.patches - len(old_rows)], number[: self.patches - len(old_rows)]
        source = torch.cat([old_source, first - number.to(old_source.device)])
        self._keep(torch.cat([old_rows, rows]), source, seed, on_chosen)

    def _candidates(
        self, features: Iterable[Mapping[str, Tensor]], images: int, seed: int, tiles: int, inside: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Patches ``(n, C)`` to choose among, and the number ``(n,)`` of the image of each."""
        keep, found, start, cells = torch.zeros(0, dtype=torch.bool), [], 0, 1
        count = max(self.patches, _CANDIDATES) if self.selection == "coreset" else self.patches
        for part in features:
            rows = _rows(part)
            if start == 0:
                cells = tiles * rows.shape[1]
                keep = torch.zeros(images * cells, dtype=torch.bool)
                order = torch.from_numpy(np.random.default_rng(seed).permutation(len(keep)))
                if inside is not None:
                    size = tuple(max(f.shape[-2:] for f in part.values()))
                    order = order[cells_inside(inside.cpu(), size).flatten()[order % cells]]
                keep[order[:count]] = True
            rows = rows.flatten(0, 1)
            found.append(rows[keep[start : start + len(rows)].to(rows.device)])
            start += len(rows)
        return torch.cat(found), keep[:start].nonzero()[:, 0] // cells

    def _keep(self, rows: Tensor, source: Tensor, seed: int, on_chosen: Callable[[int], object]) -> None:
        """Remember these patches, or a coreset of them."""
        if self.selection == "coreset":
            with _exact(rows):
                chosen = coreset(rows, self.patches, seed, on_chosen)
            rows, source = rows[chosen], source[chosen]
        self.rows, self.source = rows, source.to(rows.device)

    def forward(self, features: Mapping[str, Tensor], without: Tensor | None = None) -> Tensor:
        """Euclidean distance to the nearest remembered patch.

        Args:
            features: ``{group: (N, C, h, w)}``.
            without: ``(N,)``, for each image the number of a remembered image whose patches do not count, because it is
                the same or a view of it; None lets all count but those of ``left_out``.

        Returns:
            ``(N, 1, H, W)``, infinite where all patches are of the image that does not count.
        """
        rows = _rows(features)
        if without is None and self.left_out is not None:
            without = self.source.new_full((len(rows),), self.left_out)
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
