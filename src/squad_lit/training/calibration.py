"""What normal validation images, which were not trained on, tell of a model, without a label of the test set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from squad_lit.metric import auroc, average_precision
from squad_lit.synthesis.contract import ImageSynthesis, corrupt
from squad_lit.training.distributed import gather, share
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
            corrupted: The output for images with a synthetic anomaly.
            clean: Their features ``{group: (N * T, C, H, W)}`` before the corruption, in T tiles per image.
            mask: ``(N * T, 1, H, W)``, 1 where the tiles were changed.
        """

    def compute(self) -> dict[str, Any]:
        """The figures by name, plain values."""
        return {}


class Calibrator:
    """Collects what a calibration needs, batch by batch; with several processes each sees a part of the images.

    There is one forward pass per image, and one per corrupted image. Raw maps wait in the memory of the CPU until their
    scale is known. The synthetic anomalies depend on the seed of the model and the index of the image alone.

    Args:
        detector: The model, in evaluation mode; it stays as it is.
        synthesis: Makes the synthetic anomalies.
        count: How many images there are in all batches of all processes.
    """

    def __init__(self, detector: Detector, synthesis: ImageSynthesis, count: int) -> None:
        self.detector, self.synthesis = detector, synthesis
        self._every, self._copies = math.ceil(count / _MOST), math.ceil(_LEAST / count)
        self._measure = detector.measure()
        self._rows: dict[int, _Row] = {}
        inside = detector.anomaly.inside
        self._inside = None if inside is None else inside.cpu()

    @torch.inference_mode()
    def update(self, batch: Mapping[str, Any]) -> None:
        """Look at normal images that were not trained on, and at some of them with synthetic anomalies.

        Args:
            batch: ``image`` ``(N, 3, H, W)`` in [0, 1], ``index`` ``(N,)`` and ``category``, N texts; on any device.
        """
        device, index = self.detector.device, batch["index"].tolist()
        output: ForwardOutput = self.detector(batch["image"].to(device))
        self._measure.observe(output)
        rows = [_Row(maps, []) for maps in _unbind(output.maps)]
        self._rows |= zip(index, rows, strict=True)
        chosen = [i for i, number in enumerate(index) if number % self._every == 0]
        if not chosen:
            return
        grid = self.detector.grid(batch["image"].shape[-2:])
        clean = {g: f.unflatten(0, (-1, len(grid)))[chosen].flatten(0, 1) for g, f in output.features.items()}
        for copy in range(self._copies):
            image, mask = _corrupt(batch, chosen, copy, self.synthesis, self.detector.seed, self._inside)
            output = self.detector(image.to(device))
            self._measure.compare(output, clean, cut(mask.to(device), grid))
            for i, maps, where in zip(chosen, _unbind(output.maps), mask[:, 0] > 0, strict=True):
                rows[i].corrupted.append((maps, where))

    @torch.inference_mode()
    def compute(self) -> Calibration:
        """The calibration by all images of all processes, the same in each."""
        figures = self._measure.compute()
        rows = gather(self._rows)
        found: Calibration = share(None if rows is None else self._compute([rows[i] for i in sorted(rows)], figures))
        return found

    def _compute(self, rows: Sequence[_Row], figures: dict[str, Any]) -> Calibration:
        mean, std = _moments([row.maps for row in rows], self.detector.anomaly.names, self._part)
        anomaly = deepcopy(self.detector.anomaly)
        anomaly.standardise(mean, std)

        def fuse(maps: Maps) -> tuple[Tensor, float]:
            anomaly_map, score = anomaly({name: m[None].to(self.detector.device) for name, m in maps.items()})
            return anomaly_map[0].cpu(), float(score)

        normal = [fuse(row.maps) for row in rows]
        scores = [score for _, score in normal]
        corrupted = [(*fuse(maps), mask) for row in rows for maps, mask in row.corrupted]
        plain = [score for score, row in zip(scores, rows, strict=True) if row.corrupted]
        label = torch.arange(len(plain) + len(corrupted)) >= len(plain)
        measured = {
            "synthetic_ap": float(
                average_precision(
                    _flat(self._part(m) for m, _, _ in corrupted), _flat(self._part(mask) for _, _, mask in corrupted)
                )
            ),
            "synthetic_auroc": float(auroc(torch.tensor([*plain, *(score for _, score, _ in corrupted)]), label)),
            "normal_score": sum(scores) / len(scores),
        }
        return Calibration(mean, std, scores, [float(self._part(m).max()) for m, _ in normal], measured | figures)

    def _part(self, plane: Tensor) -> Tensor:
        """The pixels of a map ``(H, W)`` that lie in the region of interest."""
        return plane if self._inside is None else plane[self._inside]


def calibrate(detector: Detector, images: Iterable[dict[str, Any]], *, count: int) -> Calibration:
    """Calibrate a model on normal images, in this process alone; the model itself stays as it is.

    Args:
        detector: The model; it computes in evaluation mode.
        images: Batches as of :meth:`Calibrator.update`.
        count: How many images there are in all batches.
    """
    calibrator = Calibrator(detector, detector.synthesis, count)
    with _evaluating(detector):
        for batch in images:
            calibrator.update(batch)
        return calibrator.compute()


class _Row(NamedTuple):
    """The raw maps ``(H, W)`` of an image, and those of each corrupted copy with its mask."""

    maps: Maps
    corrupted: list[tuple[Maps, Tensor]]


def _unbind(maps: Maps) -> list[Maps]:
    """The maps of each image, on the CPU; copies, as a view would keep the whole batch."""
    on_cpu = {name: m.cpu() for name, m in maps.items()}
    return [{name: m[i].clone() for name, m in on_cpu.items()} for i in range(len(next(iter(on_cpu.values()))))]


def _moments(images: Sequence[Maps], names: Sequence[str], part: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each map over all pixels that count: ``(maps,)``, float64."""
    sums = torch.zeros(len(names), 3, dtype=torch.float64)
    for maps in images:
        exact = [part(maps[name]).double() for name in names]
        sums += torch.stack([torch.stack([torch.tensor(m.numel()), m.sum(), m.square().sum()]) for m in exact])
    count, mean = sums[:, 0], sums[:, 1] / sums[:, 0]
    return mean, (sums[:, 2] / count - mean.square()).clamp_min(0).sqrt()


def _corrupt(
    batch: Mapping[str, Any],
    chosen: Sequence[int],
    copy: int,
    synthesis: ImageSynthesis,
    seed: int,
    inside: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The chosen images of a batch, each with a synthetic anomaly, and the masks ``(n, 1, H, W)``, on the CPU."""
    images = [i.permute(1, 2, 0).cpu().numpy() for i in batch["image"]]
    made = []
    for i in chosen:
        kin = [images[j] for j, name in enumerate(batch["category"]) if name == batch["category"][i]]
        rng = np.random.default_rng([seed, 8, int(batch["index"][i]), copy])
        made.append(corrupt(synthesis, images[i], kin, rng, None if inside is None else inside.numpy()))
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


def _flat(parts: Iterable[Tensor]) -> Tensor:
    return torch.cat([part.flatten() for part in parts])
