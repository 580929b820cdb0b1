"""One run, from its configuration to its figures: make the parts, fit, test, and write the folder."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf, open_dict

from squad_lit.image.roi import encode
from squad_lit.run import provenance
from squad_lit.run.config import compose, quote
from squad_lit.run.folder import clear, write_config
from squad_lit.run.job import is_first_process
from squad_lit.run.model import make_module, packages
from squad_lit.run.option import check, check_effect, make
from squad_lit.system.allocator import keep_freed_memory
from squad_lit.system.console import end, on_sigterm
from squad_lit.system.file import digest, whole, write_json
from squad_lit.system.lock import hold
from squad_lit.system.table import write_rows

if TYPE_CHECKING:
    import lightning as L

    from squad_lit.deploy.predictor import Predictor
    from squad_lit.deploy.threshold import Threshold
    from squad_lit.training.detector import Detector
    from squad_lit.training.evaluation import Evaluation

log = logging.getLogger(__name__)

_LIMITS = ("max_epochs", "max_steps", "max_time", "limit_train_batches", "limit_val_batches", "limit_test_batches")


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Args:
        folder: The folder with ``metrics.json``, ``last.ckpt``, ``predictions.csv``, ``panels/`` and others.
        figures: The content of ``metrics.json``. Metrics are fractions in [0, 1]; an undefined one is NaN.
        trust: Packages whose classes the checkpoint may name.
    """

    folder: Path
    figures: dict[str, Any]
    trust: Sequence[str] = ()

    @property
    def detector(self) -> Predictor:
        """The trained model, ready for new images; see :func:`squad_lit.load`."""
        import squad_lit

        return squad_lit.load(self.folder / "last.ckpt", trust=self.trust)


def fit(
    dataset: str | None = None,
    *,
    root: str | Path | None = None,
    model: str | None = None,
    output: str | Path | None = None,
    overrides: Sequence[str] = (),
    config_dir: str | Path | None = None,
) -> Run:
    """Train and test a model, as ``python -m squad_lit.train`` does, and with its figures.

    Args:
        dataset: A name in ``conf/dataset``: ``folder`` for a folder of your own. None: that of an experiment, or the
            embedded benchmark.
        root: Folder of the data; None: the data set's default.
        model: ``hybrid``, ``squad``, ``memory`` or one of your own; None: the default, ``hybrid``.
        output: Folder of the run; None: a new one in ``runs/DATASET``, or in ``runs/fit`` without a data set.
        overrides: Further options, as they are typed on the command line: ``["model.steps=600", "seed=1"]``.
        config_dir: A folder of your own configurations, as for ``--config-dir``.

    Returns:
        The figures, the folder, and the trained model.

    Raises:
        ValueError: An option is wrong, or the data cannot be used; the message says which and what to do.
        TypeError: ``overrides`` is one text.
        OSError: A file is missing, or the folder cannot be written to.
    """
    if isinstance(overrides, str):
        raise TypeError(f"overrides: expected a list of texts, such as ['model.steps=600'], got {overrides!r}")
    time_stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{os.urandom(3).hex()}"
    folder = Path(output or f"runs/{dataset or 'fit'}/{time_stamp}").absolute()
    groups = {"dataset": dataset, "model": model}
    given = [*(f"{group}={name}" for group, name in groups.items() if name), *overrides]
    given += [f"dataset.root={quote(root)}"] if root else []
    config = compose(given, config_dir=config_dir, output=folder, with_hydra=True)
    with open_dict(config):
        swept = set(config.pop("hydra").sweeper.params or {}) - {o.partition("=")[0] for o in given}
    if swept:
        raise ValueError(
            f"{' '.join(overrides)} is a sweep over {', '.join(sorted(swept))}, and fit is one training: choose one "
            f"value, as in overrides=[..., '{min(swept)}=VALUE'], or run the sweep with squad-lit train"
        )
    check_effect(config, given)
    folder.mkdir(parents=True, exist_ok=True)
    return run(config, folder)


def run(config: DictConfig, folder: Path) -> Run:
    """One run, from configuration to figures.

    Args:
        config: The configuration that was composed from ``conf/train.yaml``.
        folder: The folder of the run.

    Raises:
        ValueError: Options are wrong or contradict each other, a checkpoint is of another model, or the folder is in
            use.
    """
    with hold(folder) if is_first_process() else contextlib.nullcontext():
        return _run(config, folder)


