"""The test: collects the maps of all test images and turns them into figures."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from pydantic import Field
from torch import Tensor

from squad_lit import metric
from squad_lit.dataset.image import image_size, read_mask, resize
from squad_lit.image.roi import Roi, decode, scaled, shown
from squad_lit.metric.bootstrap import image_bootstrap, interval, pixel_bootstrap, resample
from squad_lit.metric.curve import Curve, thin
from squad_lit.metric.ranking import check_limits
from squad_lit.system.option import checked
from squad_lit.training.detector import Detector
from squad_lit.training.distributed import gather
from squad_lit.training.strip import Strips, strip_order

Rows = list[dict[str, Any]]


class Evaluation(Callback):
    """The test images so far, and the metrics on them: per category, then averaged.

    As a callback of a trainer it collects what the model's ``test_step`` returns. After the test ``figures`` has the
    metrics in the first process and is empty in the others. Maps stay float32 and masks bool, on the CPU, once. An
    image that a distributed sampler repeats counts once (by index).

    With ``thresholds``, those of the score and of the pixels that the deployed model has, the figures include F1,
    precision, recall and false-alarm rate of its decisions.

    Args:
        fpr_limit: Right ends of the per-region-overlap curve, in (0, 1], besides 0.3, which is that of
            ``pixel_aupro``; another one has a key of its own, such as ``pixel_aupro_0.05``.
        resolution: ``map``: pixel metrics at the size of the maps (``dataset.image_size``; what the literature does at
            256), masks reduced by nearest neighbour. ``original``: at the size of each image file, masks as they
            are, maps resized bilinearly.
        bootstrap: Resamples for 95 % bootstrap intervals of the metrics; 0: none.
        seed: Seed of the resamples.

    Raises:
        ValueError: An option out of range.
    """

    @checked
    def __init__(
        self,
        *,
        fpr_limit: float | Sequence[float],
        resolution: Literal["map", "original"] = "map",
        bootstrap: Annotated[int, Field(ge=0, le=10**5)] = 0,
        seed: int = 0,
    ) -> None:
        limits = list(check_limits(fpr_limit).values())
        # One key never means two things: pixel_aupro is at 0.3, as in the benchmark, whatever else is measured.
        fpr_limit = [0.3, *(limit for limit in limits if limit != 0.3)]
        self.fpr_limit, self.resolution, self.resamples, self.seed = fpr_limit, resolution, bootstrap, seed
        self.thresholds: tuple[float, float] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all images and figures."""
        self._rows: dict[int, dict[str, Any]] = {}
        self._roi: Roi | None = None
        self.figures: dict[str, Any] = {}

    def update(
        self, batch: Mapping[str, Any], anomaly_map: Tensor, anomaly_score: Tensor, **extra: Sequence[float] | Tensor
    ) -> None:
        """Add a batch.

        Args:
            batch: Dataset items: ``mask`` (N, 1, H, W), ``label``, ``index``, ``category``, ``defect``, ``image_path``,
                ``mask_path``.
            anomaly_map: ``(N, H, W)``.
            anomaly_score: ``(N,)``.
            extra: A number for each image, averaged over the *normal* images of a category.

        Raises:
            ValueError: A map or a score that is not finite; names the image.
        """
        for i, index in enumerate(batch["index"].tolist()):
            row = {name: batch[name][i] for name in ("category", "defect", "image_path", "mask_path")}
            if not (torch.isfinite(anomaly_map[i]).all() and torch.isfinite(anomaly_score[i])):
                raise ValueError(
                    f"the anomaly map of {row['image_path']} is not finite; the model has diverged or is not trained"
                )
            self._rows[index] = row | {
                # Copies: a view would keep, and send to another process, the batch that it is a part of.
                "map": anomaly_map[i].float().cpu().clone(),
                "mask": batch["mask"][i, 0].bool().cpu().clone(),
                "anomaly_score": float(anomaly_score[i]),
                "label": int(batch["label"][i]),
                "extra": {name: float(values[i]) for name, values in extra.items()},
            }

    def gather(self) -> bool:
        """Bring together, in the first process, what all processes of a distributed test have seen.

        Returns:
            Whether this process has all the images now, and may :meth:`compute`.
        """
        rows = gather(self._rows)
        self._rows = rows or {}
        return rows is not None

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.reset()
        assert isinstance(pl_module, Detector)
        self._roi = decode(pl_module.state.roi)

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        extra = {name: value for name, value in outputs.items() if value.ndim == 1 and name != "anomaly_score"}
        self.update(batch, outputs["anomaly_map"], outputs["anomaly_score"], **extra)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        if self.gather():
            self.figures = self.compute()
        single = {k: v for k, v in (self.figures | pl_module.state.measured).items() if isinstance(v, float)}
        logged = {f"test/{k}": v for k, v in single.items()}
        for category, own in self.figures.get("per_category", {}).items():
            logged |= {f"test/per_category/{category}/{k}": v for k, v in own.items() if isinstance(v, float)}
        pl_module.log_now(logged, rank_zero_only=True)

    def predictions(self) -> Rows:
        """A row for each image, in the order of the data set: path, category, defect, label, score, mask."""
        keys = ("image_path", "category", "defect", "label", "anomaly_score", "mask_path")
        return [{key: row[key] for key in keys} for _, row in sorted(self._rows.items())]

    def compute(self) -> dict[str, Any]:
        """Metrics in [0, 1] of the category or, with several, their means, and ``per_category``.

        Undefined values are NaN, with one warning that names the category and the reason. A mean leaves them out;
        ``categories_averaged`` says how many categories it is over.

        Returns:
            ``image_auroc``, ``image_ap``, ``image_f1_max``, ``pixel_auroc``, ``pixel_ap``, ``pixel_f1_max``,
            ``pixel_aupro`` (and one for each further limit), ``pixel_aupimo``, with thresholds those of
            :func:`squad_lit.metric.image_decisions` and :func:`squad_lit.metric.pixel_decisions`, and the extras. For
            each category also ``per_defect`` (each kind of defect against all normal images) and ``per_region_size``
            (see :func:`squad_lit.metric.pixel_metrics_by_size`), and on request ``interval``.
        """
        rows = self._inspected()
        names = list(dict.fromkeys(row["category"] for row in rows))
        each, draws = {}, {}
        for name in names:
            own = [row for row in rows if row["category"] == name]
            maps, masks = self._maps(own)
            each[name] = self._category(name, own, maps, masks)
            if self.resamples:
                draws[name] = self._resampled(own, maps, masks)
                each[name]["interval"] = interval(draws[name])
        if len(each) == 1:
            return each[names[0]]
        keys = [key for key, value in each[names[0]].items() if isinstance(value, float)]
        values = {key: [figures.get(key, math.nan) for figures in each.values()] for key in keys}
        out: dict[str, Any] = {key: _mean(v) for key, v in values.items()}
        out["categories_averaged"] = {key: sum(not math.isnan(x) for x in v) for key, v in values.items()}
        if draws:
            keys = [key for key in draws[names[0]] if all(key in d for d in draws.values())]
            drawn = {key: torch.stack([d[key] for d in draws.values()]).nanmean(0) for key in keys}
            out["interval"] = interval(drawn)
        return out | {"per_category": each}

    def curves(self) -> dict[str, dict[str, Curve]]:
        """The curves of each category, thinned for keeping; those that are undefined are left out.

        Returns:
            Of each category ``image_roc``, ``image_pr``, ``pixel_roc``, ``pixel_pr`` and ``pixel_pro``.
        """
        rows = self._inspected()
        found: dict[str, dict[str, Curve]] = {}
        for name in dict.fromkeys(row["category"] for row in rows):
            own = [row for row in rows if row["category"] == name]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # compute has said what is undefined
                curves = metric.image_curves(*_scores(own))
                if not _without_mask(own):
                    curves |= metric.pixel_curves(*self._maps(own), fpr_limit=self.fpr_limit[0])
            found[name] = {kind: thin(curve) for kind, curve in curves.items()}
        return found

    def _inspected(self) -> Rows:
        """The rows but those whose defect lies outside of the region of interest: nobody knows if they are good."""
        rows = [row for _, row in sorted(self._rows.items())]
        if self._roi is None or not rows:
            return rows
        inside = torch.from_numpy(scaled(self._roi, rows[0]["map"].shape))
        kept = [row for row in rows if not row["mask"].any() or (row["mask"] & inside).any()]
        if left := len(rows) - len(kept):
            warnings.warn(
                f"{left} defective test images have their defect outside of dataset.roi, and do not count", stacklevel=3
            )
        return kept

    def _category(self, name: str, rows: Rows, maps: Sequence[Tensor], masks: Sequence[Tensor]) -> dict[str, Any]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            figures = self._metrics(rows, maps, masks)
        if caught:
            undefined = [key for key, value in figures.items() if math.isnan(value)]
            reasons = "; ".join(dict.fromkeys(str(c.message).removeprefix(_PREFIX) for c in caught))
            warnings.warn(f"category {name}: {', '.join(undefined)} undefined: {reasons}", stacklevel=2)
        normal = [row["extra"] for row in rows if row["label"] == 0]
        out: dict[str, Any] = figures | {key: _mean([e[key] for e in normal]) for key in rows[0]["extra"]}
        out["per_defect"] = self._per_defect(rows, maps, masks)
        if not _without_mask(rows):
            sizes = metric.pixel_metrics_by_size(maps, masks, fpr_limit=self.fpr_limit)
            out["per_region_size"] = {size: _plain(row) for size, row in sizes.items()}
        return out

    def _metrics(self, rows: Rows, maps: Sequence[Tensor], masks: Sequence[Tensor]) -> dict[str, float]:
        score, label = _scores(rows)
        figures = metric.image_metrics(score, label)
        if self.thresholds:
            figures |= metric.image_decisions(score, label, self.thresholds[0])
        if count := _without_mask(rows):
            warnings.warn(f"{count} anomalous images have no mask", stacklevel=2)
            keys = ("pixel_auroc", "pixel_ap", "pixel_f1_max", *check_limits(self.fpr_limit), "pixel_aupimo")
            return _plain(figures) | dict.fromkeys(keys, math.nan)
        figures |= metric.pixel_metrics(maps, masks, fpr_limit=self.fpr_limit)
        # A defect that was lost when its mask was resized does not make a normal image.
        kept = [i for i, row in enumerate(rows) if row["label"] == 0 or masks[i].any()]
        figures["pixel_aupimo"] = metric.aupimo([maps[i] for i in kept], [masks[i] for i in kept])
        if self.thresholds:
            figures |= metric.pixel_decisions(maps, masks, self.thresholds[1])
        return _plain(figures)

    def _per_defect(self, rows: Rows, maps: Sequence[Tensor], masks: Sequence[Tensor]) -> dict[str, Any]:
        """The metrics of each kind of defect, its images and all the normal ones taken as a test set of their own."""
        out = {}
        for kind in dict.fromkeys(row["defect"] for row in rows if row["label"] != 0):
            at = [i for i, row in enumerate(rows) if row["label"] == 0 or row["defect"] == kind]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # said for the category
                chosen = [rows[i] for i in at]
                figures = self._metrics(chosen, [maps[i] for i in at], [masks[i] for i in at])
            out[kind] = figures | {"images": sum(row["label"] != 0 for row in chosen)}
        return out

    def _resampled(self, rows: Rows, maps: Sequence[Tensor], masks: Sequence[Tensor]) -> dict[str, Tensor]:
        score, label = _scores(rows)
        times = resample(label, self.resamples, seed=self.seed)
        found = image_bootstrap(score, label, times)
        if _without_mask(rows):
            return found
        return found | pixel_bootstrap(maps, masks, times, fpr_limit=self.fpr_limit)

    def _maps(self, rows: Rows) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Maps and masks ``(H, W)`` at the resolution asked for; with a region of interest, of its pixels alone."""
        maps, masks = self._whole_maps(rows)
        if self._roi is None:
            return maps, masks
        size = scaled if self.resolution == "map" else shown
        orders = [strip_order(mask, size(self._roi, mask.shape)) for mask in masks]
        return Strips(maps, orders), [mask.flatten()[order][None] for mask, order in zip(masks, orders, strict=True)]

    def _whole_maps(self, rows: Rows) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        if self.resolution == "map":
            return [row["map"] for row in rows], [row["mask"] for row in rows]
        masks = [
            read_mask(row["mask_path"]).bool()
            if row["mask_path"]
            else torch.zeros((), dtype=torch.bool).expand(image_size(row["image_path"]))
            for row in rows
        ]
        return _Resized([row["map"] for row in rows], [tuple(m.shape) for m in masks]), masks


class _Resized(Sequence[Tensor]):
    """Maps at the sizes of their images, each resized when it is asked for: all at once would take gigabytes."""

    def __init__(self, maps: Sequence[Tensor], sizes: Sequence[tuple[int, ...]]) -> None:
        self.maps, self.sizes = maps, sizes

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, i: Any) -> Any:
        return resize(self.maps[i][None], self.sizes[i])[0]


_PREFIX = "undefined metric, returning NaN: "


def _scores(rows: Rows) -> tuple[Tensor, Tensor]:
    score = torch.tensor([row["anomaly_score"] for row in rows], dtype=torch.float64)
    return score, torch.tensor([row["label"] for row in rows])


def _without_mask(rows: Rows) -> int:
    """Number of anomalous images of which nobody has said where the defect is."""
    return sum(row["label"] != 0 and not row["mask_path"] for row in rows)


def _plain(figures: Mapping[str, Tensor]) -> dict[str, Any]:
    return {key: value.item() for key, value in figures.items()}


def _mean(values: Sequence[float]) -> float:
    """Mean of the defined values; NaN if there is none."""
    defined = [v for v in values if not math.isnan(v)]
    return sum(defined) / len(defined) if defined else math.nan
