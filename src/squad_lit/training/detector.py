"""What every model shares: a forward pass over images or their tiles, and what Lightning asks for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import lightning as L
import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.sample import AnomalyDataset
from squad_lit.image.roi import decode, encode, scaled
from squad_lit.image.tile import AT_ONCE, Grid
from squad_lit.network import loss as losses
from squad_lit.network.anomaly import Anomaly
from squad_lit.network.contract import FeatureExtractor
from squad_lit.network.patch_memory import PatchMemory
from squad_lit.synthesis.contract import ImageSynthesis
from squad_lit.system.option import Count, Side, checked
from squad_lit.system.progress import progress
from squad_lit.training.calibration import Calibration, Calibrator, Measure
from squad_lit.training.checkpoint import State
from squad_lit.training.chunk import chunks_ahead
from squad_lit.training.forward import ForwardOutput, cut, merge_tiles

# At a larger share nearly all of the work is done again and again.
Overlap = Annotated[float, Field(ge=0, le=0.9)]


class Detector(L.LightningModule):
    """A frozen backbone and maps on one scale. A model adds :meth:`forward_tile` and its training.

    Args:
        backbone: Makes the frozen feature pyramid from ``groups``.
        groups: For each group of features the strides of its layers, in pixels.
        anomaly: Makes the anomaly map from the names of the raw maps.
        maps: These names.
        synthesis: Makes the synthetic anomalies of the validation.
        steps: Length of the training, in batches.
        seed: Seed of everything random.
        tile: Side in pixels of the square tiles in which images are processed; None processes whole images.
        tile_overlap: Least overlap of neighbouring tiles as a share of their side, in [0, 0.9].

    Raises:
        ValueError: A number is out of range, or the strides do not divide the side of a tile.
    """

    state: State
    """What a checkpoint keeps besides the weights."""
    local_batch: int
    """Images that a training step looks at, in this process; set when the training starts."""

    @checked
    def __init__(
        self,
        *,
        backbone: Callable[..., FeatureExtractor],
        groups: Mapping[str, Sequence[int]],
        anomaly: Callable[..., Anomaly],
        maps: Sequence[str],
        synthesis: ImageSynthesis,
        steps: Count,
        seed: int,
        tile: Side | None = None,
        tile_overlap: Overlap = 0.0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.backbone = backbone(groups=groups)
        self.anomaly = anomaly(names=maps)
        self.synthesis, self.steps, self.seed = synthesis, steps, seed
        self.tile, self.tile_overlap = tile, tile_overlap
        self._check_tile()
        self.state = State()
        self._values: dict[str, Tensor | float] = {}

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
    def multiple(self) -> int:
        """What the sides of whole images must be multiples of, in pixels; tiles may be anywhere."""
        return max(self.backbone.stride.values()) if self.tile is None else 1

    @property
    def tile_size(self) -> list[int]:
        """Height and width of what is looked at at a time: a tile, or the image."""
        return list(self.grid(self.state.image_size).tile)

    def predict(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised ``anomaly_map`` ``(N, H, W)`` and ``anomaly_score`` ``(N,)`` of images ``(N, 3, H, W)``."""
        return self.anomaly(self(image).maps)

    def check_data(self, categories: Sequence[str], image_size: Sequence[int]) -> None:
        """Check that a data set fits, before anything is computed.

        Raises:
            ValueError: Sides that the strides do not divide, or data that a trained model was not made for.
        """
        if any(side % self.multiple for side in image_size):
            nearest = [_nearest(side, self.multiple) for side in image_size]
            raise ValueError(
                f"dataset.image_size: expected multiples of {self.multiple} px for groups {self.backbone.groups}, "
                f"got {list(image_size)}; the nearest are {nearest}"
            )
        if self.tile is not None and self.tile > min(image_size):
            stride = max(self.backbone.stride.values())
            largest = min(image_size) // stride * stride or "null"
            raise ValueError(
                f"model.tile: expected at most the smaller side of dataset.image_size={list(image_size)}, "
                f"got {self.tile}; the nearest is {largest}"
            )
        if self.state.step == 0:
            return
        if list(image_size) != self.state.image_size:
            raise ValueError(
                f"this checkpoint was trained at image size {self.state.image_size}; set dataset.image_size to it "
                f"(got {list(image_size)})"
            )
        if unknown := sorted(set(categories) - set(self.state.categories)):
            raise ValueError(
                f"this checkpoint was trained on {self.state.categories}; it knows nothing of {unknown}: "
                f"set dataset.category"
            )

    def training_batches(self, data: AnomalyDataModule) -> Iterable[Any]:
        """The batches of a training, made from normal images.

        The data module calls it once per fit, when the model is on its device. This one gives a single batch, which is
        the data set itself, to be read by :meth:`tiles`. A model with other batches calls it first.

        Args:
            data: The data module. Its ``train_set`` holds the images, and a checkpoint keeps its ``categories`` and
                ``image_size``.

        Returns:
            An iterable. Each pass over it, which is an epoch to Lightning, gives the batches from ``state.step`` to the
            next validation.
        """
        if len(data.val_set) == 0:
            raise ValueError(
                "there is no normal hold-out image, so the maps cannot be standardised; "
                "set dataset.validation_fraction above 0 (it is taken from the normal training images)"
            )
        self.state.categories, self.state.image_size = list(data.categories), list(data.image_size)
        self.state.roi = encode(data.roi)
        self.look_at_region()
        self.local_batch = len(data.train_set)
        whole: Any = [data.train_set]
        return DataLoader(whole, batch_size=None)  # Lightning would take a list for several loaders

    def _check_tile(self) -> None:
        stride = max(self.backbone.stride.values())
        if self.tile is not None and self.tile % stride:
            raise ValueError(
                f"tile: expected null or a multiple of {stride} px for groups {self.backbone.groups}, got {self.tile}; "
                f"the nearest is {_nearest(self.tile, stride)}"
            )

    def tiles(self, images: AnomalyDataset, what: str) -> Iterator[Tensor]:
        """Images, whole or all of their tiles, some at a time, with a progress bar.

        Args:
            images: N images.
            what: What is done with them; the bar says it.

        Returns:
            ``(n, 3, H, W)`` on the device of the model, image by image.
        """
        grid = self.grid(images[0]["image"].shape[-2:])

        def tile(number: int) -> Tensor:
            image: Tensor = images[number // len(grid)]["image"]
            return image[:, *grid.windows[number % len(grid)]].contiguous()  # the large image may go

        total = len(images) * len(grid)
        with progress(total=total, desc=what, unit="image", leave=False, disable=not self.shows_progress) as bar:
            for chunk in chunks_ahead(tile, total, self.device):
                yield chunk.to(self.device)
                bar.update(len(chunk))

    @property
    def shows_progress(self) -> bool:
        """Whether this process has a progress bar."""
        return self.trainer.is_global_zero and self.trainer.progress_bar_callback is not None

    def fit_backbone(self, images: AnomalyDataset) -> None:
        """Fit the scale of the features on normal images, in the region of interest."""
        inside, tiles = self.inside_tiles(), self.tiles(images, "features")
        if inside is None:
            self.backbone.fit(tiles)
        else:
            self.backbone.fit(tiles, inside)  # type: ignore[call-arg]

    def remember(self, memory: PatchMemory, images: AnomalyDataset) -> None:
        """Fill a memory with patches of normal images."""
        tiles = len(self.grid(images[0]["image"].shape[-2:]))
        hidden = not self.shows_progress or memory.selection == "random"
        with (
            torch.no_grad(),
            progress(total=memory.patches, desc="coreset", unit="patch", leave=False, disable=hidden) as bar,
        ):
            features = map(self.backbone, self.tiles(images, "memory"))
            memory.fill(features, len(images), self.seed, bar.update, tiles=tiles, inside=self.inside_tiles())

    def log_at_end_of_step(self, values: Mapping[str, Tensor | float]) -> None:
        """Log values when this training step ends, under ``state.step``.

        Lightning counts the steps of a process, and lacks the one in which an earlier run was interrupted.
        """
        self._values |= values

    def on_train_batch_end(self, *_: Any) -> None:
        if not self._values:
            return
        tensors = {name: value for name, value in self._values.items() if isinstance(value, Tensor)}
        numbers = torch.stack(list(tensors.values())).tolist() if tensors else []  # one wait for the device
        self.log_now(self._values | dict(zip(tensors, numbers, strict=True)))
        self._values = {}

    def log_now(self, values: Mapping[str, Tensor | float], **options: bool) -> None:
        """Log values under ``state.step``, at once: what is logged is not lost if the process is killed.

        Lightning's own way adds its number of the epoch, which a training that was interrupted counts otherwise.

        Args:
            values: By name.
            options: Those of :meth:`lightning.LightningModule.log_dict`.
        """
        self.log_dict(values, logger=False, **options)  # type: ignore[arg-type]
        for logger in self.loggers:
            logger.log_metrics(values, self.state.step)  # type: ignore[arg-type]
            logger.save()

    # Validation

    def on_validation_epoch_start(self) -> None:
        loader = self.trainer.val_dataloaders
        self._calibrator = Calibrator(self, self.synthesis, len(loader.dataset))  # type: ignore[union-attr]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collect what a calibration needs of normal images that are not trained on."""
        self._calibrator.update(batch)

    def on_validation_epoch_end(self) -> None:
        found = self._calibrator.compute()
        del self._calibrator  # it holds the maps of all images
        self.take(found)
        if not self.trainer.sanity_checking:
            self.log_now({f"val/{name}": value for name, value in found.measured.items() if isinstance(value, float)})

    def take(self, found: Calibration) -> None:
        """Standardise the maps by a calibration, and keep what it found."""
        self.anomaly.standardise(found.mean, found.std)
        self.state.normal_scores, self.state.normal_maxima = found.scores, found.maxima
        self.state.measured = found.measured

    def measure(self) -> Measure:
        """A new collector of what a calibration measures beside the maps; a model that measures more overrides this."""
        return Measure()

    # Test

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Maps and scores of a batch, the reconstructed image and its quality; callbacks measure and draw them.

        Returns:
            ``anomaly_map`` ``(N, H, W)``, ``anomaly_score`` ``(N,)``, each map by name ``(N, H, W)``, in deviations
            from normal, and, of a model that makes one, ``image_recon`` ``(N, 3, H, W)``, ``psnr`` and ``ssim``
            ``(N,)``.
        """
        output = self(batch["image"])
        anomaly_map, anomaly_score = self.anomaly(output.maps)
        found = {"anomaly_map": anomaly_map, "anomaly_score": anomaly_score, **self.anomaly.z_scores(output.maps)}
        if (image_recon := self.image_recon(output)) is not None:
            found["image_recon"] = image_recon = image_recon.float()
            inside = self.anomaly.inside
            seen = image_recon if inside is None else torch.where(inside, image_recon, batch["image"])
            found |= {f.__name__: f(seen, batch["image"]) for f in (losses.psnr, losses.ssim)}
        return found

    def image_recon(self, output: ForwardOutput) -> Tensor | None:
        """The reconstructed image ``(N, 3, H, W)`` in [0, 1], of a model that makes one."""
        return None

    # Checkpoint

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.state.save(checkpoint)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.state = State.load(checkpoint)
        self.look_at_region()

    # Region of interest

    def look_at_region(self) -> None:
        """Let what is looked at be the region of ``state.roi``."""
        roi = decode(self.state.roi)
        self.anomaly.look_at(None if roi is None else torch.from_numpy(scaled(roi, self.state.image_size)))

    def inside_tiles(self) -> Tensor | None:
        """Which pixels of each tile, or of the image, lie in the region of interest: ``(T, 1, H, W)``; None: all."""
        if self.anomaly.inside is None:
            return None
        return cut(self.anomaly.inside[None, None].float(), self.grid(self.state.image_size))


def _nearest(side: int, multiple: int) -> int:
    """The nearest multiple that is not 0; of two that are as near the larger one, which loses no detail."""
    return max(1, (2 * side + multiple) // (2 * multiple)) * multiple
