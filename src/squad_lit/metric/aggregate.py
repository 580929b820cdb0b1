"""The metrics as ``torchmetrics`` classes, which are updated batch by batch in one or several processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from squad_lit.metric import functional, ranking


class _PerImage(Metric):
    """Keeps the score and the ground truth of each image once."""

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    _ndim: int  # dimensions of a batch of scores
    _names = ("score", "label")

    index: list[Tensor]
    score: list[Tensor]
    truth: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name in ("index", "score", "truth"):
            self.add_state(name, [], dist_reduce_fx=None)  # _sync_dist joins them

    def _add(self, score: Tensor, truth: Tensor, index: Tensor | None) -> None:
        ranking.check(score, truth, self._names, self._ndim)
        if self.score and self.score[0].shape[1:] != score.shape[1:]:
            before, now = tuple(self.score[0].shape[1:]), tuple(score.shape[1:])
            raise ValueError(f"{self._names[0]} must keep one size, got {now} after {before}")
        if index is None:
            index = torch.full((len(score),), -1, device=score.device)
        elif (
            not isinstance(index, Tensor)
            or index.shape != score.shape[:1]
            or index.is_floating_point()
            or (index < 0).any()
        ):
            raise ValueError(f"index must be {len(score)} integers of at least 0, got {index}")
        self.score.append(score.detach().float() if score.dtype != torch.float64 else score.detach())
        self.truth.append((truth != 0).to(torch.uint8))  # not every backend gathers booleans
        self.index.append(index.long())

    def _collected(self) -> tuple[list[Tensor], list[Tensor]]:
        """Score and truth of each image, once, ordered by index, or as they came without an index.

        These are views, so that the maps of a test set are in memory only once.
        """
        images: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for index, score, truth in zip(self.index, self.score, self.truth, strict=True):
            for i, s, t in zip(index.tolist(), score, truth, strict=True):
                images.setdefault((i, len(images) if i < 0 else 0), (s, t))
        if not images:
            raise ValueError(f"{type(self).__name__}: nothing to compute from; call update first")
        found = [images[key] for key in sorted(images)]
        return [s for s, _ in found], [t for _, t in found]

    def _sync_dist(self, *args: Any, **options: Any) -> None:
        # Each process gives one tensor of the same type and dimensions, also if it has had no update.
        empty = {"index": torch.zeros(0, dtype=torch.long), "truth": torch.zeros([0] * self._ndim, dtype=torch.uint8)}
        empty["score"] = torch.zeros([0] * self._ndim)
        for name, nothing in empty.items():
            setattr(self, name, [torch.cat(getattr(self, name) or [nothing.to(self.device)])])
        super()._sync_dist(*args, **options)


class ImageMetrics(_PerImage):
    """Image AUROC, average precision and best F1, exact on raw scores.

    With the images' indices, an image that a distributed sampler repeats counts once. ``compute()`` gives
    ``image_auroc``, ``image_ap`` and ``image_f1_max``, which are NaN, with a warning, where undefined.

    Args:
        options: Options of :class:`torchmetrics.Metric`.

    Example:
        >>> metric = ImageMetrics()
        >>> metric.update(torch.tensor([0.1, 0.4]), torch.tensor([0, 0]))
        >>> metric.update(torch.tensor([0.35, 0.8]), torch.tensor([1, 1]))
        >>> {name: round(value.item(), 4) for name, value in metric.compute().items()}
        {'image_auroc': 0.75, 'image_ap': 0.8333, 'image_f1_max': 0.8}
    """

    _ndim = 1

    def update(self, score: Tensor, label: Tensor, index: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            score: ``(N,)``, floating point, finite, of any range; higher is more anomalous.
            label: ``(N,)``, boolean or integer; 0 is normal, any other value is anomalous.
            index: ``(N,)``, positions of the images in the data set; an image whose index came before is ignored.

        Raises:
            ValueError: A shape or dtype is wrong, a score is not finite, or an index is negative.
        """
        self._add(score, label, index)

    def compute(self) -> dict[str, Tensor]:
        """``image_auroc``, ``image_ap`` and ``image_f1_max``, float64 scalars in [0, 1]."""
        score, truth = self._collected()
        return functional.image_metrics(torch.stack(score), torch.stack(truth))


class PixelMetrics(_PerImage):
    """Pixel AUROC, average precision, best F1 and AUPRO, exact on raw maps, at the resolution of the maps.

    All maps must have one size. ``compute()`` gives the keys of :func:`squad_lit.metric.pixel_metrics`. The state takes
    5 bytes per pixel, because maps are float32 and masks uint8.

    Args:
        fpr_limit: See :func:`squad_lit.metric.pixel_metrics`.
        options: Options of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: ``fpr_limit`` is out of range.
    """

    _ndim = 3
    _names = ("anomaly_map", "mask")

    def __init__(self, fpr_limit: float | Sequence[float] = 0.3, **options: Any) -> None:
        super().__init__(**options)
        ranking.check_limits(fpr_limit)
        self.fpr_limit = fpr_limit

    def update(self, anomaly_map: Tensor, mask: Tensor, index: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            anomaly_map: ``(N, H, W)``, floating point, finite, of any range; higher is more anomalous.
            mask: ``(N, H, W)``, boolean or integer; 0 is normal, any other value is anomalous.
            index: ``(N,)``, positions of the images in the data set; an image whose index came before is ignored.

        Raises:
            ValueError: A shape or dtype is wrong, a value is not finite, or an index is negative.
        """
        self._add(anomaly_map, mask, index)

    def compute(self) -> dict[str, Tensor]:
        """The keys of :func:`squad_lit.metric.pixel_metrics`: float64 scalars in [0, 1]."""
        return functional.pixel_metrics(*self._collected(), fpr_limit=self.fpr_limit)
