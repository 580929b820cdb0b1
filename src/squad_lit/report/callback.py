"""Callbacks that show what a model does: histograms of the levels, curves, and pictures of test images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from squad_lit.deploy.pixel_model import thresholds
from squad_lit.image.picture import Picture, colour_map, message, outline, to_picture
from squad_lit.metric.curve import named
from squad_lit.report.curve import curve_plot
from squad_lit.report.logger import PictureLogger
from squad_lit.report.panel import Panel, choose, name_all
from squad_lit.system.file import write_json, write_picture
from squad_lit.system.option import Natural, Positive, checked
from squad_lit.system.table import write_rows
from squad_lit.training.detector import Detector
from squad_lit.training.distributed import gather
from squad_lit.training.evaluation import Evaluation


def _picture_loggers(trainer: L.Trainer) -> list[PictureLogger]:
    """The loggers that show more than numbers."""
    return [logger for logger in trainer.loggers if isinstance(logger, PictureLogger)]


class LevelHistograms(Callback):
    """Shows, after each validation, how often each level of each scalar of a code occurs (see :mod:`.logger`)."""

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        prefix = "level_histogram/"
        levels = {k.removeprefix(prefix): v for k, v in pl_module.state.measured.items() if k.startswith(prefix)}
        for logger in _picture_loggers(trainer) if levels else []:
            logger.show_levels(levels, pl_module.state.step)


class Curves(Callback):
    """Writes the curves of the test set, some 200 points each, and a picture of them.

    Args:
        folder: Folder for ``curves.json`` and ``curves.png``.
    """

    def __init__(self, *, folder: str) -> None:
        self.folder = Path(folder)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        evaluation = next((c for c in trainer.callbacks if isinstance(c, Evaluation)), None)  # type: ignore[attr-defined]
        if evaluation is None or not trainer.is_global_zero:
            return
        curves = evaluation.curves()
        plain = {cat: {name: named(name, curve) for name, curve in own.items()} for cat, own in curves.items()}
        write_json(self.folder / "curves.json", plain, indent=None)
        if not any(curves.values()):
            return
        write_picture(self.folder / "curves.png", curve_plot(curves))
        for logger in _picture_loggers(trainer):
            logger.show_curves(curves, pl_module.state.step)


class Panels(Callback):
    """Writes pictures of test images: image, mask, residuals, discriminator map, fused map, reconstruction.

    They show the first images of each kind of defect, the normal images with the highest scores and the anomalous ones
    with the lowest. ``panels.csv`` says which is which, and what the threshold of a prediction makes of each.

    Args:
        folder: Folder for ``panels.csv`` and ``panels/<category>_<defect>_<file>.png``.
        per_defect: Number of pictures per category and kind of defect, ``good`` included.
        worst: Number of normal images with the highest scores, and of anomalous ones with the lowest, per category.
        scale: Deviations from normal that have the brightest colour in every picture; the darkest is 0.

    Raises:
        ValueError: A number out of range.
    """

    @checked
    def __init__(self, *, folder: str, per_defect: Natural, worst: Natural, scale: Positive) -> None:
        self.folder, self.scale = Path(folder), scale
        self._number = {"per_defect": per_defect, "worst": worst}

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        self._chosen: list[Panel] = []
        self._threshold = thresholds(pl_module)[0].value if pl_module.state.normal_scores else math.nan

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        scores, labels = outputs["anomaly_score"].tolist(), batch["label"].tolist()
        new = [
            Panel(
                index,
                batch["image_path"][i],
                batch["category"][i],
                batch["defect"][i],
                labels[i],
                scores[i],
                threshold=self._threshold,
            )
            for i, index in enumerate(batch["index"].tolist())
        ]
        self._chosen = choose([*self._chosen, *new], **self._number)
        for i, p in enumerate(new):
            if p.choice:
                p.tiles = self._draw(outputs, batch, i)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Detector)
        found = gather({p.index: p for p in self._chosen})
        if not found:
            return
        panels = choose(found.values(), **self._number)
        name_all(panels)
        (self.folder / "panels").mkdir(parents=True, exist_ok=True)
        for p in panels:
            write_picture(self.folder / "panels" / p.name, p.picture())
        write_rows(self.folder / "panels.csv", [p.row() for p in panels])
        for logger in _picture_loggers(trainer):
            logger.show_panels(panels, pl_module.state.step)

    def _draw(self, outputs: dict[str, Any], batch: dict[str, Any], i: int) -> dict[str, Picture]:
        image, mask = batch["image"][i].cpu().numpy(), batch["mask"][i, 0].cpu().numpy()
        heat = {k: colour_map(v[i].cpu().numpy(), 0, self.scale) for k, v in outputs.items() if v[i].ndim == 2}
        fused = outline(heat.pop("anomaly_map"), mask)
        unknown = batch["label"][i] and not batch["mask_path"][i]
        shown = message("no mask", mask.shape) if unknown else to_picture(mask[None].repeat(3, 0))
        tiles = {"image": to_picture(image), "mask": shown, **heat, "fused": fused}
        if "image_recon" in outputs:
            tiles["reconstruction"] = to_picture(outputs["image_recon"][i].cpu().numpy())
        return tiles
