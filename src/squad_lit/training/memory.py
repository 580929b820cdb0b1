"""The baseline: distance to the nearest remembered patch of the normal training images, on the same features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from squad_lit.dataset.sample import AnomalyDataset
from squad_lit.network.anomaly import Anomaly
from squad_lit.network.contract import FeatureExtractor
from squad_lit.network.patch_memory import PatchMemory
from squad_lit.synthesis.contract import ImageSynthesis
from squad_lit.system.option import Side
from squad_lit.training.detector import Detector, Overlap
from squad_lit.training.forward import ForwardOutput


class Memory(Detector):
    """Nearest-neighbour memory of patches: nothing is trained, one step fills it.

    Args:
        backbone: Makes the frozen feature pyramid from ``groups``.
        groups: For each group of features the strides of its layers, in pixels.
        memory: Makes the memory from ``channels`` of the backbone's groups.
        anomaly: Makes the anomaly map from the names of the raw maps.
        synthesis: Makes the synthetic anomalies of the validation.
        seed: Seed of the choice of patches.
        tile: Side in pixels of the square tiles in which images are processed; None processes whole images.
        tile_overlap: Least overlap of neighbouring tiles as a share of their side, in [0, 0.9].
    """

    def __init__(
        self,
        *,
        backbone: Callable[..., FeatureExtractor],
        groups: Mapping[str, Sequence[int]],
        memory: Callable[..., PatchMemory],
        anomaly: Callable[..., Anomaly],
        synthesis: ImageSynthesis,
        seed: int,
        tile: Side | None = None,
        tile_overlap: Overlap = 0.0,
    ) -> None:
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
        self.memory = memory(self.backbone.channels)

    def forward_tile(self, image: Tensor) -> ForwardOutput:
        features = self.backbone(image)
        return ForwardOutput(self.anomaly.prepare({"memory": self.memory(features)}, image.shape[-2:]), features)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """There is nothing to optimise."""
        return []

    def training_step(self, images: AnomalyDataset, batch_idx: int) -> None:
        """Fill the memory, in the only step."""
        self.fit_backbone(images)
        self.remember(self.memory, images)
        self.state.step = 1
        self.trainer.should_stop = True