def _run(config: DictConfig, folder: Path) -> Run:
    import lightning as L
    import torch

    from squad_lit.deploy.pixel_model import thresholds
    from squad_lit.training import distributed
    from squad_lit.training.checkpoint import PREVIOUS

    started = time.perf_counter()
    config = config.copy()
    OmegaConf.update(config, "output", str(folder), force_add=True)
    check(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    _silence()
    L.seed_everything(config.seed, workers=True, verbose=False)
    # The cheapest part comes first, so that a mistake shows before images are drawn or read.
    evaluation = make(config, "metric")
    trainer = _make_trainer(config, evaluation)
    distributed.check_nodes(trainer)
    distributed.watch()
    if config.export:
        _check_export(config)
    data = make(config, "dataset")
    _check_data(config, data)
    module = make_module(config)
    if config.fit:
        module.state.false_alarm_rate = config.threshold.false_alarm_rate
    if data.roi is not None and not config.fit and encode(data.roi) != module.state.roi:
        raise ValueError(
            "dataset.roi: the checkpoint has another region of interest, which it keeps: leave the option out"
        )
    data.keep_shape(module.multiple)
    module.check_data(data.categories, data.image_size)
    plain = write_config(folder, config, module)
    clear(folder, config)
    last = folder / "last.ckpt"
    if config.resume and module.state.step >= module.steps and not last.exists():
        with whole(last) as part:  # what uses the run finds its model, as after a training
            shutil.copyfile(config.resume, part)
    data.prepare_data()
    data.setup()
    plain |= {"data": (about_data := _about(data))}
    for logger in trainer.loggers:
        if config.resume and (go_on := getattr(logger, "go_on", None)):  # of a logger that has rows of the run
            go_on(module.state.step)
        logger.log_hyperparams(plain)
    try:
        if config.fit and module.state.step < module.steps:
            if not config.resume:
                module.state.trained_on = [digest(p) for s in data.train_set.samples if (p := s.image_path).is_file()]
            resume = os.path.abspath(config.resume) if config.resume else None
            # Lightning calls an older handler at once, and that of the commands would not wait for the end of a step.
            older = signal.getsignal(signal.SIGTERM)
            with on_sigterm(signal.SIG_DFL if older in (None, end) else older):
                trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
            if not module.anomaly.standardised:
                raise ValueError(
                    f"the training ended after {module.state.step} of {module.steps} steps without a validation, which "
                    f"the maps are standardised by: leave out {_limits(config) or 'what ends it'}"
                )
            (folder / PREVIOUS).unlink(missing_ok=True)
        limits = thresholds(module, config.threshold.false_alarm_rate)
        if len(data.test_set):
            evaluation.thresholds = limits[0].value, limits[1].value
            _test(trainer, module, data, folder)
        else:
            log.warning("there are no test images: nothing is measured")
        figures = _figures(config, trainer, evaluation, module, limits, started) | {"data": about_data}
        if data.unreadable:
            figures["run"]["unreadable"] = len(data.unreadable)
        if trainer.is_global_zero and (tested := len(evaluation.predictions())) < len(data.test_set):
            figures["run"]["partly_tested"] = f"{tested} of {len(data.test_set)} images, because of {_limits(config)}"
            log.warning("the figures are of %s", figures["run"]["partly_tested"])
        if trainer.is_global_zero:
            write_json(folder / "metrics.json", figures)
            if len(data.test_set):
                write_rows(folder / "predictions.csv", evaluation.predictions())
        trust = tuple(config.trust) + packages(module.state.config)
        if config.export and trainer.is_global_zero:
            _export(config, folder, trust)
        _tell_loggers(trainer, figures, module.state.step, folder)
    except SystemExit:
        if trainer.received_sigterm:  # Lightning exits with 0, like a success
            raise SystemExit(128 + signal.SIGTERM) from None
        if trainer.interrupted:  # and here with 1, like an error
            raise KeyboardInterrupt from None
        raise
    except RuntimeError as error:
        if trainer.world_size > 1 and (reason := distributed.lost(error)):
            raise ConnectionError(reason) from error
        raise
    finally:
        _finish_wandb(sys.exc_info()[1])
    return Run(folder, figures, trust)


def _make_trainer(config: DictConfig, evaluation: Evaluation) -> L.Trainer:
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.callbacks import ProgressBar
    from lightning.pytorch.plugins.io import TorchCheckpointIO

    from squad_lit.training import checkpoint

    known = {"auto", "gpu", *AcceleratorRegistry.available_accelerators()}
    if isinstance(name := config.trainer.accelerator, str) and name not in known:
        raise ValueError(f"trainer.accelerator: expected {', '.join(sorted(known))}, got {name!r}")
    callbacks = [make(config, f"callback.{name}") for name, node in config.callback.items() if node]
    loggers = [make(config, f"logger.{name}") for name, node in config.logger.items() if node]
    # Without callback.progress there is no bar at all: Lightning would show its own.
    bars = any(isinstance(callback, ProgressBar) for callback in callbacks)
    trainer: L.Trainer = make(
        config, "trainer", callbacks=[evaluation, *callbacks], logger=loggers, enable_progress_bar=bars
    )
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # the user has given no other one
        trainer.strategy.checkpoint_io = checkpoint.WholeFile()
    if trainer.precision not in ("32-true", "bf16-mixed", "16-mixed"):  # half-precision weights learn worse
        raise ValueError(f"trainer.precision: expected 32-true, bf16-mixed or 16-mixed, got {trainer.precision}")
    return trainer


def _check_data(config: DictConfig, data: Any) -> None:
    if data.corruption and "shift" in data.corruption.strengths and config.metric.resolution == "original":
        raise ValueError(
            "dataset.corruption: a shift moves the resized masks, and metric.resolution=original reads those of the "
            "files: use metric.resolution=map"
        )
    if not config.fit:
        return
    if data.validation_fraction == 0:
        raise ValueError(
            "dataset.validation_fraction: expected above 0 for training: without a hold-out of the normal training "
            "images the maps cannot be standardised"
        )


def _limits(config: DictConfig) -> str:
    """The options of the trainer that end a training, or a pass over images, before its end."""
    values = {name: config.trainer.get(name) for name in _LIMITS}
    return " ".join(f"trainer.{name}={value}" for name, value in values.items() if value not in (None, -1))


def _check_export(config: DictConfig) -> None:
    """Say what an export would lack now, and not after the training."""
    from squad_lit.deploy.export import check_packages

    check_packages(config.export)
    if config.fit and not config.callback.get("checkpoint"):
        raise ValueError(f"export={config.export} exports last.ckpt, which callback.checkpoint=null does not write")


def _export(config: DictConfig, folder: Path, trust: Sequence[str]) -> None:
    """Write the model for another runtime into the folder of the run."""
    from squad_lit.deploy.export import SUFFIXES, export

    checkpoint = Path(os.path.abspath(config.checkpoint)) if config.checkpoint else folder / "last.ckpt"
    output = folder / f"model{SUFFIXES[config.export]}"
    rate = None if config.checkpoint else config.threshold.false_alarm_rate
    made = export(checkpoint, output, config.export, false_alarm_rate=rate, trust=trust)
    text = "%s: its scores differ from those of the checkpoint by at most %.1g of their size"
    log.info(text, output, made.difference)


def _test(trainer: L.Trainer, module: Detector, data: Any, folder: Path) -> None:
    try:
        trainer.test(module, datamodule=data, verbose=False)
    except (ValueError, TypeError, OSError):
        if (folder / "last.ckpt").exists():
            print(f"the model is trained; test it with fit=false checkpoint={folder / 'last.ckpt'}", file=sys.stderr)
        raise


def _figures(
    config: DictConfig,
    trainer: L.Trainer,
    evaluation: Evaluation,
    module: Detector,
    limits: tuple[Threshold, Threshold],
    started: float,
) -> dict[str, Any]:
    """The content of ``metrics.json``: metrics, label-free measures, times, memory, thresholds and provenance."""
    score, pixel = limits
    if score.shortfall and trainer.is_global_zero:
        warnings.warn(score.shortfall, stacklevel=2)
    threshold = {"anomaly_score": score.value, "pixel": pixel.value}
    threshold |= {"false_alarm_rate": score.false_alarm_rate, "images": score.images}
    others = [c for c in trainer.callbacks if c is not evaluation] if config.fit else []  # type: ignore[attr-defined]
    timed = {key: value for c in others for key, value in getattr(c, "figures", {}).items()}
    run = provenance.about(config, started, trainer.strategy.root_device)
    if module.state.step < module.steps:
        reason = f", because of {options}" if config.fit and (options := _limits(config)) else ""
        run["ended_early"] = f"after {module.state.step} of {module.steps} steps{reason}"
        log.warning("the training ended %s", run["ended_early"])
    about = {"threshold": threshold, "run": run}
    return evaluation.figures | module.state.measured | timed | provenance.peak_memory() | about


def _about(data: Any) -> dict[str, Any]:
    """Numbers of images, and a digest of their files and masks; two runs with one digest have seen the same files."""
    sets = {"train": data.train_set, "validation": data.val_set, "test": data.test_set}
    samples = [sample for images in sets.values() for sample in images.samples]
    paths = [path for s in samples for path in (s.image_path, s.mask_path) if path is not None and path.is_file()]
    anomalous = sum(sample.label for sample in data.test_set.samples)
    counts = {f"{name}_images": len(images) for name, images in sets.items()} | {"anomalous_test_images": anomalous}
    return counts | {"digest": digest(*paths) if is_first_process() else ""}


def _tell_loggers(trainer: L.Trainer, figures: dict[str, Any], step: int, folder: Path) -> None:
    """Give loggers what is known at the end: thresholds, peak memory, and the files that they keep."""
    last = {f"test/threshold/{key}": float(value) for key, value in figures["threshold"].items() if value is not None}
    last |= {f"test/{key}": value for key, value in figures.items() if key.startswith("peak_")}
    for logger in trainer.loggers:
        logger.log_metrics(last, step)
        logger.save()
        if keep := getattr(logger, "keep", None):
            keep(folder)


def _silence() -> None:
    """Hide messages of Lightning that a user cannot act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    shared = "It is recommended to use .self.log"  # what is logged is the same in all processes
    srun = "The .srun. command is available"  # on the login node of a cluster one trains without it
    eval_mode = r"Found \d+ module\(s\) in eval mode"
    for message in (r".isinstance\(treespec", eval_mode, "The number of training", shared, srun):
        warnings.filterwarnings("ignore", message)


def _finish_wandb(error: BaseException | None) -> None:
    """Finish the W&B run of this job; otherwise the jobs of a multirun would share the first one."""
    if "wandb" in sys.modules:
        code = 0 if error is None else 130 if isinstance(error, KeyboardInterrupt) else 1
        sys.modules["wandb"].finish(exit_code=code)
