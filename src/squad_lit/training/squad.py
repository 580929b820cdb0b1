"""The LightningModule: generator and discriminators, with manual optimisation, from a pool of cached features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Subset

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.image.tile import AT_ONCE
from squad_lit.network import loss as losses
from squad_lit.network.anomaly import Anomaly, residual_maps
from squad_lit.network.contract import FeatureExtractor
from squad_lit.network.generator import Generator
from squad_lit.network.patch_memory import PatchMemory
from squad_lit.system.console import uninterrupted
from squad_lit.system.option import Count, Positive, Share, Side, Weight, checked
from squad_lit.training.calibration import Measure
from squad_lit.training.detector import Detector, Overlap
from squad_lit.training.forward import ForwardOutput, blend
from squad_lit.training.graph import Graph
from squad_lit.training.measure import ReconstructionMeasure
from squad_lit.training.pool import Batch, FeaturePool

# Logit of what lies outside of the region of interest, in which an unmarked defect is looked for.
_LOWEST = -30.0


class Squad(Detector):
    """SQUAD: a quantised autoencoder of pretrained features with a discriminator.

    A training step takes clean and synthetically corrupted features from the pool. It makes one forward pass, one
    backward pass over the sum of all losses, and one step of each optimiser. The generator has an optimiser, and the
    discriminators share another one. The discriminators see the reconstruction detached, unless ``stop_gradient`` is
    False. ``state.step`` counts the steps, because Lightning's ``global_step`` counts those of both optimisers.

    Args:
        backbone: Makes the frozen feature pyramid from ``groups``.
        groups: For each group of features the strides of its layers, in pixels.
        generator: Makes the generator from ``channels`` and ``strides`` of the backbone's groups.
        segmentation: Makes the segmentation discriminator from ``channels`` (see :mod:`squad_lit.network.contract`), or
            None.
        patch: The adversarial discriminator of images, or None.
        anomaly: Makes the anomaly map from the names of the raw maps.
        pool: Cached training features.
        steps: Length of the training, in batches.
        validate_every: Steps between validations, each of which calibrates the model and leaves a checkpoint.
        synthetic_fraction: Share of a batch that is corrupted.
        image_every: One of so many images in a batch trains the image decoder, clean and corrupted ones in turn. The
            decoder is for looking, and at full resolution it is the costliest part of a step.
        loss_weight: Weights of the losses ``feature``, ``image``, ``focal``, ``dice`` and ``adversarial``, at least 0.
        easy_share: Share of the cells of each image, those that are rebuilt best, whose gradient of the feature loss
            counts a tenth; see :func:`squad_lit.network.loss.feature_loss`.
        focal_gamma: Exponent of the focal loss, at least 0; 0 makes it binary cross-entropy.
        stop_gradient: Whether the loss of the segmentation discriminator stops before the generator, which would
            otherwise learn to make the discriminator's task easy.
        adversarial_start: Share of the steps, in [0, 1], before the adversarial loss starts.
        optimizer: Makes an optimiser from parameters.
        scheduler: Makes a schedule from an optimiser and ``total_steps``.
        gradient_clip: Largest norm of each optimiser's gradient.
        seed: Seed of everything random in the training.
        memory: Makes a memory of patches from ``channels``, or None. The distances to its patches are one more map, and
            a group ``memory`` of one channel for the segmentation discriminator, whose reconstruction is 0. In training
            the patches of the same image do not count, since each image would find itself.
        cuda_graph: Whether one GPU replays the step as a CUDA graph, if the quantiser allows it. False launches each
            kernel, which is easier to debug.
        tile: Side in pixels of the square tiles in which images are processed; None processes whole images.
        tile_overlap: Least overlap of neighbouring tiles as a share of their side, in [0, 0.9].

    Raises:
        ValueError: A number is out of range, or a loss is not known or has no weight.
    """

    @checked
    def __init__(
        self,
        *,
        backbone: Callable[..., FeatureExtractor],
        groups: Mapping[str, Sequence[int]],
        generator: Callable[..., Generator],
        segmentation: Callable[..., nn.Module] | None,
        patch: nn.Module | None,
        anomaly: Callable[..., Anomaly],
        pool: FeaturePool,
        steps: Count,
        validate_every: Count,
        synthetic_fraction: Share,
        image_every: Count,
        loss_weight: Mapping[str, Weight],
        easy_share: Share,
        focal_gamma: Weight,
        stop_gradient: bool,
        adversarial_start: Share,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler],
        gradient_clip: Positive,
        seed: int,
        memory: Callable[..., PatchMemory] | None = None,
        cuda_graph: bool = True,
        tile: Side | None = None,
        tile_overlap: Overlap = 0.0,
    ) -> None:
        known = {"feature", "image", "focal", "dice", "adversarial"}
        if set(loss_weight) != known:
            raise ValueError(f"loss_weight: expected weights for {sorted(known)}, got {dict(loss_weight)}")
        if loss_weight["feature"] == 0:
            raise ValueError("loss_weight.feature: expected more than 0: without it no feature is reconstructed")
        if memory and "memory" in groups:
            raise ValueError("groups: 'memory' is the group of the memory's distances; choose another name")
        super().__init__(
            backbone=backbone,
            groups=groups,
            anomaly=anomaly,
            maps=[
                *(f"residual_{group}" for group in groups),
                *(["discriminator"] if segmentation else []),
                *(["memory"] if memory else []),
            ],
            synthesis=pool.synthesis,
            steps=steps,
            seed=seed,
            tile=tile,
            tile_overlap=tile_overlap,
        )
        self.generator = generator(channels=self.backbone.channels, strides=self.backbone.stride)
        judged = dict(self.backbone.channels) | ({"memory": 1} if memory else {})
        self.segmentation = segmentation(channels=judged) if segmentation else None
        self.patch = patch
        self.memory = memory(self.backbone.channels) if memory else None
        for part in (self.generator, self.segmentation):
            if part is not None:  # a tenth faster on a CPU
                part.to(memory_format=torch.channels_last)
        self.pool = pool
        self.validate_every = validate_every
        self.synthetic_fraction = synthetic_fraction
        self.image_every, self.stop_gradient = image_every, stop_gradient
        self.easy_share, self.focal_gamma = easy_share, focal_gamma
        self.loss_weight, self.adversarial_start = dict(loss_weight), adversarial_start
        self.make_optimizer, self.make_scheduler, self.gradient_clip = optimizer, scheduler, gradient_clip
        self.cuda_graph = cuda_graph

    def forward_tile(self, image: Tensor) -> ForwardOutput:
        features = self.backbone(image)
        recon = self.generator(features)
        maps, beside = residual_maps(features, recon.feature_recon), self._beside(features)
        if self.segmentation is not None:
            maps["discriminator"] = self._judge(features | beside, recon.feature_recon)
        return ForwardOutput(self.anomaly.prepare(maps | beside, image.shape[-2:]), features, recon)

    def _judge(self, features: Mapping[str, Tensor], recon: Mapping[str, Tensor]) -> Tensor:
        """Logits of the segmentation discriminator; a group that the generator does not make is expected to be 0."""
        assert self.segmentation is not None
        expected = {g: recon[g] if g in recon else torch.zeros_like(f) for g, f in features.items()}
        logit: Tensor = self.segmentation(features, expected)
        return logit

    def _beside(self, features: dict[str, Tensor], images: Tensor | None = None) -> dict[str, Tensor]:
        """The map of the memory, as a group of features; training images ``(N,)`` by number do not find themselves."""
        if self.memory is None:
            return {}
        with torch.no_grad():
            distance = self.memory(features, images) / self.memory.rows.shape[1] ** 0.5  # of the size of features
        return {"memory": distance if images is None else distance.nan_to_num(posinf=0)}  # the only image there is

    def check_data(self, categories: Sequence[str], image_size: Sequence[int]) -> None:
        super().check_data(categories, image_size)
        side = min(self.grid(image_size).tile)
        # Each layer halves the side, and the last convolution takes one off the 2 that must be left.
        most = side.bit_length() - 2
        layers = getattr(self.patch, "layers", 0)
        if layers > most:
            raise ValueError(
                f"discriminator.patch.layers: expected at most {most} for the {side} px that are looked at, "
                f"got {layers}"
            )

    def image_recon(self, output: ForwardOutput) -> Tensor:
        assert output.recon is not None
        groups = {group: codes.split(AT_ONCE) for group, codes in output.recon.codes.items()}
        parts = [dict(zip(groups, part, strict=True)) for part in zip(*groups.values(), strict=True)]
        tiles = torch.cat([self.generator.image_decoder(part) for part in parts])
        return blend(tiles, self.grid(next(iter(output.maps.values())).shape[-2:]))

    # Training

    def setup(self, stage: str) -> None:
        """With several processes, let those quantisers that learn from a batch learn from all of it."""
        if self.trainer.world_size > 1:
            for quantizer in self.generator.quantizer.values():
                if synchronise := getattr(quantizer, "synchronise", None):
                    synchronise()

    def configure_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[Any]]:
        judges = [p for d in (self.segmentation, self.patch) if d is not None for p in d.parameters()]
        sets = [list(self.generator.parameters())] + ([judges] if judges else [])
        optimizers = [self.make_optimizer(params) for params in sets]
        return optimizers, [self.make_scheduler(o, total_steps=self.steps) for o in optimizers]

    def training_batches(self, data: AnomalyDataModule) -> Iterable[Batch]:
        super().training_batches(data)
        world, rank, images = self.trainer.world_size, self.global_rank, data.train_set
        self.local_batch = max(1, data.batch_size // world)
        synthetic = round(self.synthetic_fraction * self.local_batch)
        if self.synthetic_fraction > 0 and synthetic == 0:
            raise ValueError(
                f"model.synthetic_fraction={self.synthetic_fraction} of a batch of {self.local_batch} is no image; "
                f"raise it or dataset.batch_size, or set it to 0"
            )
        if self.state.step == 0:
            self.fit_backbone(images)
            if self.memory is not None:
                with self.trainer.precision_plugin.forward_context():  # as where its distances are computed
                    self.remember(self.memory, images)
        self.pool.attach(
            Subset(images, range(rank % len(images), len(images), world)),  # each process has its share of the images
            self.backbone,
            self.grid(self.state.image_size),
            seed=self.seed + 7919 * rank,
            device=self.device,
            processes=world,
            show=self.shows_progress,
            known=data.known_set,
            roi=self.anomaly.inside,
            beside=lambda features, numbers: self._beside(features, rank % len(images) + world * numbers),
        )
        captured = self.captures
        self._losses_and_gradients = Graph(self, self._backward) if captured else self._backward
        self._diverged_at = torch.full((), self.steps, device=self.device)
        # A CUDA graph has one shape, and DDP waits for a gradient of each weight in each step.
        every = min(self.image_every, self.local_batch) if captured or world > 1 else self.image_every
        return _Epochs(self, clean=self.local_batch - synthetic, synthetic=synthetic, image_every=every)

    @property
    def captures(self) -> bool:
        """Whether the step is captured as a CUDA graph: on one GPU, unless a quantiser waits for it."""
        quantizers = self.generator.quantizer.values()
        alone = self.device.type == "cuda" and self.trainer.world_size == 1
        return self.cuda_graph and alone and all(getattr(q, "capturable", True) for q in quantizers)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        step = self.state.step
        # Everything random below is a function of the step, so that a resumed run meets the same numbers.
        torch.manual_seed(self.seed * 1_000_003 + step * 64 + self.global_rank)
        adversarial = step >= self.adversarial_start * self.steps and self.loss_weight["adversarial"] > 0
        log = self._losses_and_gradients(batch, adversarial)
        self._diverged_at = torch.where(log["loss"].isfinite(), self._diverged_at, self._diverged_at.clamp(max=step))
        optimizers = _as_list(self.optimizers())
        with uninterrupted():
            self._optimise(optimizers)
            for scheduler in _as_list(self.lr_schedulers()):
                scheduler.step()
            self.state.step = step + 1
        if self.state.step % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._check_finite()
            names = ("generator", "discriminator")[: len(optimizers)]
            rates = {f"lr/{n}": o.param_groups[0]["lr"] for n, o in zip(names, optimizers, strict=True)}
            self.log_at_end_of_step({f"train/{name}": value for name, value in (log | rates).items()})
        if self.state.step == self.steps:
            self.trainer.should_stop = True

    def _optimise(self, optimizers: Sequence[LightningOptimizer]) -> None:
        """Clip the gradients of each optimiser, and make its step."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        raw = [optimizer.optimizer for optimizer in optimizers]
        for optimizer in raw:
            if scaler is not None:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], self.gradient_clip)
        if scaler is None:
            for counted in optimizers:
                counted.step()
            return
        # Lightning would change the scale after each optimiser, and refuses to clip gradients of a fused one.
        for optimizer in raw:
            scaler.step(optimizer)
        scaler.update()

    def on_validation_epoch_start(self) -> None:
        if self.trainer.state.fn == "fit":
            self._check_finite()  # before a checkpoint takes the place of the last good one
        super().on_validation_epoch_start()

    def on_fit_end(self) -> None:
        self.pool.close()

    def _check_finite(self) -> None:
        """Fail if a loss was not finite; each step notes it on its device, and here it is read."""
        if (step := int(self._diverged_at)) < self.steps:
            raise FloatingPointError(
                f"the loss became infinite or nan at step {step}; lower model.optimizer.lr or model.gradient_clip"
            )

    def _backward(self, batch: Batch, adversarial: bool) -> dict[str, Tensor]:
        """The gradients of all losses.

        Returns:
            The losses by name, detached; ``loss`` is their weighted sum.
        """
        log: dict[str, Tensor] = {}
        recon = self.generator(batch["features"])
        total = self.loss_weight["feature"] * self._feature_terms(batch, recon.feature_recon, log) + recon.loss
        if len(batch["shown"]):
            total = total + self._image_terms(batch, recon.codes, adversarial, log)
        if self.segmentation is not None:
            total = total + self._mask_terms(batch, recon.feature_recon, log)
        if not isinstance(self._losses_and_gradients, Graph):
            for optimizer in _as_list(self.optimizers(use_pl_optimizer=False)):  # the module has 250 weights more
                optimizer.zero_grad()
        self.manual_backward(total)
        return log | {"loss": total.detach()}

    def _feature_terms(self, batch: Batch, recon: Mapping[str, Tensor], log: dict[str, Tensor]) -> Tensor:
        terms = []
        for group, found in recon.items():
            weight = _shrunk(batch["learned"], found) if "learned" in batch else None
            target = batch["target"][group]
            terms.append(losses.feature_loss(found, target, easy_share=self.easy_share, weight=weight))
            log[f"feature/{group}"] = terms[-1].detach()
        return torch.stack(terms).sum()

    def _image_terms(
        self, batch: Batch, codes: Mapping[str, Tensor], adversarial: bool, log: dict[str, Tensor]
    ) -> Tensor:
        image = batch["image"]
        recon = self.generator.image_decoder({g: c[batch["shown"]] for g, c in codes.items()})
        if "shown_learned" in batch:  # elsewhere there is nothing to rebuild
            recon = torch.where(batch["shown_learned"], recon, image)
        term = losses.image_loss(recon, image)
        log["image"] = term.detach()
        total = self.loss_weight["image"] * term
        if self.patch is None:
            return total
        real, fake = self.patch(image), self.patch(recon.detach())
        judge = losses.hinge_discriminator_loss(real, fake)
        log["patch"] = judge.detach()
        if adversarial:
            # The judge's weights are constants here: this term teaches the generator only.
            constants = {name: p.detach() for name, p in self.patch.named_parameters()}
            deceit = -torch.func.functional_call(self.patch, constants, (recon,)).mean()
            weight = losses.adaptive_weight(term, deceit, self.generator.image_decoder.last_layer)
            total = total + self.loss_weight["adversarial"] * weight * deceit
            log |= {"adversarial": deceit.detach(), "adversarial_weight": weight}
        return total + judge

    def _mask_terms(self, batch: Batch, recon: Mapping[str, Tensor], log: dict[str, Tensor]) -> Tensor:
        shown = {g: r.detach() for g, r in recon.items()} if self.stop_gradient else recon
        logit = self._judge(batch["features"], shown)
        target = F.interpolate(batch["mask"], size=logit.shape[-2:], mode="area")
        weight = _shrunk(batch["judged"], logit) if "judged" in batch else None
        focal = losses.focal_loss(logit, target, gamma=self.focal_gamma, weight=weight)
        dice = losses.dice_loss(logit, target, weight=weight)
        log |= {"focal": focal.detach(), "dice": dice.detach()}
        if "unmarked" in batch:
            inside = _shrunk(batch["inside"], logit)
            focal = focal + losses.hidden_defect_loss(torch.where(inside == 1, logit, _LOWEST), batch["unmarked"])
        return self.loss_weight["focal"] * focal + self.loss_weight["dice"] * dice

    def measure(self) -> Measure:
        return ReconstructionMeasure(self.generator, self.pool.plain_features(), self.inside_tiles())


class _Epochs:
    """Each ``iter`` gives the batches up to the next validation, which is an epoch to Lightning."""

    def __init__(self, module: Squad, **parts: int) -> None:
        self.module, self.parts = module, parts

    def __iter__(self) -> Iterator[Batch]:
        module, step = self.module, self.module.state.step
        end = min((step // module.validate_every + 1) * module.validate_every, module.steps)
        return module.pool.batches(step, end, **self.parts)


def _shrunk(weight: Tensor, like: Tensor) -> Tensor:
    """Which cells of another grid lie inside by half: ``(N, 1, H, W) -> (N, 1, h, w)``."""
    return (F.interpolate(weight, size=like.shape[-2:], mode="area") >= 0.5).to(like)


def _as_list(one_or_many: Any) -> list[Any]:
    return list(one_or_many) if isinstance(one_or_many, list | tuple) else [one_or_many]
