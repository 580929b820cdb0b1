"""What normal validation images, which were not trained on, tell of a model, without a label of the test set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from squad_lit.metric import auroc, average_precision
from squad_lit.synthesis.contract import ImageSynthesis
from squad_lit.training.forward import ForwardOutput, cut

if TYPE_CHECKING:
    from squad_lit.training.detector import Detector

# At most so many images are corrupted; where there are few, each is corrupted several times to make at least so many.
# With one synthetic anomaly per image the measures on five images were chance.
_MOST, _LEAST = 64, 32

Maps = dict[str, Tensor]


@dataclass(frozen=True)
class Calibration:
    """The scale of a model's maps, and how the model does on normal images and on synthetic anomalies.

    Args:
        mean: ``(maps,)``, float64: mean of each raw map over all pixels of the normal images.
        std: ``(maps,)``, float64: the standard deviations.
        scores: Anomaly score of each normal image, on that scale.
        maxima: Highest pixel of the anomaly map of each normal image.
        measured: ``synthetic_ap`` (Pixel AP on synthetic anomalies), ``synthetic_auroc`` (of the image score, normal
            against corrupted images), ``normal_score`` (mean score of the normal images, in deviations), and what the
            model's :class:`Measure` adds.
    """

    mean: Tensor
    std: Tensor
    scores: list[float]
    maxima: list[float]
    measured: dict[str, Any]


class Measure:
    """What a model measures during a calibration beside its maps; this one measures nothing.

    To measure more, a model returns an object of a subclass from ``Detector.measure``. Each calibration makes a new
    one, so that it may collect what it is given.
    """

    def observe(self, output: ForwardOutput) -> None:
        """Take the output for a batch of normal images."""

    def compare(self, corrupted: ForwardOutput, clean: Mapping[str, Tensor], mask: Tensor) -> None:
        """Take the output for corrupted images.

        Args:
            corrupted: Of images with a synthetic anomaly.
            clean: Their features ``{group: (N * T, C, H, W)}`` before the corruption, in T tiles per image.
            mask: ``(N * T, 1, H, W)``, 1 where the tiles were changed.
        """

    def compute(self) -> dict[str, Any]:
        """The figures by name, plain values."""
        return {}


@torch.inference_mode()
def calibrate(
    detector: Detector, images: Iterable[dict[str, Any]], synthesis: ImageSynthesis, *, count: int
) -> Calibration:
    """Calibrate a model on normal images; the model itself stays as it is.

    There is one forward pass per image, and one per corrupted image. Raw maps wait in the memory of the CPU until their
    scale is known. The synthetic anomalies depend on the seed of the model and the index of the image alone.

    Args:
        detector: The model; it computes in evaluation mode.
        images: Batches of normal images that were not trained on, on any device: ``image`` ``(N, 3, H, W)`` in [0, 1],
            ``index`` ``(N,)`` and ``category``, N texts.
        synthesis: Makes the synthetic anomalies.
        count: How many images there are in all batches.
    """
    every, copies = math.ceil(count / _MOST), math.ceil(_LEAST / count)
    measure = detector.measure()
    index: list[int] = []
    normal: list[Maps] = []
    corrupted: list[Maps] = []
    masks: list[Tensor] = []
    with _evaluating(detector):
        for batch in images:
            output: ForwardOutput = detector(batch["image"].to(detector.device))
            measure.observe(output)
            normal.append(_to(output.maps, "cpu"))
            index += batch["index"].tolist()
            chosen = [i for i, number in enumerate(batch["index"].tolist()) if number % every == 0]
            if not chosen:
                continue
            grid = detector.grid(batch["image"].shape[-2:])
            clean = {g: f.unflatten(0, (-1, len(grid)))[chosen].flatten(0, 1) for g, f in output.features.items()}
            for copy in range(copies):
                image, mask = _corrupt(batch, chosen, copy, synthesis, detector.seed)
                output = detector(image.to(detector.device))
                measure.compare(output, clean, cut(mask.to(detector.device), grid))
                corrupted.append(_to(output.maps, "cpu"))
                masks.append(mask[:, 0] > 0)
        figures = measure.compute()
    mean, std = _moments(normal, detector.anomaly.names)
    anomaly = deepcopy(detector.anomaly)
    anomaly.standardise(mean, std)
    scores: list[float] = []
    maxima: list[float] = []
    for maps in normal:
        anomaly_map, anomaly_score = anomaly(_to(maps, detector.device))
        scores += anomaly_score.tolist()
        maxima += anomaly_map.flatten(1).max(1).values.tolist()
    found = [tuple(part.cpu() for part in anomaly(_to(maps, detector.device))) for maps in corrupted]
    plain = torch.tensor([score for i, score in zip(index, scores, strict=True) if i % every == 0])
    score = torch.cat([plain, *(s for _, s in found)])
    label = torch.arange(len(score)) >= len(plain)
    measured = {
        "synthetic_ap": float(average_precision(_flat(m for m, _ in found), _flat(masks))),
        "synthetic_auroc": float(auroc(score, label)),
        "normal_score": sum(scores) / len(scores),
    }
    return Calibration(mean, std, scores, maxima, measured | figures)


def _moments(batches: Sequence[Maps], names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each map over all pixels: ``(maps,)``, float64."""
    sums = torch.zeros(len(names), 3, dtype=torch.float64)
    for maps in batches:
        exact = [maps[name].double() for name in names]
        sums += torch.stack([torch.stack([torch.tensor(m.numel()), m.sum(), m.square().sum()]) for m in exact])
    count, mean = sums[:, 0], sums[:, 1] / sums[:, 0]
    return mean, (sums[:, 2] / count - mean.square()).clamp_min(0).sqrt()


def _corrupt(
    batch: dict[str, Any], chosen: Sequence[int], copy: int, synthesis: ImageSynthesis, seed: int
) -> tuple[Tensor, Tensor]:
    """The chosen images of a batch, each with a synthetic anomaly, and the masks ``(n, 1, H, W)``, on the CPU."""
    images = [i.permute(1, 2, 0).cpu().numpy() for i in batch["image"]]
    made = []
    for i in chosen:
        kin = [images[j] for j, name in enumerate(batch["category"]) if name == batch["category"][i]]
        made.append(synthesis(images[i], kin, np.random.default_rng([seed, 8, int(batch["index"][i]), copy])))
    image = torch.stack([torch.from_numpy(changed).permute(2, 0, 1) for changed, _ in made])
    return image, torch.stack([torch.from_numpy(mask)[None] for _, mask in made]).float()


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards the mode of before."""
    training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(training)


def _to(maps: Maps, device: torch.device | str) -> Maps:
    return {name: m.to(device) for name, m in maps.items()}


def _flat(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])
