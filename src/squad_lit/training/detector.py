"""What every model shares: standardised maps, label-free measures on validation images, the test, the checkpoint."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from squad_lit.image.tile import AT_ONCE, Grid
from squad_lit.metric import auroc, average_precision
from squad_lit.network import loss as losses
from squad_lit.network.anomaly import Anomaly
from squad_lit.network.backbone import Backbone
from squad_lit.network.patch_memory import PatchMemory
from squad_lit.synthesis.image import Synthesis
from squad_lit.training.checkpoint import KEY, VERSION
from squad_lit.training.evaluation import Evaluation
from squad_lit.training.forward import ForwardOutput, cut, merge_tiles
from squad_lit.training.pool import chunks_ahead

# Synthetic anomalies that are looked at: one on each of so many validation images at most or, where there are few,
# several on each. With one on each, what was measured of a category with five validation images was chance.
_MOST, _LEAST = 64, 32
# At a larger share nearly all of the work is done again and again.
_MOST_OVERLAP = 0.9


class Detector(L.LightningModule):
    """A frozen backbone, maps on one scale, and their measures. A model adds :meth:`forward_tile` and its training.

    Validation images are normal and were not trained on. They standardise the maps. With synthetic anomalies on some
    of them they tell, without a label of the test set, how well the model finds what it should: ``synthetic_ap`` (Pixel
    AP on synthetic anomalies), ``synthetic_auroc`` (of the image score, plain against corrupted) and ``normal_score``
    (mean score of the plain ones, in deviations).

    Args:
        backbone: Makes the frozen feature pyramid from ``groups``.
        groups: For each group of features the strides of its layers, in pixels.
        anomaly: Makes the anomaly map from the names of the raw maps.
        maps: These names.
        synthesis: Makes the synthetic anomalies of the validation.
        steps: Length of the training, in batches.
        seed: Of everything random.
        tile: Side of the square tiles, in pixels, in which images are looked at and trained on; None: as a whole.
        tile_overlap: Least share of a side that neighbouring tiles have in common, in [0, 0.9].

    Raises:
        ValueError: ``steps`` is no whole number of at least 1, or tiles that cannot be.
    """

    local_batch: int
    """Images that a training step looks at, in this process; set when the training starts."""

    def __init__(
        self,
        *,
        backbone: Callable[..., Backbone],
        groups: Mapping[str, Sequence[int]],
        anomaly: Callable[..., Anomaly],
        maps: Sequence[str],
        synthesis: Synthesis,
        steps: int,
        seed: int,
        tile: int | None = None,
        tile_overlap: float = 0.0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        if type(steps) is not int or steps < 1:
            raise ValueError(f"model.steps: expected a whole number of at least 1, got {steps}")
        self.backbone = backbone(groups=groups)
        self.anomaly = anomaly(names=maps)
        self.synthesis, self.steps, self.seed = synthesis, steps, seed
        self.tile, self.tile_overlap = tile, tile_overlap
        self._check_tile()
        self.step = 0
        # Set by whoever builds the module, and part of the checkpoint: plain values only.
        self.config: dict[str, Any] = {}
        self.data: dict[str, Any] = {}
        self.categories: list[str] = []
        self.image_size: list[int] = []
        self.measured: dict[str, Any] = {}
        # Of the validation images: anomaly scores, and the highest pixel of each map. Thresholds come from them.
        self.normal: dict[str, list[float]] = {"score": [], "maximum": []}
        self.trained: dict[str, float] = {"seconds": 0.0, "images": 0}  # set by callback.Timer
        self.defective: list[float] = []  # scores of known defects, from squad_lit.calibrate
        self.roi = ""  # digest of the region of interest that these are of
        self.false_alarm_rate: float | None = None  # of the training
        self.figures: dict[str, Any] = {}
        self.evaluation: Evaluation  # set by whoever tests: how a model is measured is not a part of it

    @abstractmethod
    def forward_tile(self, image: Tensor) -> ForwardOutput:
        """Raw maps of images, or tiles, ``(N, 3, H, W)`` in [0, 1], and what they come from."""

    def forward(self, image: Tensor) -> ForwardOutput:
        """Look at whole images ``(N, 3, H, W)`` in [0, 1]; with tiles, a few at a time, their maps blended."""
        grid = self.grid(image.shape[-2:])
        if len(grid) == 1:
            return self.forward_tile(image)
        return merge_tiles([self.forward_tile(tiles) for tiles in cut(image, grid).split(AT_ONCE)], grid)

    def grid(self, image_size: Sequence[int]) -> Grid:
        """The tiles in which images of a size are looked at."""
        return Grid(image_size, self.tile, self.tile_overlap)

    @property
    def tile_size(self) -> list[int]:
        """Height and width of what is looked at at a time: a tile, or the image."""
        return list(self.grid(self.image_size).tile)

    def predict(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised ``anomaly_map`` ``(N, H, W)`` and ``anomaly_score`` ``(N,)`` of images ``(N, 3, H, W)``."""
        return self.anomaly(self(image).maps)

    def check_data(self, categories: Sequence[str], image_size: Sequence[int]) -> None:
        """Check that a data set fits, before anything is computed.

        Raises:
            ValueError: Sides that the strides do not divide, or data that a trained model was not made for.
        """
        stride = max(self.backbone.stride.values())
        if self.tile is None and any(side % stride for side in image_size):
            raise ValueError(
                f"dataset.image_size: expected multiples of {stride} px for groups {self.backbone.groups}, "
                f"got {list(image_size)}"
            )
        if self.tile is not None and self.tile > min(image_size):
            raise ValueError(
                f"model.tile: expected at most the smaller side of dataset.image_size={list(image_size)}, "
                f"got {self.tile}"
            )
        if self.step == 0:
            return
        if list(image_size) != self.image_size:
            raise ValueError(
                f"this checkpoint was trained at image size {self.image_size}; set dataset.image_size to it "
                f"(got {list(image_size)})"
            )
        if unknown := sorted(set(categories) - set(self.categories)):
            raise ValueError(
                f"this checkpoint was trained on {self.categories}; it knows nothing of {unknown}: set dataset.category"
            )

    def on_fit_start(self) -> None:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if len(data.val_set) == 0:
            raise ValueError(
                "there is no normal hold-out image, so the maps cannot be standardised; "
                "set dataset.validation_fraction above 0 (it is taken from the normal training images)"
            )
        self.categories, self.image_size = list(data.categories), list(data.image_size)

    def _check_tile(self) -> None:
        stride = max(self.backbone.stride.values())
        if self.tile is not None and (type(self.tile) is not int or self.tile < 1 or self.tile % stride):
            raise ValueError(
                f"model.tile: expected null or a multiple of {stride} px for groups {self.backbone.groups}, "
                f"got {self.tile}"
            )
        if type(self.tile_overlap) not in (int, float) or not 0 <= self.tile_overlap <= _MOST_OVERLAP:
            raise ValueError(f"model.tile_overlap: expected a share in [0, {_MOST_OVERLAP}], got {self.tile_overlap}")

    def training_tiles(self) -> Iterator[Tensor]:
        """The normal training images, whole or all of their tiles, image by image, some at a time: ``(N, 3, H, W)``."""
        images = self.trainer.datamodule.train_set  # type: ignore[attr-defined]
        grid = self.grid(images[0]["image"].shape[-2:])

        def tile(number: int) -> Tensor:
            image: Tensor = images[number // len(grid)]["image"]
            return image[:, *grid.windows[number % len(grid)]].contiguous()  # the large image may go

        return (tiles.to(self.device) for tiles in chunks_ahead(tile, len(images) * len(grid)))

    def remember(self, memory: PatchMemory) -> None:
        """Fill a memory with patches of all normal training images."""
        images = self.trainer.datamodule.train_set  # type: ignore[attr-defined]
        count = len(images) * len(self.grid(images[0]["image"].shape[-2:]))
        with torch.no_grad():
            memory.fill(map(self.backbone, self.training_tiles()), count, self.seed)

    # Validation

    def on_validation_epoch_start(self) -> None:
        self._sums = torch.zeros(len(self.anomaly.names), 3, dtype=torch.float64)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        output = self(batch["image"])
        for sums, name in zip(self._sums, self.anomaly.names, strict=True):
            m = output.maps[name].double()
            sums += torch.stack([torch.tensor(m.numel()), m.sum().cpu(), m.square().sum().cpu()])

    def on_validation_epoch_end(self) -> None:
        self.finish_validation()
        single = {f"val/{name}": value for name, value in self.measured.items() if isinstance(value, float)}
        self.log_dict(single | {"step": float(self.step)}, sync_dist=True)

    def finish_validation(self) -> None:
        """Standardise the maps from what the validation steps have seen, and look again, now that they have a scale."""
        moments = self.sum_over_processes(self._sums.to(self.device))
        count, mean = moments[:, 0], moments[:, 1] / moments[:, 0]
        std = (moments[:, 2] / count - mean.square()).clamp_min(0).sqrt()
        self.anomaly.standardise(mean, std)
        self._look_again()

    def sum_over_processes(self, value: Tensor) -> Tensor:
        """The sum of a tensor that each process has one of."""
        if self._trainer is None or self.trainer.world_size == 1:
            return value
        gathered = self.all_gather(value)
        assert isinstance(gathered, Tensor)
        return gathered.sum(0)

    def observe(self, output: ForwardOutput) -> None:
        """For models that measure more: a batch of normal images, or the tiles of one."""

    def compare(self, corrupted: ForwardOutput, clean: dict[str, Tensor], mask: Tensor) -> None:
        """For models that measure more: synthetic anomalies, the features without them, and where they are."""

    def _look_again(self) -> None:
        """Set ``normal`` and ``measured``; every process looks at all validation images, so that all agree."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        every, copies = math.ceil(len(data.val_set) / _MOST), math.ceil(_LEAST / len(data.val_set))
        score, maximum, bad_score, plain_score = [], [], [], []
        bad_maps, masks = [], []
        for batch in data.val_dataloader():
            output = self(batch["image"].to(self.device))
            anomaly_map, anomaly_score = self.anomaly(output.maps)
            score += anomaly_score.tolist()
            maximum += anomaly_map.flatten(1).max(1).values.tolist()
            self.observe(output)
            chosen = [i for i, index in enumerate(batch["index"].tolist()) if index % every == 0]
            if not chosen:
                continue
            plain_score += anomaly_score[chosen].tolist()
            grid = self.grid(batch["image"].shape[-2:])
            clean = {g: f.unflatten(0, (-1, len(grid)))[chosen].flatten(0, 1) for g, f in output.features.items()}
            for copy in range(copies):
                image, mask = self._corrupt(batch, chosen, copy)
                corrupted = self(image)
                bad_map, found = self.anomaly(corrupted.maps)
                bad_maps.append(bad_map.cpu())
                masks.append(mask[:, 0].cpu() > 0)
                bad_score += found.tolist()
                self.compare(corrupted, clean, cut(mask, grid))
        label = torch.arange(len(plain_score) + len(bad_score)) >= len(plain_score)
        self.normal = {"score": score, "maximum": maximum}
        self.measured = {
            "synthetic_ap": float(average_precision(torch.cat(bad_maps).flatten(), torch.cat(masks).flatten())),
            "synthetic_auroc": float(auroc(torch.tensor(plain_score + bad_score), label)),
            "normal_score": sum(score) / len(score),
        }

    def _corrupt(self, batch: dict[str, Any], chosen: Sequence[int], copy: int) -> tuple[Tensor, Tensor]:
        """Some of these normal images with a synthetic anomaly, the same ones at every call, and the masks."""
        images = [i.permute(1, 2, 0).cpu().numpy() for i in batch["image"]]
        kin = [[j for j, name in enumerate(batch["category"]) if name == batch["category"][i]] for i in chosen]
        rngs = [np.random.default_rng([self.seed, 8, int(batch["index"][i]), copy]) for i in chosen]
        made = [
            self.synthesis(images[i], [images[j] for j in others], rng)
            for i, others, rng in zip(chosen, kin, rngs, strict=True)
        ]
        image = torch.stack([torch.from_numpy(m[0]).permute(2, 0, 1) for m in made])
        mask = torch.stack([torch.from_numpy(m[1])[None] for m in made]).float()
        return image.to(self.device), mask.to(self.device)

    # Test

    def on_test_epoch_start(self) -> None:
        self.evaluation.reset()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Maps, scores and the reconstructed image of a batch, for whoever draws them."""
        output = self(batch["image"])
        anomaly_map, anomaly_score = self.anomaly(output.maps)
        shown = {"anomaly_map": anomaly_map, "anomaly_score": anomaly_score, **self.anomaly.z_scores(output.maps)}
        quality: dict[str, list[float]] = {}
        if (image_recon := self.image_recon(output)) is not None:
            image_recon = image_recon.float()
            shown["image_recon"] = image_recon
            quality = {f.__name__: f(image_recon, batch["image"]).tolist() for f in (losses.psnr, losses.ssim)}
        self.evaluation.update(batch, anomaly_map, anomaly_score, **quality)
        return shown

    def image_recon(self, output: ForwardOutput) -> Tensor | None:
        """The reconstructed image ``(N, 3, H, W)`` in [0, 1], of a model that makes one."""
        return None

    def on_test_epoch_end(self) -> None:
        self.figures = (self.evaluation.compute() if self.evaluation.gather() else {}) | self.measured
        single = {k: v for k, v in self.figures.items() if isinstance(v, float)}
        self.log_dict({f"test/{k}": v for k, v in single.items()} | {"step": float(self.step)}, rank_zero_only=True)

    # Checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[KEY] = {
            "version": VERSION,
            "config": self.config,
            "data": self.data,
            "categories": self.categories,
            "image_size": self.image_size,
            "step": self.step,
            "measured": self.measured,
            "normal": self.normal,
            "defective": self.defective,
            "roi": self.roi,
            "false_alarm_rate": self.false_alarm_rate,
            "trained": self.trained,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = checkpoint[KEY]
        self.step, self.measured, self.normal = own["step"], own["measured"], own["normal"]
        self.defective, self.roi = own["defective"], own["roi"]
        self.false_alarm_rate, self.trained = own["false_alarm_rate"], own["trained"]
        self.categories, self.image_size = own["categories"], own["image_size"]
        self.config, self.data = own["config"], own["data"]
