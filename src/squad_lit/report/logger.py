"""The loggers of a run: W&B, TensorBoard and MLflow with the same sections, and a CSV file that goes on."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from squad_lit.image.picture import Picture
from squad_lit.metric.curve import AXES, Curve
from squad_lit.network.quantizer import chosen_by
from squad_lit.report.curve import curve_plot
from squad_lit.report.panel import FIRST, HIGHEST_NORMAL, LOWEST_ANOMALOUS, Panel
from squad_lit.system.package import require
from squad_lit.system.table import read_rows
from squad_lit.training.checkpoint import run_id

# The first words after train/, val/ or test/ of two sections. The rest of train/ are losses, all else are metrics.
CODES = ("copy_ratio", "codebook_usage", "perplexity", "feature_error")
TRAINING = ("lr", "images_per_second", "adversarial_weight", "gpu_use", "gpu_memory_mb")

# Files of a run's folder that a dashboard may keep, by kind.
RESULTS = ("config.yaml", "metrics.json", "predictions.csv", "curves.json", "curves.png", "panels.csv")
KEPT = {"model": ("last.ckpt",), "results": (*RESULTS, "report/report.html")}


@runtime_checkable
class PictureLogger(Protocol):
    """A logger that shows more than numbers."""

    def show_panels(self, panels: Sequence[Panel], step: int) -> None:
        """Show pictures of test images."""

    def show_curves(self, curves: Mapping[str, Mapping[str, Curve]], step: int) -> None:
        """Show the curves per category, by name."""

    def show_levels(self, levels: Mapping[str, Sequence[Sequence[float]]], step: int) -> None:
        """Show the share of each level per group and scalar."""


def section_key(key: str) -> str:
    """``section/name``, with one slash, so that a dashboard that groups by prefix shows the sections.

    Example:
        >>> [section_key(key) for key in ("train/feature/low", "val/copy_ratio/low", "train/lr/generator", "test/psnr")]
        ['losses/feature_low', 'codes/copy_ratio_low', 'training/lr_generator', 'metrics/psnr']
        >>> section_key("test/per_category/bottle/pixel_ap"), section_key("test/threshold/pixel")
        ('per_category/pixel_ap_bottle', 'threshold/pixel')
    """
    stage, first, *rest = key.split("/")
    if first in ("per_category", "threshold"):
        return f"{first}/{'_'.join(reversed(rest))}"
    other = "losses" if stage == "train" else "metrics"
    section = "codes" if first in CODES else "training" if first in TRAINING else other
    return f"{section}/{'_'.join([first, *rest])}"


def _sections(metrics: Mapping[str, float]) -> dict[str, float]:
    return {section_key(key): value for key, value in metrics.items() if "/" in key}  # Lightning adds its epoch


def _kept(folder: Path) -> dict[str, list[Path]]:
    """The files to keep of a run's folder by kind, with its report, which is made for that."""
    from squad_lit.report.__main__ import main  # it draws, which most runs do not need

    with contextlib.redirect_stdout(io.StringIO()):
        main([str(folder)])
    return {kind: [path for name in files if (path := folder / name).is_file()] for kind, files in KEPT.items()}


