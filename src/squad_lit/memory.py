"""The yardstick: distance to the nearest remembered patch of the normal training images, on the same features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from squad_lit.anomaly import Anomaly
from squad_lit.backbone import Backbone
from squad_lit.detector import Detector
from squad_lit.seen import Seen
from squad_lit.synthesis import Synthesis

# A coreset is chosen among this many times as many patches, by distances in this many random directions.
_CANDIDATES = 20
_DIRECTIONS = 64
# Rows among which a coreset's next choices are looked for, and with which its distances are computed, at a time.
_AHEAD = 2048
# Of the largest squared distance: what float32 leaves between equal rows.
_ROUNDING = 1e-6
# Of an image, compared with the memory at a time: 20 MB an image at 10,000 patches.
_CELLS = 512


class Memory(Detector):
    """Nearest-neighbour memory of patches: nothing is trained, one step fills it.

    A patch is a cell of the finest grid: the features of all groups, each averaged over 3 x 3 cells. The map is the
    Euclidean distance to the nearest remembered patch.

    Args:
        backbone: Makes the frozen feature pyramid from ``groups``.
        groups: For each group of features the strides of its layers, in pixels.
        anomaly: Makes the calibrated map from the names of the raw maps.
        synthesis: Makes the synthetic anomalies of the validation.
        patches: Remembered at most.
        selection: ``random``, or ``coreset``: each next patch is the one farthest from those chosen (of 20 times as
            many random ones), which keeps rare normal looks.
        seed: Of the choice.
        tile: Side of the square tiles in which images are looked at, in pixels; None: as a whole.
        tile_overlap: Least share of a side that neighbouring tiles have in common.

    Raises:
        ValueError: ``patches`` below 1, or an unknown selection.

    Reference:
        Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (PatchCore), CVPR 2022.
    """

    memory: Tensor

    def __init__(
        self,
        *,
        backbone: Callable[..., Backbone],
        groups: Mapping[str, Sequence[int]],
        anomaly: Callable[..., Anomaly],
        synthesis: Synthesis,
        patches: int,
        selection: str,
        seed: int,
        tile: int | None = None,
        tile_overlap: float = 0.0,
    ) -> None:
        if type(patches) is not int or patches < 1:
            raise ValueError(f"model.patches: expected a whole number of at least 1, got {patches}")
        if selection not in ("random", "coreset"):
            raise ValueError(f"model.selection: expected random or coreset, got {selection}")
        super().__init__(
            backbone=backbone,
            groups=groups,
            anomaly=anomaly,
            maps=["memory"],
            synthesis=synthesis,
            steps=1,
            seed=seed,
            tile=tile,
            tile_overlap=tile_overlap,
        )
        self.patches, self.selection = patches, selection
        self.register_buffer("memory", torch.zeros(0, sum(self.backbone.channels.values())))

    def look(self, image: Tensor) -> Seen:
        features = self.backbone(image)
        rows = self._rows(features)
        distance = torch.cat([self._distance(part) for part in rows.split(_CELLS, dim=1)], 1)
        grid = max(f.shape[-2:] for f in features.values())
        return Seen(self.anomaly.prepare({"memory": distance.unflatten(1, (1, *grid))}, image.shape[-2:]), features)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """There is nothing to optimise."""
        return []

    def train_dataloader(self) -> list[int]:
        """One step, in which the memory is filled."""
        return [0]

    def training_step(self, step: int) -> None:
        images = self.trainer.datamodule.train_set  # type: ignore[attr-defined]
        self.local_batch = len(images)
        self.backbone.fit(self.training_tiles())
        grid = self.grid(images[0]["image"].shape[-2:])
        blank = torch.zeros(1, 3, *grid.tile, device=self.device)
        cells = len(images) * len(grid) * self._rows(self.backbone(blank)).shape[1]
        count = self.patches * (_CANDIDATES if self.selection == "coreset" else 1)
        chosen = np.random.default_rng(self.seed).permutation(cells)[:count]
        keep = torch.zeros(cells, dtype=torch.bool)
        keep[torch.from_numpy(chosen)] = True
        found, start = [], 0
        for chunk in self.training_tiles():
            rows = self._rows(self.backbone(chunk)).flatten(0, 1)
            found.append(rows[keep[start : start + len(rows)].to(rows.device)])
            start += len(rows)
        candidates = torch.cat(found)
        self.memory = candidates if self.selection == "random" else coreset(candidates, self.patches, self.seed)
        self.step = 1
        self.trainer.should_stop = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.memory = torch.zeros_like(checkpoint["state_dict"]["memory"], device=self.device)

    def _distance(self, rows: Tensor) -> Tensor:
        """Euclidean distance to the nearest remembered patch: ``(N, cells, C) -> (N, cells)``."""
        # Written out, because runtimes of exported models have no cdist.
        square = self.memory.square().sum(1) - 2 * rows @ self.memory.T
        return (square.min(-1).values + rows.square().sum(-1)).clamp_min(0).sqrt()

    @staticmethod
    def _rows(features: dict[str, Tensor]) -> Tensor:
        """Patches of images: ``(N, cells, C)``."""
        smooth = [F.avg_pool2d(f, 3, 1, 1) for f in features.values()]
        grid = max(f.shape[-2:] for f in smooth)
        joined = torch.cat([F.interpolate(f, size=grid, mode="bilinear", align_corners=False) for f in smooth], 1)
        return joined.flatten(2).transpose(1, 2)


def coreset(rows: Tensor, count: int, seed: int) -> Tensor:
    """Greedy choice of rows that cover all: each next one is the farthest from those chosen.

    Args:
        rows: ``(N, C)``. Distances are of their random projections to 64 dimensions.
        count: Rows to choose; all if there are no more.
        seed: Of the projection and the first row.

    Returns:
        ``(min(count, N), C)``, or fewer rows if these are all that differ.
    """
    if count >= len(rows):
        return rows
    generator = torch.Generator().manual_seed(seed)
    projection = torch.randn(rows.shape[1], _DIRECTIONS, generator=generator).to(rows)
    seen = (rows - rows.mean(0)) @ projection
    chosen = [int(torch.randint(len(rows), (1,), generator=generator))]
    distance = _squared(seen, seen[chosen])
    same = _ROUNDING * distance.max()
    while len(chosen) < count and distance.max() > same:
        found = _farthest(seen, distance, count - len(chosen), same)
        chosen += found
        distance = torch.minimum(distance, _squared(seen, seen[found]))
    return rows[chosen]


def _farthest(seen: Tensor, distance: Tensor, count: int, same: Tensor) -> list[int]:
    """The next choices of a greedy coreset, at least one and at most ``count``, found among the farthest rows alone.

    Distances only fall while rows are chosen. So the farthest of these few is the farthest of all, as long as it is no
    nearer than the nearest of the few was at the start.
    """
    left, few = distance.topk(min(_AHEAD, len(distance)))
    nearest, near = left[-1], seen[few]
    found: list[int] = []
    while len(found) < count:
        farthest = int(left.argmax())
        if left[farthest] < nearest or left[farthest] <= same:
            break
        found.append(int(few[farthest]))
        left = torch.minimum(left, (near - near[farthest]).square().sum(1))
    return found


def _squared(rows: Tensor, others: Tensor) -> Tensor:
    """Squared distance of rows ``(N, C)`` to the nearest of some others ``(M, C)``: ``(N,)``."""
    square = others.square().sum(1)
    parts = [(square - 2 * part @ others.T).amin(1) + part.square().sum(1) for part in rows.split(_AHEAD)]
    return torch.cat(parts).clamp_min(0)
