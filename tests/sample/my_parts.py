"""Parts of one's own, one of each kind, each as short as it can be; docs/extending.md explains them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from squad_lit.dataset import AnomalyDataModule, AnomalyDataset, Sample
from squad_lit.network.quantizer import Quantized
from squad_lit.synthesis.defect import Array, Mask, Scene, blend, blob
from squad_lit.training.detector import Detector
from squad_lit.training.forward import ForwardOutput


# --8<-- [start:quantizer]
class Sign(nn.Module):
    """Each scalar becomes -1 or 1."""

    def __init__(self, *, dim: Annotated[int, Field(ge=1, le=16)]) -> None:
        super().__init__()
        self.dim, self.codebook_size = dim, 2**dim

    def forward(self, z: Tensor) -> Quantized:
        bounded = torch.tanh(z)
        hard = torch.where(z < 0, -1.0, 1.0)
        place = 2 ** torch.arange(self.dim, device=z.device).view(1, -1, 1, 1)
        codes = bounded + (hard - bounded).detach()  # the gradient is that of tanh
        return Quantized(codes, ((hard > 0) * place).sum(1), z.new_zeros(()))


# --8<-- [end:quantizer]
# --8<-- [start:backbone]
class Colours(nn.Module):
    """Mean and deviation of the colours in each cell, in place of a pretrained network."""

    def __init__(self, groups: dict[str, list[int]], *, cell: int = 8) -> None:
        super().__init__()
        self.groups = groups
        self.stride = {group: max(cell, *strides) for group, strides in groups.items()}
        self.channels = dict.fromkeys(groups, 6)
        self.register_buffer("scale", torch.ones(6))

    @torch.no_grad()
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {
            group: self._describe(image, side) / self.scale.view(1, -1, 1, 1) for group, side in self.stride.items()
        }

    def fit(self, batches: Any) -> None:
        found = [self._describe(image, 8).transpose(0, 1).flatten(1) for image in batches]
        self.scale.copy_(torch.cat(found, 1).std(1).clamp_min(1e-3))

    @staticmethod
    def _describe(image: Tensor, side: int) -> Tensor:
        mean = F.avg_pool2d(image, side)
        deviation = (F.avg_pool2d(image * image, side) - mean * mean).clamp_min(0).sqrt()
        return torch.cat([mean, deviation], 1)


# --8<-- [end:backbone]
# --8<-- [start:discriminator]
class Linear(nn.Module):
    """The logit of a cell is linear in its absolute residual."""

    def __init__(self, channels: dict[str, int]) -> None:
        super().__init__()
        self.logit = nn.ModuleDict({group: nn.Conv2d(count, 1, 1) for group, count in channels.items()})

    def forward(self, features: dict[str, Tensor], feature_recon: dict[str, Tensor]) -> Tensor:
        logits = [conv((features[group] - feature_recon[group]).abs()) for group, conv in self.logit.items()]
        finest = max(logit.shape[-2:] for logit in logits)
        return torch.stack([F.interpolate(logit, size=finest) for logit in logits]).sum(0)


# --8<-- [end:discriminator]
# --8<-- [start:defect]
class Dot:
    """A dot of one colour somewhere on the object."""

    def __init__(self, *, colour: list[float]) -> None:
        self.colour = np.array(colour, np.float32)

    def __call__(self, scene: Scene, area: float, opacity: float) -> Array:
        fill = np.broadcast_to(self.colour, scene.image.shape)
        return blend(scene.image, fill, blob(scene, area), opacity)


# --8<-- [end:defect]
# --8<-- [start:synthesis]
class Squares:
    """The anomaly is a square of inverted colours."""

    def __init__(self, *, side: int) -> None:
        self.side = side

    def __call__(self, image: Array, others: list[Array], rng: np.random.Generator) -> tuple[Array, Mask]:
        row, column = rng.integers(0, np.array(image.shape[:2]) - self.side)
        mask = np.zeros(image.shape[:2], bool)
        mask[row : row + self.side, column : column + self.side] = True
        return np.where(mask[..., None], 1 - image, image).astype(np.float32), mask


# --8<-- [end:synthesis]
# --8<-- [start:dataset]
class Parts(AnomalyDataModule):
    """Files ``good_*.png``, ``bad_*.png`` and ``mask_*.png`` in one folder; the last two good ones are for the test."""

    name = "parts"
    CATEGORIES = ("parts",)
    HELP = "Expected: ROOT/good_N.png, ROOT/bad_N.png and its mask ROOT/mask_N.png"

    def folder_of(self, category: str) -> Path:
        return self.root

    def mask_folders(self, category: str) -> list[Path]:
        return []

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        good = [Sample(path, category, "good", 0) for path in sorted(self.root.glob("good_*.png"))]
        images = sorted(self.root.glob("bad_*.png"))
        bad = [Sample(path, category, "bad", 1, path.with_name(path.name.replace("bad", "mask"))) for path in images]
        return good[:-2], good[-2:] + bad


# --8<-- [end:dataset]
# --8<-- [start:callback]
class StopAt(Callback):
    """Stops the training after some steps, as Ctrl-C would."""

    def __init__(self, *, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        if pl_module.state.step == self.step:
            raise KeyboardInterrupt


# --8<-- [end:callback]
# --8<-- [start:logger]
class Lines(CSVLogger):
    """Metrics in a file ``lines/metrics.csv`` of the run's folder."""

    def __init__(self, *, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="lines")


# --8<-- [end:logger]
# --8<-- [start:model]
class Mean(Detector):
    """How far each cell is from the mean of the normal training images at the same place."""

    mean: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(maps=["distance"], steps=1, **options)
        self.register_buffer("mean", torch.zeros(0))

    def forward_tile(self, image: Tensor) -> ForwardOutput:
        features = self.backbone(image)
        fine = next(iter(features.values()))
        distance = (fine - self.mean).square().mean(1, keepdim=True).sqrt()
        return ForwardOutput(self.anomaly.prepare({"distance": distance}, image.shape[-2:]), features)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return []

    def training_step(self, images: AnomalyDataset, batch_idx: int) -> None:
        self.backbone.fit(self.tiles(images, "features"))
        fine = [next(iter(self.backbone(tiles).values())) for tiles in self.tiles(images, "mean")]
        self.mean = torch.cat(fine).mean(0, keepdim=True)
        self.state.step = 1
        self.trainer.should_stop = True

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.mean = torch.zeros_like(state_dict[f"{prefix}mean"])  # its size is known when it has been trained
        super()._load_from_state_dict(state_dict, prefix, *rest)


# --8<-- [end:model]