class Wandb(WandbLogger):
    """Weights & Biases, with the project's own step as the axis and a run named by category and quantiser.

    Args:
        name: Name of the run; null makes one from its configuration.
        group: Group of the run; null takes the class of its data set.
        resume: The checkpoint whose run goes on; null starts a new one.
        artifacts: Whether :meth:`keep` uploads the run's checkpoint and its results.
        offline: Whether the run is kept on disk; null: if neither a key nor WANDB_MODE says how it is uploaded.
        options: Those of :class:`lightning.pytorch.loggers.WandbLogger`.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        group: str | None = None,
        resume: str | None = None,
        artifacts: bool = False,
        offline: bool | None = None,
        **options: Any,
    ) -> None:
        from wandb import Settings, login

        if offline is None:
            mode = os.environ.get("WANDB_MODE")  # Lightning sets it, too, for later runs of the same process
            offline = mode in ("offline", "dryrun") if mode else not login(prompt=False, verify=False)
        # W&B writes every 15 s, and what is not written is lost if the process is killed.
        options.setdefault("settings", Settings(x_transaction_log_flush_interval=0.1))
        super().__init__(name=name, group=group, id=run_id(resume, "Wandb"), offline=offline, **options)
        if offline:  # Lightning says it by WANDB_MODE, which W&B no longer reads once it has looked for a key
            self._wandb_init["mode"] = "offline"
        self.artifacts = artifacts
        del self._wandb_init["anonymous"]  # W&B warns of it, whatever it is

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        assert isinstance(params, dict)
        dataset = params["dataset"]["_target_"].rpartition(".")[2].lower()
        self._wandb_init["name"] = self._wandb_init["name"] or run_name(params)
        self._wandb_init["group"] = self._wandb_init["group"] or dataset
        super().log_hyperparams(params)
        # Lightning's global_step, the axis that its logger sets, counts the steps of both optimisers.
        self.experiment.define_metric("step", hidden=True)
        self.experiment.define_metric("*", step_metric="step", overwrite=True)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._log(_sections(metrics), step)

    @rank_zero_only
    def show_panels(self, panels: Sequence[Panel], step: int) -> None:
        from wandb import Image, Table

        captions = list(dict.fromkeys(caption for p in panels for caption in p.tiles))
        rows = [p.row() for p in panels]
        table = Table([*rows[0], *captions])
        for p, row in zip(panels, rows, strict=True):
            table.add_data(*row.values(), *(Image(p.tiles[caption], file_type="jpg") for caption in captions))
        # The table's pictures wait for `wandb sync` in W&B's own folder; these lie in the run's folder.
        pictures = {
            f"maps/{choice.replace(' ', '_')}": [
                Image(p.picture(), caption=p.caption(), file_type="jpg") for p in panels if choice in p.choice
            ]
            for choice in (FIRST, HIGHEST_NORMAL, LOWEST_ANOMALOUS)
        }
        self._log({"maps/panels": table} | {key: own for key, own in pictures.items() if own}, step)

    @rank_zero_only
    def show_curves(self, curves: Mapping[str, Mapping[str, Curve]], step: int) -> None:
        from wandb import plot

        for name in dict.fromkeys(name for own in curves.values() for name in own):
            own = {category: c[name] for category, c in curves.items() if name in c}
            x, y = AXES[name.rpartition("_")[2]]
            chart = plot.line_series(
                xs=[c.x.tolist() for c in own.values()],
                ys=[c.y.tolist() for c in own.values()],
                keys=list(own),
                title=f"{name}: {y} against {x}",
                xname=x,
            )
            self._log({f"metrics/{name}": chart}, step)

    @rank_zero_only
    def show_levels(self, levels: Mapping[str, Sequence[Sequence[float]]], step: int) -> None:
        from wandb import Histogram

        histograms = {
            f"codes/levels_{group}_{i}": Histogram(np_histogram=(np.asarray(share), np.arange(len(share) + 1)))
            for group, scalars in levels.items()
            for i, share in enumerate(scalars)
        }
        self._log(histograms, step)

    @rank_zero_only
    def keep(self, folder: Path) -> None:
        if not self.artifacts:
            return
        from wandb import Artifact

        run = self.experiment
        for kind, paths in _kept(folder).items():
            artifact = Artifact(f"{run.id}_{kind}", type=kind)
            for path in paths:
                artifact.add_file(str(path))
            run.log_artifact(artifact)

    def _log(self, values: Mapping[str, Any], step: int | None) -> None:
        if values:
            self.experiment.log({**values, "step": step})


def run_name(config: Mapping[str, Any]) -> str:
    """Category and quantiser, or model where nothing is quantised, of a resolved configuration.

    Example:
        >>> run_name({"dataset": {"category": ["a", "b"]}, "model": {"_target_": "squad_lit.training.memory.Memory"}})
        'a+b memory'
    """
    category, model = config["dataset"]["category"], config["model"]
    word = str(model["_target_"]).rpartition(".")[2].lower()
    if word == "squad":  # another model's configuration may name a quantiser that it does not use
        word = chosen_by(model["generator"]["quantizer"]["_target_"]) + ("" if model.get("memory") else " squad")
    return f"{category if isinstance(category, str) else '+'.join(category)} {word}"


class TensorBoard(TensorBoardLogger):
    """TensorBoard, with the same sections; see :class:`lightning.pytorch.loggers.TensorBoardLogger`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics(_sections(metrics), step)

    @rank_zero_only
    def show_panels(self, panels: Sequence[Panel], step: int) -> None:
        for p in panels:
            self.experiment.add_image(f"maps/{p.name.removesuffix('.png')}", p.picture(), step, dataformats="HWC")

    @rank_zero_only
    def show_curves(self, curves: Mapping[str, Mapping[str, Curve]], step: int) -> None:
        self.experiment.add_image("metrics/curves", curve_plot(curves), step, dataformats="HWC")

    @rank_zero_only
    def show_levels(self, levels: Mapping[str, Sequence[Sequence[float]]], step: int) -> None:
        for group, scalars in levels.items():
            for i, share in enumerate(scalars):
                level = np.arange(len(share))
                self.experiment.add_histogram_raw(
                    f"codes/levels_{group}_{i}",
                    min=0,
                    max=len(share) - 1,
                    num=sum(share),
                    sum=float(level @ np.asarray(share)),
                    sum_squares=float(level**2 @ np.asarray(share)),
                    bucket_limits=(level + 0.5).tolist(),
                    bucket_counts=list(share),
                    global_step=step,
                )


