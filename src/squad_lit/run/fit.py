"""One run, from its configuration to its figures: build the parts, fit, test, and leave everything in the folder."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from squad_lit.run import provenance
from squad_lit.run.command import (
    OF_THE_MODEL,
    USER_ERRORS,
    check_options,
    instantiate,
    model_options,
)
from squad_lit.run.job import differences, hold, is_first_process
from squad_lit.run.option import check_kinds
from squad_lit.system.allocator import keep_freed_memory
from squad_lit.system.file import write_json, write_rows, write_text

if TYPE_CHECKING:
    import lightning as L

    from squad_lit.training.detector import Detector

log = logging.getLogger(__name__)


def run(config: DictConfig, folder: Path) -> dict[str, Any]:
    """One run, from configuration to figures.

    Args:
        config: As composed from ``conf/train.yaml``.
        folder: Where everything of the run is written.

    Returns:
        What is in ``metrics.json``.

    Raises:
        ValueError: Options that do not go together, a checkpoint of another model, or a folder that is in use.
    """
    with hold(folder) if is_first_process() else contextlib.nullcontext():
        return _run(config, folder)


def _run(config: DictConfig, folder: Path) -> dict[str, Any]:
    import lightning as L
    import torch
    from lightning.pytorch.callbacks import ProgressBar

    from squad_lit.deploy.pixel_model import thresholds
    from squad_lit.training.evaluation import Evaluation

    started = time.perf_counter()
    check_options(config)
    check_kinds(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed_memory()
    _silence()
    L.seed_everything(config.seed, workers=True, verbose=False)
    # In the order of what they cost: a mistake shows before pictures are drawn or read.
    options = OmegaConf.to_container(config.metric, resolve=True)
    evaluation = Evaluation(**options, seed=config.seed)  # type: ignore[arg-type]
    callbacks = [instantiate(c) for c in config.callback.values() if c]
    loggers = [instantiate(c) for c in config.logger.values() if c]
    # Without callback.progress there is no bar at all: Lightning would show its own.
    bars = any(isinstance(c, ProgressBar) for c in callbacks)
    trainer: L.Trainer = instantiate(config.trainer, callbacks=callbacks, logger=loggers, enable_progress_bar=bars)
    # Float16 needs its gradients unscaled before they are clipped, and half-precision weights learn worse.
    if trainer.precision not in ("32-true", "bf16-mixed"):
        raise ValueError(f"trainer.precision: expected 32-true or bf16-mixed, got {trainer.precision}")
    data = instantiate(config.dataset)
    if config.fit and data.validation_fraction == 0:
        raise ValueError(
            "dataset.validation_fraction: expected above 0 for training: without a hold-out of the normal training "
            "images the maps cannot be calibrated"
        )
    if config.fit and data.batch_size < 2:
        raise ValueError("dataset.batch_size: expected at least 2: a training batch holds clean and synthetic images")
    module = make_module(config)
    module.evaluation = evaluation
    if config.fit:
        module.false_alarm_rate = config.threshold.false_alarm_rate
    module.check_data(data.categories, data.image_size)
    plain = _write_config(folder, config, module)
    _remove_results(folder)
    data.prepare_data()
    data.setup()
    for logger in loggers:
        logger.log_hyperparams(plain)
    try:
        if config.fit and module.step < module.steps:
            resume = hydra.utils.to_absolute_path(config.resume) if config.resume else None
            trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
        if len(data.test_set):
            _test(trainer, module, data, folder)
        else:
            log.warning("there are no test images: nothing is measured")
            module.figures = dict(module.measured)
    except SystemExit:
        if trainer.received_sigterm:  # Lightning exits with 0, like a success
            raise SystemExit(128 + signal.SIGTERM) from None
        if trainer.interrupted:  # and here with 1, like an error
            raise KeyboardInterrupt from None
        raise
    finally:
        _finish_wandb(sys.exc_info()[1])
    score, pixel = thresholds(module, config.threshold.false_alarm_rate)
    threshold = {"anomaly_score": score.value, "pixel": pixel.value}
    threshold |= {"false_alarm_rate": score.false_alarm_rate, "images": score.images}
    timed = {k: v for c in callbacks for k, v in getattr(c, "figures", {}).items()} if config.fit else {}
    about = {"threshold": threshold, "run": provenance.about(config, started, trainer.strategy.root_device)}
    figures = module.figures | timed | provenance.peak_memory() | about
    if trainer.is_global_zero:
        write_json(folder / "metrics.json", figures)
        if len(data.test_set):
            write_rows(folder / "predictions.csv", module.evaluation.predictions())
    return figures


def _test(trainer: L.Trainer, module: Detector, data: Any, folder: Path) -> None:
    try:
        trainer.test(module, datamodule=data, verbose=False)
    except USER_ERRORS:
        if (folder / "last.ckpt").exists():
            print(f"the model is trained; test it with fit=false checkpoint={folder / 'last.ckpt'}", file=sys.stderr)
        raise


def _remove_results(folder: Path) -> None:
    """Leave no figures and pictures of an earlier run beside the configuration of this one."""
    for name in ("metrics.json", "predictions.csv", "panels.csv", "curves.json", "curves.png", "error.txt"):
        (folder / name).unlink(missing_ok=True)
    for picture in (folder / "panels").glob("*.png"):
        picture.unlink()


def make_module(config: DictConfig) -> Detector:
    """The model of the configuration, or of the checkpoint that is to be tested or continued."""
    from squad_lit.training import checkpoint

    if config.checkpoint:
        return checkpoint.load(hydra.utils.to_absolute_path(config.checkpoint))
    content: dict[str, Any] = OmegaConf.to_container(config.model, resolve=True)  # type: ignore[assignment]
    # model.fsq is where the command line finds it; the generator has its copy. The memory takes no part of a training.
    plain = {key: value for key, value in content.items() if key in model_options(config) or key == "_target_"}
    # Hydra merges dictionaries, so null is how the command line takes a group away.
    plain["groups"] = {name: strides for name, strides in plain["groups"].items() if strides is not None}
    if config.resume:
        path = hydra.utils.to_absolute_path(config.resume)
        content = checkpoint.read(path)
        own = content[checkpoint.KEY]
        different = differences(own["config"], plain, "model")
        different += differences(own["data"], _data_options(config), "dataset")
        if different := sorted(different):
            raise ValueError(
                f"resume={config.resume}: this checkpoint was made with other values of: {', '.join(different)}; "
                f"continue with the configuration in the config.yaml beside it"
            )
    module: Detector = checkpoint.build(plain)
    module.config, module.data = plain, _data_options(config)
    try:  # now, not when the training starts; a prediction has no use for them
        module.configure_optimizers()
    except (TypeError, ValueError) as error:
        raise ValueError(f"model.optimizer or model.scheduler: {error}") from error
    if config.resume:
        module.on_load_checkpoint(content)
        if module.step >= module.steps:
            log.warning("%s has finished its %d steps; it is tested as it is", config.resume, module.steps)
            return checkpoint.load(path)
    return module


def _data_options(config: DictConfig) -> dict[str, Any]:
    """The options of the data set that decide which images a training sees, and in which batches."""
    plain: dict[str, Any] = OmegaConf.to_container(config.dataset, resolve=True)  # type: ignore[assignment]
    return {key: value for key, value in plain.items() if key not in ("root", "num_workers", "cache", "cache_folder")}


def _write_config(folder: Path, config: DictConfig, module: Detector) -> dict[str, Any]:
    """Write the resolved configuration; of a test that of the model is the checkpoint's, not the command line's.

    Returns:
        What determines the figures: all but callbacks and loggers.
    """
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    if config.checkpoint:
        plain = {key: value for key, value in plain.items() if key not in OF_THE_MODEL} | {"model": module.config}
    # Their folders are those of the run that reads the file, not of this one.
    beside = {key: OmegaConf.to_container(config[key], resolve=False) for key in ("callback", "logger")}
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain | beside)))
    return {key: value for key, value in plain.items() if key not in beside}


def _silence() -> None:
    """Leave out what Lightning says about itself and about a frozen backbone: nothing a user could act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    for message in (r".isinstance\(treespec", r"Found \d+ module\(s\) in eval mode", r"The number of training batches"):
        warnings.filterwarnings("ignore", message)


def _finish_wandb(error: BaseException | None) -> None:
    """One W&B run a job: without this the jobs of a multirun would share the first one's."""
    if "wandb" in sys.modules:
        code = 0 if error is None else 130 if isinstance(error, KeyboardInterrupt) else 1
        sys.modules["wandb"].finish(exit_code=code)
