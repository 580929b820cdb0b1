"""Known defects among the anomalies of a training: the images themselves, and what is marked in them on others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from squad_lit.dataset.sample import AnomalyDataset
from squad_lit.image.tile import Grid, Window
from squad_lit.synthesis.contract import View
from squad_lit.synthesis.known import KnownDefect, paste

SYNTHETIC, MARKED, UNMARKED = 0, 1, 2
"""Kinds of anomalies: one whose clean image is known, and images of a known defect with a mask and without."""
# Stream of random numbers, beside the seed.
_KNOWN = 9
# Pixels around a defect whose features it may change.
_REACH = 8


Anomalous = tuple[Tensor, Tensor, int, Tensor]
"""Image ``(3, H, W)``, mask ``(H, W)`` bool, kind, and what lies in the region of interest, ``(H, W)`` bool or all."""


class KnownDefects:
    """Draws known defects, each draw a function of the seed and of its number alone.

    Args:
        known: Images with a defect, and their masks. Those without a mask are left out where images are cut into tiles,
            of which nobody knows which has the defect.
        augmentation: Makes views of them.
        grid: The tiles of an image.
        share: Share of the anomalies that are made of them.
        seed: Seed of everything random.
        roi: Region of interest ``(H, W)``, bool. Defects that are marked outside of it alone are left out.

    Raises:
        ValueError: No known defect can be used.
    """

    def __init__(
        self,
        known: AnomalyDataset,
        augmentation: View,
        grid: Grid,
        share: float,
        seed: int,
        roi: Tensor | None = None,
    ) -> None:
        self.roi = roi
        self.augmentation, self.grid, self.share, self.seed = augmentation, grid, share, seed
        items = [known[i] for i in range(len(known))]
        # A defect that was lost when its mask was resized is one whose place nobody knows.
        pairs = [(item["image"], item["mask"].bool() if item["mask"].any() else None) for item in items]
        if roi is not None:
            pairs = [(image, None if mask is None else mask & roi) for image, mask in pairs]
        self.known = [pair for pair in pairs if (len(grid) == 1 if pair[1] is None else pair[1].any())]
        if not self.known:
            raise ValueError(
                f"dataset.known_defects: none of the {len(items)} images can be used: with model.tile an image needs a "
                f"mask, since nobody knows which tile has the defect, and with dataset.roi the defect must lie inside"
            )

    def draw(self, normal: NDArray[np.float32], inside: Tensor | None, period: int, number: int) -> Anomalous | None:
        """A known defect in the place of an anomaly, or None.

        Args:
            normal: Clean view ``(H, W, 3)`` in [0, 1] on which one may be pasted.
            inside: Where the view lies in the region of interest, ``(H, W)`` bool.
            period: Number of the refresh.
            number: Number of the anomaly in it.
        """
        rng = np.random.default_rng([self.seed, _KNOWN, period, number])
        if rng.random() >= self.share:
            return None
        image, mask = self.known[rng.integers(len(self.known))]
        window = self._window(mask, rng)
        if mask is not None and rng.random() < 0.5:
            known = KnownDefect(to_array(image[:, *window] * 255), mask[0, *window].numpy())
            where = None if inside is None else inside.numpy()
            if pasted := paste(normal, known, rng, where):
                changed, marked = (torch.from_numpy(part) for part in pasted)
                return changed.permute(2, 0, 1), marked, SYNTHETIC, all_of(inside)
        state = int(rng.integers(2**31))
        view = self.augmentation(image, np.random.default_rng(state), window)
        view = (view * 255).round() / 255  # as the clean views are kept
        region = all_of(None if self.roi is None else moved(self.augmentation, self.roi[None], state, window))
        if mask is None:
            return view, torch.zeros(view.shape[-2:], dtype=torch.bool), UNMARKED, region
        return view, moved(self.augmentation, mask, state, window), MARKED, region

    def _window(self, mask: Tensor | None, rng: np.random.Generator) -> Window:
        """A window of a tile's size that has a pixel of the mask."""
        if mask is None or len(self.grid) == 1:
            return slice(0, self.grid.size[0]), slice(0, self.grid.size[1])
        at = mask[0].nonzero()
        place = at[rng.integers(len(at))].tolist()
        starts = [
            int(np.clip(p - rng.integers(side), 0, whole - side))
            for p, side, whole in zip(place, self.grid.tile, self.grid.size, strict=True)
        ]
        rows, columns = (slice(start, start + side) for start, side in zip(starts, self.grid.tile, strict=True))
        return rows, columns


def all_of(inside: Tensor | None) -> Tensor:
    """The region of an image; without one a single pixel that stands for all."""
    return torch.ones(1, 1, dtype=torch.bool) if inside is None else inside


def moved(augmentation: View, mask: Tensor, seed: int | Sequence[int], window: Window) -> Tensor:
    """Where the pixels of a mask ``(1, H, W)`` lie in the view of its image that is drawn by a seed: ``(h, w)`` bool.

    A view may change the brightness, too, which a view of a white image shows.
    """
    white = torch.ones(3, *mask.shape[-2:])
    part, whole = (augmentation(image, np.random.default_rng(seed), window) for image in (white * mask.float(), white))
    return part[0] >= 0.5 * whole[0]


def without_unknown(batch: dict[str, Any], kind: Tensor, inside: Tensor) -> dict[str, Any]:
    """What changes in a batch with real defects, or with a region of interest.

    Args:
        batch: ``features``, ``target``, ``mask`` and ``shown`` as of :meth:`squad_lit.training.pool.FeaturePool.batch`.
        kind: ``(N,)``, the kind of each image.
        inside: ``(N, 1, H, W)`` bool, or ``(N, 1, 1, 1)`` for all.

    Returns:
        A new ``target``; ``learned`` and ``judged``, ``(N, 1, H, W)`` float, 1 where the target of the generator and
        the mask are known; ``shown_learned``, bool, the first of them for the images; ``inside``, float ``(N, 1, H,
        W)``; and ``unmarked``, ``(N,)``, 1 for images with a defect whose place nobody knows.

    The clean image behind a real defect is not known. Outside of the defect it is the image itself.
    """
    is_real, is_unmarked = (place[:, None, None, None] for place in (kind != SYNTHETIC, kind == UNMARKED))
    near = F.max_pool2d(batch["mask"], 2 * _REACH + 1, stride=1, padding=_REACH)
    learned = torch.where(is_real, 1 - near, torch.ones_like(near))
    learned = torch.where(is_unmarked, torch.zeros_like(near), learned)
    shown = batch["shown"]
    return {
        "target": {g: torch.where(is_real, batch["features"][g], f) for g, f in batch["target"].items()},
        "learned": learned * inside,
        "judged": ((~is_unmarked) & inside).to(near).expand_as(near),
        "shown_learned": (~is_real & inside)[shown],
        "unmarked": (kind == UNMARKED).to(near),
        "inside": inside.to(near).expand_as(near),
    }


def to_array(image: Tensor) -> NDArray[np.float32]:
    """``(3, H, W)`` in [0, 255] to ``(H, W, 3)`` float32 in [0, 1]."""
    return (image.permute(1, 2, 0).numpy() / np.float32(255)).astype(np.float32)