class Mlflow(MLFlowLogger):
    """MLflow, with the same sections; pictures and histograms are artifacts of the run.

    Args:
        run_name: Name of the run; null makes one from its configuration.
        resume: The checkpoint whose run goes on; null starts a new one.
        artifacts: Whether :meth:`keep` keeps the run's checkpoint and its results.
        options: Those of :class:`lightning.pytorch.loggers.MLFlowLogger`.
    """

    def __init__(
        self, *, run_name: str | None = None, resume: str | None = None, artifacts: bool = False, **options: Any
    ) -> None:
        require("mlflow")
        # A folder of files needs no server; MLflow keeps it, but asks that one wants it.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._goes_on = run_id(resume, "Mlflow")
        super().__init__(run_name=run_name, run_id=self._goes_on, **options)
        self.artifacts = artifacts

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        assert isinstance(params, dict)
        self._run_name = self._run_name or run_name(params)
        if self._goes_on is None:  # MLflow refuses another value of a parameter, such as resume
            super().log_hyperparams(params)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if values := _sections(metrics):
            super().log_metrics(values, step)

    @rank_zero_only
    def show_panels(self, panels: Sequence[Panel], step: int) -> None:
        for p in panels:
            self._picture(p.picture(), f"maps/{p.name}")

    @rank_zero_only
    def show_curves(self, curves: Mapping[str, Mapping[str, Curve]], step: int) -> None:
        self._picture(curve_plot(curves), "metrics/curves.png")

    @rank_zero_only
    def show_levels(self, levels: Mapping[str, Sequence[Sequence[float]]], step: int) -> None:
        self.experiment.log_dict(self.run_id, {"step": step, **levels}, "codes/levels.json")

    @rank_zero_only
    def keep(self, folder: Path) -> None:
        for kind, paths in _kept(folder).items() if self.artifacts else ():
            for path in paths:
                self.experiment.log_artifact(self.run_id, str(path), kind)

    def _picture(self, picture: Picture, place: str) -> None:
        self.experiment.log_image(self.run_id, picture, place)


class ResumableCSVLogger(CSVLogger):
    """Lightning's CSV logger, which goes on with the rows of the run that is resumed.

    Args:
        save_dir: Folder of the run.
        resume: The checkpoint that is continued; None starts the file anew.
    """

    def __init__(self, *, save_dir: str, resume: str | None) -> None:
        super().__init__(save_dir, name="", version="csv")
        path = Path(resume or "").absolute().parent / Path(self.log_dir).name / "metrics.csv"
        known = read_rows(path) if resume is not None and path.exists() else []
        # Now: Lightning's writer deletes the file.
        whole = [row for row in known if not {None} & {*row, *row.values()}]  # a kill may cut the last one
        self._before: list[dict[str, Any]] = [{k: v for k, v in row.items() if v} for row in whole]

    @rank_zero_only
    def go_on(self, step: int) -> None:
        """Keep the rows up to the step of the checkpoint; what came after it is done, and logged, again."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Experiment logs directory")  # "will be deleted"
            writer = self.experiment
        kept = [
            row for row in self._before if float(row["step"]) <= step and not any(k.startswith("test/") for k in row)
        ]
        writer.metrics = kept + writer.metrics
        writer.save()
